"""Other forms of the loss surface, compared with approach 3 by their error on held-out points.

- ``separate``: E + A/N^alpha + B/D^beta, approach 3.
- ``tied``: alpha = beta, the form of Gadre et al. (arXiv:2403.08540).
- ``coupled``: E + (A/N^(alpha/beta) + B/D)^beta, the form of Kaplan et al. (arXiv:2001.08361) with a floor:
  model and data limit each other instead of adding up.

Shapes: P points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.objective import Objective
from jetscale.analysis.surface import Surfaces
from jetscale.analysis.surface_fit import Fitter

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


def _coupled(phi: Array, x: Array, y: Array) -> Array:
    """Logarithm of the coupled form at phi = ln A^beta, ln B^beta, ln E, alpha, beta."""
    log_A, log_B, log_E, alpha, beta = phi
    inner = np.logaddexp((log_A - alpha * x) / beta, (log_B - beta * y) / beta)
    return np.asarray(np.logaddexp(beta * inner, log_E))


def _fit_coupled(
    start: Surfaces, log_N: Array, log_D: Array, log_L: Array, objective: Objective
) -> Prediction:
    """Minimise the same penalty, from the additive surface and from its terms doubled."""
    from scipy.optimize import least_squares

    centre_N, centre_D = log_N.mean(), log_D.mean()
    x, y = log_N - centre_N, log_D - centre_D
    first = start.theta[0].copy()
    first[0] -= first[3] * centre_N
    first[1] -= first[4] * centre_D

    def residual(phi: Array) -> Array:
        log_fit = _coupled(phi, x, y)
        return log_fit - log_L if objective.residual == "log" else np.exp(log_fit) - np.exp(log_L)

    # scipy's huber with f_scale = delta is the sum of Huber's penalty; squares need no scale
    loss: Literal["linear", "huber"] = "linear" if objective.penalty == "squared" else "huber"
    scale = 1.0 if loss == "linear" else objective.corner
    low = np.array([-50, -50, -50, 1e-3, 1e-3])
    high = np.array([50, 50, 50, 4.0, 4.0])
    best = None
    for shift in (0.0, 0.7):
        begin = np.clip(first + np.array([shift, shift, 0, 0, 0]), low + 1e-6, high - 1e-6)
        found = least_squares(
            residual, begin, bounds=(low, high), loss=loss, f_scale=scale, x_scale="jac", max_nfev=100
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    phi = best.x
    return lambda u, v: _coupled(phi, u - centre_N, v - centre_D)
