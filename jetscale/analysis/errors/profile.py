"""Profile likelihood of approach 3: a, alpha, beta, L_inf, and N*, D* at the largest budget.

One quantity is held at a value, the other four parameters are fitted again, and the objective's rise is
compared with F(1, n - p). For Huber's penalty twice the rise is divided by
tau = [sum psi^2 / (n - p)] / mean psi' (the robust likelihood ratio); for squares that is the residual
variance. An end of an interval is where the rise reaches its level, a root solved to the last digits; the
standard deviation is half the distance between the ends at level 1. Points of one curve are correlated: there
the rise is rescaled so that this distance gives the replicates' standard deviation (Chandler and Bate 2007).

The other four may have several minima, each lowest over a part of the axis. So every value is fitted from the
best fit and from where its neighbours on both sides ended, until none comes lower.

Shapes: T values of the quantity, S starts, P points, F = 4 free parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.constraints import Target
from jetscale.analysis.fitting.numbers import Quantity, student_reach
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter

Array = NDArray[np.float64]
Ends = tuple[float | None, float | None]

SCAN = np.array([0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24])  # standard deviations
PRECISION = 1e-10  # of an end: as a share of its distance to the best value
LOWER = 1e-6  # fall of the likelihood ratio that counts as another, lower minimum


def profile(
    fitter: Fitter,
    log_L: Array,
    surface: Surfaces,
    log_reach: float,
    replicate_sd: dict[str, float] | None = None,
    levels: Sequence[float] = (),
) -> dict[str, Quantity]:
    """Intervals of every quantity.

    Parameters
    ----------
    fitter, log_L, surface : points, their ln L, and the fit to them.
    log_reach : ln(C / k) of the budget of N* and D*.
    replicate_sd : for correlated points, the replicates' standard deviation of each quantity ("a", ...;
        of ln N* and ln D*); None for independent points.
    levels : of the intervals besides that of 95%, in %.
    """
    theta = fitter.centred(surface)[0]
    tau, dof = _scale(fitter, log_L, theta)
    bounds = fitter.form.bounds(log_L[None])
    found = {}
    for name, target in fitter.form.targets(bounds, log_reach - float(fitter.centre.sum())).items():
        wanted = None if replicate_sd is None else replicate_sd.get(name)
        if replicate_sd is None or wanted is not None:
            found[name] = _Profile(fitter, log_L, theta, target, tau).interval(dof, wanted, levels)
    if "N_star" in found:
        log_N = found["N_star"]
        found["N_star"] = _of_logarithm(log_N, float(fitter.centre[0]), 1)
        found["D_star"] = _of_logarithm(log_N, log_reach - float(fitter.centre[0]), -1)
    return found


@dataclass(frozen=True)
class _Fitted:
    """A value of the quantity, the signed root there, and the free parameters phi (F,)."""

    t: float
    root: float
    phi: Array


@dataclass(frozen=True)
class _Profile:
    """The objective as a function of one quantity, all else fitted again.

    Attributes
    ----------
    fitter, log_L, theta : the points, and the centred parameters that fit them best.
    target : the quantity.
    tau : of the likelihood ratio.
    """

    fitter: Fitter
    log_L: Array
    theta: Array
    target: Target
    tau: float

    @cached_property
    def best(self) -> float:
        """The quantity at the best fit."""
        return float(self.target.of(self.theta[None])[0])

    @cached_property
    def base(self) -> float:
        """The objective there."""
        return _objective(self.fitter, self.log_L, self.theta)

    def interval(self, dof: int, wanted_sd: float | None, levels: Sequence[float]) -> Quantity:
        """Value, standard deviation and intervals of t."""
        # 1. A length to scan by: from the curvature, or the replicates' where points are correlated.
        step = self.curvature_sd()
        if self.base <= self.fitter.rounding(self.log_L):  # no scatter: nothing to compare a rise with
            return Quantity(self.best)
        if not np.isfinite(step) or step <= 0:
            return Quantity(self.best)
        # 2. Profile far out, so that each end lies between two values that were fitted.
        scan = self.scan(max(step, wanted_sd or 0.0))
        if scan is None:  # no minimum to count a rise from
            return Quantity(self.best)
        # 3. Ends at level 1 give the standard deviation of independent points, `naive`; correlated points
        # have the replicates' one, so their levels are stretched by the ratio of the two.
        reached = [abs(end - self.best) for end in self.ends(scan, 1.0) if end is not None]
        if not reached:
            return Quantity(self.best)
        naive = float(np.mean(reached))
        ratio = 1.0 if wanted_sd is None else wanted_sd / naive
        # 4. Ends at the level of every interval.
        found = {level: self.ends(scan, ratio * student_reach(level, dof)) for level in {95.0, *levels}}
        whole = {
            level: (low, high) for level, (low, high) in found.items() if low is not None and high is not None
        }
        if 95.0 not in whole:
            return Quantity(self.best)
        return Quantity.of_levels(
            self.best, naive * ratio, whole.__getitem__, [one for one in levels if one in whole]
        )

    @cached_property
    def phi(self) -> Array:
        """The free parameters at the best fit, (F,)."""
        return np.asarray(self.target.reduce(self.theta[None])[0])

    @cached_property
    def unit(self) -> float:
        """Rise of the objective at a signed root of 1."""
        return 0.5 * self.fitter.objective.scale * self.tau

    def root(self, t_T: Array, objective_T: Array) -> Array:
        """Signed root of the likelihood ratio, in standard deviations."""
        size_T = np.sqrt(np.maximum(objective_T - self.base, 0) / self.unit)
        return np.asarray(np.sign(t_T - self.best) * size_T)

    def scan(self, step: float) -> list[_Fitted] | None:
        """Profile far out to both sides; None where some minimum goes on falling, round after round."""
        t_T = self.best + step * np.concatenate([-SCAN[::-1], [0.0], SCAN])
        t_T = np.unique(np.clip(t_T, self.target.low, self.target.high))
        objective_T, phi_TF = self.minima(t_T, np.broadcast_to(self.phi, (len(t_T), 1, len(self.phi))))
        stale = np.arange(len(t_T))  # those with a neighbour that has come lower since
        for _ in t_T:  # a minimum that is found at one end reaches the other in so many rounds
            if not len(stale):
                return list(map(_Fitted, t_T.tolist(), self.root(t_T, objective_T).tolist(), phi_TF))
            sides = np.clip([stale - 1, stale + 1], 0, len(t_T) - 1)
            objective_K, phi_KF = self.minima(t_T[stale], np.moveaxis(phi_TF[sides], 0, 1))
            lower = objective_K < objective_T[stale] - LOWER * self.unit
            fallen = stale[lower]
            objective_T[fallen], phi_TF[fallen] = objective_K[lower], phi_KF[lower]
            stale = np.unique(np.clip([fallen - 1, fallen + 1], 0, len(t_T) - 1))
        return None

    def ends(self, scan: list[_Fitted], level: float) -> Ends:
        """Where the signed root first passes `level` on the way out from the best value, to both sides.

        The scan brackets it; then it is a root, and every trial starts from what was fitted nearest on both
        sides, and from between them.
        """
        from scipy.optimize import elementwise

        brackets = [self.bracket(scan, sign, level) for sign in (-1, 1)]
        ends: list[float | None] = [None, None]
        sides = np.array([side for side in (0, 1) if brackets[side]])
        if not len(sides):
            return None, None

        def excess(t_K: Array, *sides: Array) -> Array:
            (side_K,) = sides
            starts = np.stack([_starts(brackets[int(k)], t) for k, t in zip(side_K, t_K, strict=True)])
            objective_K, phi_KF = self.minima(t_K, starts)
            root_K = self.root(t_K, objective_K)
            for k, fitted in zip(side_K, map(_Fitted, t_K, root_K, phi_KF), strict=True):
                brackets[int(k)].append(fitted)
            return np.abs(root_K) - level

        first, last = np.array([sorted(one.t for one in brackets[side]) for side in sides]).T
        width = float((last - first).min())
        found = elementwise.find_root(
            excess,
            (first, last),
            args=(sides,),
            tolerances={"xatol": PRECISION * width, "xrtol": 0.0, "fatol": PRECISION * level},
            maxiter=100,
        )
        for side, end in zip(sides, found.x, strict=True):
            ends[side] = float(end)
        return ends[0], ends[1]

    def bracket(self, scan: list[_Fitted], sign: int, level: float) -> list[_Fitted]:
        """Neighbours of the scan between which the root passes `level` first; empty where it never does."""
        inner = _Fitted(self.best, 0.0, self.phi)
        for outer in scan[::sign]:
            if sign * (outer.t - self.best) > 0:
                if sign * outer.root >= level:
                    return [inner, outer]
                inner = outer
        return []

    def minima(self, t_T: Array, start_TSF: Array) -> tuple[Array, Array]:
        """Lowest objective (T,) at each t over its starts, and phi (T, F) there."""
        T, S, F = start_TSF.shape
        solution = self.fitter.solve(
            start_TSF.reshape(T * S, F),
            self.log_L[None],
            np.ones((1, len(self.log_L))),
            self.target.fix(np.repeat(t_T, S)),
            self.target.bounds,
        )
        objective_TS = solution.objective.reshape(T, S)
        lowest = objective_TS.argmin(axis=1)
        row = np.arange(T)
        return objective_TS[row, lowest], solution.phi.reshape(T, S, F)[row, lowest]

    def curvature_sd(self) -> float:
        """Standard deviation of t from the curvature at the best fit: the unit of the scan, no more."""
        fitter, phi = self.fitter, self.fitter.form.reduced(self.theta[None])
        at_best = fitter.solve(phi, self.log_L[None], np.ones((1, len(self.log_L))))
        covariance = 2 * self.unit * np.linalg.pinv(at_best.curvature[0], hermitian=True)
        F = phi.shape[1]
        moved = phi + 1e-5 * np.concatenate([np.eye(F), -np.eye(F)])
        theta, _, _ = fitter.form.constraint(moved, np.arange(2 * F))
        up, down = self.target.of(theta).reshape(2, F)
        slope = (up - down) / 2e-5
        return float(np.sqrt(max(float(slope @ covariance @ slope), 0.0)))


def _starts(fitted: list[_Fitted], t: float) -> Array:
    """Free parameters (S, F) fitted nearest to t on both sides, and between them."""
    below = max((one for one in fitted if one.t <= t), key=lambda one: one.t)
    above = min((one for one in fitted if one.t >= t), key=lambda one: one.t)
    part = (t - below.t) / (above.t - below.t) if above.t > below.t else 0.5
    return np.stack([below.phi + part * (above.phi - below.phi), below.phi, above.phi])


def _of_logarithm(log: Quantity, shift: float, sign: int) -> Quantity:
    """exp(shift + sign t) for an interval of t."""
    assert log.value is not None
    value = float(np.exp(min(shift + sign * log.value, 700.0)))
    if log.sd is None or log.ci95 is None:
        return Quantity(value)

    def ends(level: float) -> tuple[float, float]:
        low, high = sorted(float(np.exp(min(shift + sign * end, 700.0))) for end in log.interval(level) or ())
        return low, high

    return Quantity.of_levels(value, log.sd * value, ends, [level for level, _, _ in log.other_levels])


def _residual(fitter: Fitter, log_L: Array, theta: Array) -> Array:
    fitted = fitter.uncentred(theta[None]).log_loss(fitter.log_N, fitter.log_D)[0]
    if fitter.objective.residual == "raw":
        return np.asarray(np.exp(fitted) - np.exp(log_L))
    return np.asarray(fitted - log_L)


def _objective(fitter: Fitter, log_L: Array, theta: Array) -> float:
    residual = _residual(fitter, log_L, theta)
    return float(fitter.objective.value(residual[None], fitter.weights[None])[0])


def _scale(fitter: Fitter, log_L: Array, theta: Array) -> tuple[float, int]:
    """Tau of the likelihood ratio, and its degrees of freedom.

    Where delta is below the scatter, mean psi' is 2 delta f(0) with the density f of the residuals estimated
    by a Gaussian kernel. Such a fit passes through as many points as it has parameters: those are left out.
    """
    residual, weight = _residual(fitter, log_L, theta), fitter.weights
    n, corner = len(residual), fitter.objective.corner
    dof = max(n - fitter.parameters, 1)
    if not np.isinf(corner):
        kept = np.argsort(np.abs(residual))[n - dof :]
        residual, weight = residual[kept], weight[kept]
    psi = np.clip(residual, -corner, corner)
    spread = float(np.median(np.abs(residual))) / 0.6745
    width = max(1.06 * spread * n**-0.2, 1e-300)
    share = None if fitter.weight is None else weight
    if corner >= width:
        slope = float(np.average(np.abs(residual) <= corner, weights=share))
    else:
        density = np.average(np.exp(-0.5 * (residual / width) ** 2), weights=share)
        slope = float(2 * corner * density / (width * np.sqrt(2 * np.pi)))
    return float((weight * psi**2).sum() / dof / max(slope, 1e-300)), dof
