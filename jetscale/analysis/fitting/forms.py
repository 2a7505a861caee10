"""Other forms of the loss surface, compared with approach 3 by their error on held-out points.

- ``separate``: E + A/N^alpha + B/D^beta, approach 3.
- ``tied``: alpha = beta, the form of Gadre et al. (arXiv:2403.08540).
- ``coupled``: E + (A/N^(alpha/beta) + B/D)^beta, the form of Kaplan et al. (arXiv:2001.08361) with a floor:
  model and data limit each other instead of adding up.

Shapes: P points.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.models import coupled
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.solver import Bounds, free, solve
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter

Array = NDArray[np.float64]
Prediction = Callable[[Array, Array], Array]

FORMS = ("separate", "tied", "coupled")


def fit_form(form: str, log_N: Array, log_D: Array, log_L: Array, objective: Objective) -> Prediction:
    """Fit one form; returns ln N, ln D (P,) to ln L (P,).

    Raises
    ------
    Undetermined
        Too few points for the form.
    """
    fitter = Fitter(log_N, log_D, objective, tied=form == "tied")
    found, _ = fitter.point(log_L)
    if form == "coupled":
        return _fit_coupled(found.surfaces, log_N, log_D, log_L, objective)
    return lambda x, y: found.surfaces.log_loss(x, y)[0]


def _fit_coupled(
    start: Surfaces, log_N: Array, log_D: Array, log_L: Array, objective: Objective
) -> Prediction:
    """Minimise the same penalty, from the additive surface and from its terms doubled."""
    centre_N, centre_D = log_N.mean(), log_D.mean()
    first = start.theta[0].copy()
    first[0] -= first[3] * centre_N
    first[1] -= first[4] * centre_D
    starts = first + np.array([[0.0] * 5, [0.7, 0.7, 0, 0, 0]])
    bounds = Bounds(np.array([-50, -50, -50, 1e-3, 1e-3]), np.array([50, 50, 50, 4.0, 4.0]))
    ones = np.ones((1, len(log_L)))
    found = solve(
        starts, log_N - centre_N, log_D - centre_D, log_L[None], ones, objective, free, bounds, model=coupled
    )
    theta = found.theta[[found.objective.argmin()]]
    return lambda u, v: coupled(theta, u - centre_N, v - centre_D)[0][0]
