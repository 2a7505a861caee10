"""Diversity: how much there is to see in a composition. Shapes: B jets, O observables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh
from scipy.spatial.distance import cdist

from jetscale.composition.half_samples import Measured
from jetscale.composition.measures import Comparison, Measure

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


VENDI_JETS = 1_000
"""Jets of a Vendi score: eigenvalues take B^3 operations."""


def effective_number(classes_B: Integers) -> float:
    """Effective number of classes: exp of the Shannon entropy, the Hill number of order 1.

    K equally frequent classes give K. Hill, Ecology 54 (1973) 427.
    """
    return _hill(np.unique(classes_B, return_counts=True)[1] / len(classes_B))


def width(values_B: Array, reference_B: Array) -> float:
    """Central 90% range of an observable, over that of the reference.

    Parameters
    ----------
    values_B, reference_B : (B,) values of the two samples
    """
    ours, theirs = (np.diff(np.quantile(values, [0.05, 0.95])).item() for values in (values_B, reference_B))
    return ours / theirs


def vendi(x_BO: Array, scale: float) -> float:
    """Vendi score: the effective number of unlike jets.

    exp of the entropy of the eigenvalues of K / B, K the matrix of similarities exp(-d^2 / (2 scale^2)): 1
    where all jets are alike, B where none is like another. Friedman and Dieng, arXiv:2210.02410, eq. 4.

    Parameters
    ----------
    x_BO : (B, O) coordinates of jets
    scale : distance over which jets become unlike
    """
    similarity_BB = np.exp(-cdist(x_BO, x_BO, "sqeuclidean") / (2 * scale**2))
    return _hill(np.maximum(eigvalsh(similarity_BB / len(x_BO), check_finite=False), 0.0))


def median_distance(x_BO: Array) -> float:
    """Median distance between two jets: the usual scale of similarity."""
    distance_BB = cdist(x_BO, x_BO)
    return float(np.median(distance_BB[np.triu_indices(len(x_BO), k=1)]))


def _hill(shares: Array) -> float:
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _effective_classes(both: Comparison) -> Measured:
    classes_B = both.jets.classes_B
    return both.measured(lambda rows: effective_number(classes_B[rows[0]]), (1, np.inf), both.sizes[:1])


def _vendi(both: Comparison) -> Measured:
    few, scale = both.ours[:VENDI_JETS], median_distance(both.theirs[:VENDI_JETS])
    return both.measured(lambda rows: vendi(few[rows[0]], scale), (1, np.inf), (len(few),))


def _geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-6)))))


EFFECTIVE_CLASSES = Measure("classes", _effective_classes)
VENDI = Measure("Vendi score", _vendi)
SUPPORT = Measure("support", lambda both: both.per_observable(width, _geometric))
"""Geometric mean of `width` over the observables."""
