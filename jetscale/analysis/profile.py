"""Profile likelihood of approach 3: a, alpha, beta, L_inf, and N*, D* at the largest budget.

One quantity is held at a value, the other four parameters are fitted again, and the objective's rise is
compared with F(1, n - p). For Huber's penalty twice the rise is divided by
tau = [sum psi^2 / (n - p)] / mean psi' (the robust likelihood ratio); for squares that is the residual
variance. Points of one curve are correlated: there the rise is rescaled so that its curvature gives the
replicates' standard deviation (Chandler and Bate 2007).

Shapes: T values of the quantity, P points, F = 4 free parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.results import Quantity
from jetscale.analysis.solver import EXPONENT_BOUNDS, Constraint, Index
from jetscale.analysis.surface import Surfaces
from jetscale.analysis.surface_fit import Fitter

Array = NDArray[np.float64]

GRID = np.linspace(-6, 6, 49)  # in standard deviations
QUANTITIES = ("a", "alpha", "beta", "L_inf", "N_star", "D_star")


@dataclass(frozen=True)
class _Target:
    """A quantity t of the surface, in a scale on which its interval is taken.

    Attributes
    ----------
    of : centred surface parameters (R, 5) to t (R,).
    fix : values of t, one a replicate, to the constraint that holds them.
    reduce : columns of the centred parameters that stay free, as phi.
    transform : t to the quantity itself.
    low, high : where t ends.
    """

    of: Callable[[Array], Array]
    fix: Callable[[Array], Constraint]
    reduce: Callable[[Array], Array]
    transform: Callable[[float], float]
    low: float
    high: float


def profile(
    fitter: Fitter,
    log_L: Array,
    surface: Surfaces,
    log_reach: float,
    replicate_sd: dict[str, float] | None = None,
) -> dict[str, Quantity]:
    """Intervals of every quantity.

    Parameters
    ----------
    fitter, log_L, surface : points, their ln L, and the fit to them.
    log_reach : ln(C / k) of the budget of N* and D*.
    replicate_sd : for correlated points, the replicates' standard deviation of each quantity ("a", ...;
        of ln N* and ln D*); None for independent points.
    """
    theta = fitter.centred(surface)[0]
    found = {}
    for name, target in _targets(fitter, log_reach).items():
        wanted = None if replicate_sd is None else replicate_sd.get(name)
        if replicate_sd is None or wanted is not None:
            found[name] = _interval(fitter, log_L, theta, target, wanted)
    return found


def _interval(
    fitter: Fitter, log_L: Array, theta: Array, target: _Target, wanted_sd: float | None
) -> Quantity:
    from scipy.stats import t as student

    tau, dof = _scale(fitter, log_L, theta)
    best = float(target.of(theta[None])[0])
    step = _naive_sd(fitter, log_L, theta, target, tau)
    value = target.transform(best)
    if not np.isfinite(step) or step <= 0:
        return Quantity(value)
    base = _objective(fitter, log_L, theta)
    step = max(step, wanted_sd or 0.0)
    for stretch in (1.0, 4.0):
        t_T = np.clip(best + stretch * step * GRID, target.low, target.high)
        start_TF = np.repeat(target.reduce(theta[None]), len(t_T), axis=0)
        weight = np.ones((1, len(log_L)))
        rise_T = fitter.solve(start_TF, log_L[None], weight, target.fix(t_T)).objective - base
        root_T = np.sign(t_T - best) * np.sqrt(np.maximum(2 * rise_T / fitter.objective.scale, 0) / tau)
        near = (np.abs(root_T) > 0.05) & (np.abs(root_T) < 1.5)
        if not near.any():  # the grid is coarser than the naive error: use its innermost points
            near = (np.abs(root_T) > 0.05) & (np.abs(t_T - best) <= 1.5 * step)
        naive = float(np.median((t_T - best)[near] / root_T[near])) if near.any() else step
        if naive <= 0:  # the best value is at its bound, and the grid clipped onto it: no error to scale
            continue
        ratio = 1.0 if wanted_sd is None else wanted_sd / naive
        bound = float(student.ppf(0.975, dof)) * ratio
        low, high = _crossing(t_T, root_T, -bound), _crossing(t_T, root_T, bound)
        if low is not None and high is not None:
            ends = (target.transform(low), target.transform(high))
            slope = (target.transform(best + 1e-6) - target.transform(best - 1e-6)) / 2e-6
            return Quantity(value, naive * ratio * slope, ends)
    return Quantity(value)


def _crossing(t_T: Array, root_T: Array, level: float) -> float | None:
    """Where the signed root first passes `level` on the way out from 0."""
    out = np.flatnonzero(np.sign(level) * root_T >= abs(level))
    if not len(out):
        return None
    k = int(out[0] if level > 0 else out[-1])
    inner = k - 1 if level > 0 else k + 1
    if not 0 <= inner < len(t_T) or root_T[k] == root_T[inner]:
        return float(t_T[k])
    share = (level - root_T[inner]) / (root_T[k] - root_T[inner])
    return float(t_T[inner] + share * (t_T[k] - t_T[inner]))


def _residual(fitter: Fitter, log_L: Array, theta: Array) -> Array:
    fitted = fitter.uncentred(theta[None]).log_loss(fitter.log_N, fitter.log_D)[0]
    if fitter.objective.residual == "raw":
        return np.asarray(np.exp(fitted) - np.exp(log_L))
    return np.asarray(fitted - log_L)


def _objective(fitter: Fitter, log_L: Array, theta: Array) -> float:
    residual = _residual(fitter, log_L, theta)
    return float(fitter.objective.value(residual[None], np.ones((1, len(log_L))))[0])


def _scale(fitter: Fitter, log_L: Array, theta: Array) -> tuple[float, int]:
    """Tau of the likelihood ratio, and its degrees of freedom.

    Where delta is below the scatter, mean psi' is 2 delta f(0) with the density f of the residuals estimated
    by a Gaussian kernel. Such a fit passes through as many points as it has parameters: those are left out.
    """
    residual = _residual(fitter, log_L, theta)
    n, corner = len(residual), fitter.objective.corner
    dof = max(n - fitter.parameters, 1)
    if not np.isinf(corner):
        residual = residual[np.argsort(np.abs(residual))[n - dof :]]
    psi = np.clip(residual, -corner, corner)
    spread = float(np.median(np.abs(residual))) / 0.6745
    width = max(1.06 * spread * n**-0.2, 1e-300)
    if corner >= width:
        slope = float((np.abs(residual) <= corner).mean())
    else:
        density = np.exp(-0.5 * (residual / width) ** 2).mean() / (width * np.sqrt(2 * np.pi))
        slope = float(2 * corner * density)
    return float((psi**2).sum() / dof / max(slope, 1e-300)), dof


def _naive_sd(fitter: Fitter, log_L: Array, theta: Array, target: _Target, tau: float) -> float:
    """Standard deviation of t from the curvature at the minimum; only sets the grid."""
    at_best = fitter.solve(theta[None, : fitter.parameters], log_L[None], np.ones((1, len(log_L))))
    covariance = tau * fitter.objective.scale * np.linalg.pinv(at_best.curvature[0], hermitian=True)
    slopes = np.empty(len(covariance))
    for q in range(len(covariance)):
        moved = np.repeat(theta[None], 2, axis=0)
        moved[:, q] += (-1e-5, 1e-5)
        up_down = target.of(moved)
        slopes[q] = (up_down[1] - up_down[0]) / 2e-5
    return float(np.sqrt(max(float(slopes @ covariance @ slopes), 0.0)))


def _held(column: int, value: Callable[[Array], Array]) -> Callable[[Array], Constraint]:
    """Constraint that holds one column of theta at value(t)."""
    free = [q for q in range(5) if q != column]
    tangent = np.eye(5)[:, free]

    def fix(t_T: Array) -> Constraint:
        def constraint(phi: Array, index: Index) -> tuple[Array, Array]:
            theta = np.empty((len(phi), 5))
            theta[:, free] = phi
            theta[:, column] = value(t_T[index])
            return theta, np.broadcast_to(tangent, (len(phi), 5, 4))

        return constraint

    return fix


def _held_ratio(t_T: Array) -> Constraint:
    """Hold a = beta / (alpha + beta); phi = ln A, ln B, ln E, alpha + beta."""

    def constraint(phi: Array, index: Index) -> tuple[Array, Array]:
        a = t_T[index]
        theta = np.column_stack([phi[:, :3], (1 - a) * phi[:, 3], a * phi[:, 3]])
        tangent = np.zeros((len(phi), 5, 4))
        tangent[:, [0, 1, 2], [0, 1, 2]] = 1
        tangent[:, 3, 3], tangent[:, 4, 3] = 1 - a, a
        return theta, tangent

    return constraint


def _held_optimum(reach: float, of_D: bool) -> Callable[[Array], Constraint]:
    """Hold centred ln N* (or ln D*) where ln N + ln D = reach (centred); phi = ln B, ln E, alpha, beta.

    At the optimum ln alpha + ln A - alpha x = ln beta + ln B - beta y gives ln A.
    """

    def fix(t_T: Array) -> Constraint:
        def constraint(phi: Array, index: Index) -> tuple[Array, Array]:
            x = reach - t_T[index] if of_D else t_T[index]
            y = reach - x
            log_B, log_E, alpha, beta = np.maximum(phi, [-np.inf, -np.inf, 1e-4, 1e-4]).T
            log_A = log_B + np.log(beta / alpha) + alpha * x - beta * y
            tangent = np.zeros((len(phi), 5, 4))
            tangent[:, [1, 2, 3, 4], [0, 1, 2, 3]] = 1
            tangent[:, 0, 0], tangent[:, 0, 2], tangent[:, 0, 3] = 1, x - 1 / alpha, 1 / beta - y
            return np.column_stack([log_A, log_B, log_E, alpha, beta]), tangent

        return constraint

    return fix


def _targets(fitter: Fitter, log_reach: float) -> dict[str, _Target]:
    low, high = EXPONENT_BOUNDS
    centre = fitter.centre
    reach = log_reach - centre.sum()

    def optimum(theta: Array, axis: int) -> Array:
        return np.asarray(Surfaces.from_theta(theta).optimum(np.array([reach]), 0.0)[axis][:, 0])

    def without(column: int) -> Callable[[Array], Array]:
        return lambda theta: np.delete(theta, column, axis=1)

    def size_of(t: float) -> float:
        return float(np.exp(min(t + centre[0], 700.0)))

    def data_of(t: float) -> float:
        return float(np.exp(min(t + centre[1], 700.0)))

    def ratio(theta: Array) -> Array:
        return theta[:, 4] / (theta[:, 3] + theta[:, 4])

    def total(theta: Array) -> Array:
        return np.column_stack([theta[:, :3], theta[:, 3] + theta[:, 4]])

    return {
        "a": _Target(ratio, _held_ratio, total, float, 1e-3, 1 - 1e-3),
        "alpha": _Target(lambda th: th[:, 3], _held(3, lambda t: t), without(3), float, low, high),
        "beta": _Target(lambda th: th[:, 4], _held(4, lambda t: t), without(4), float, low, high),
        "L_inf": _Target(lambda th: np.exp(th[:, 2]), _held(2, np.log), without(2), float, 1e-9, np.inf),
        "N_star": _Target(
            lambda th: optimum(th, 0), _held_optimum(reach, False), without(0), size_of, -60, 60
        ),
        "D_star": _Target(
            lambda th: optimum(th, 1), _held_optimum(reach, True), without(0), data_of, -60, 60
        ),
    }
