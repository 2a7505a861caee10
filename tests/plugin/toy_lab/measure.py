"""A measure of compositions: the energy distance to the downstream jets.

python -m jetscale.composition compare --trust toy_lab.measure
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from jetscale.composition.half_samples import Measured
from jetscale.composition.measures import MEASURES, Comparison, Measure


def energy_distance(x_BO: np.ndarray, y_MO: np.ndarray) -> float:
    """Square root of 2 E|x - y| - E|x - x'| - E|y - y'|: 0 where both samples are of one distribution.

    Székely and Rizzo, J. Stat. Plan. Inference 143 (2013) 1249.

    Parameters
    ----------
    x_BO, y_MO : (B, O) and (M, O) float64 coordinates of the two samples
    """
    squared = 2 * cdist(x_BO, y_MO).mean() - cdist(x_BO, x_BO).mean() - cdist(y_MO, y_MO).mean()
    return float(np.sqrt(max(squared, 0.0)))


def measure(both: Comparison) -> Measured:
    """The distance with its standard error; `rows` are the jets of a half-sample of either side."""
    return both.measured(lambda rows: energy_distance(both.ours[rows[0]], both.theirs[rows[1]]), (0, np.inf))


MEASURES.register("energy_distance")(Measure("energy distance", measure))
