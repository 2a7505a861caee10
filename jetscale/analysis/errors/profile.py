"""Profile likelihood of approach 3: a, alpha, beta, L_inf, and N*, D* at the largest budget.

One quantity is held at a value, the other four parameters are fitted again, and the objective's rise is
compared with F(1, n - p). For Huber's penalty twice the rise is divided by
tau = [sum psi^2 / (n - p)] / mean psi' (the robust likelihood ratio); for squares that is the residual
variance. An end of an interval is where the rise reaches its level, a root solved to the last digits; the
standard deviation is half the distance between the ends at level 1. Points of one curve are correlated: there
the rise is rescaled so that this distance gives the replicates' standard deviation (Chandler and Bate 2007).

The other four may have several minima, each lowest over a part of the axis. So every value is fitted from the
best fit and from where its neighbours on both sides ended, until none comes lower.

The quantities, of all subsets, go side by side: each asks for minima, and those that all of them ask for are
one solve, since a small solve takes as long as its calls of numpy do, whatever they compute.

Shapes: T values of the quantity, S starts, P points, F = 4 free parameters.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.constraints import Bounds, Constraint, Index, Target
from jetscale.analysis.fitting.numbers import Quantity, student_reach
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter, SideBySide

Array = NDArray[np.float64]
Ends = tuple[float | None, float | None]
Request = tuple[Array, Array]  # values t (T,), and starts (T, S, F) of the free parameters at each
Minima = tuple[Array, Array]  # lowest objective (T,), and the free parameters (T, F) there

SCAN = np.array([0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24])  # standard deviations
PRECISION = 1e-10  # of an end: as a share of its distance to the best value
LOWER = 1e-6  # fall of the likelihood ratio that counts as another, lower minimum


@dataclass(frozen=True)
class Wanted:
    """A fit whose quantities are to be profiled.

    Attributes
    ----------
    fitter, log_L, surface : points, their ln L (P,), and the fit to them.
    log_reach : ln(C / k) of the budget of N* and D*.
    replicate_sd : for correlated points, the replicates' standard deviation of each quantity ("a", ...;
        of ln N* and ln D*); None for independent points.
    """

    fitter: Fitter
    log_L: Array
    surface: Surfaces
    log_reach: float
    replicate_sd: dict[str, float] | None = None


def profile(
    fitter: Fitter,
    log_L: Array,
    surface: Surfaces,
    log_reach: float,
    replicate_sd: dict[str, float] | None = None,
    levels: Sequence[float] = (),
) -> dict[str, Quantity]:
    """Intervals of every quantity of one fit.

    Parameters
    ----------
    fitter, log_L, surface, log_reach, replicate_sd : see `Wanted`.
    levels : of the intervals besides that of 95%, in %.
    """
    return profiles([Wanted(fitter, log_L, surface, log_reach, replicate_sd)], levels)[0]


def profiles(wanted: Sequence[Wanted], levels: Sequence[float] = ()) -> list[dict[str, Quantity]]:
    """Intervals of every quantity of several fits of one form and objective, which go side by side.

    Parameters
    ----------
    wanted : the fits.
    levels : of the intervals besides that of 95%, in %.
    """
    if not wanted:
        return []
    points = SideBySide.of([(one.fitter, one.log_L) for one in wanted])
    named = [_profiles_of(one, points, number) for number, one in enumerate(wanted)]
    every = [one for of_fit in named for one in of_fit.values()]
    quantity = dict(zip(every, _intervals(every, levels), strict=True))
    found = []
    for one, of_fit in zip(wanted, named, strict=True):
        of_names = {name: quantity[profiled] for name, profiled in of_fit.items()}
        if "N_star" in of_names:
            log_N, middle = of_names["N_star"], float(one.fitter.centre[0])
            of_names["N_star"] = _of_logarithm(log_N, middle, 1)
            of_names["D_star"] = _of_logarithm(log_N, one.log_reach - middle, -1)
        found.append(of_names)
    return found


def _profiles_of(one: Wanted, points: SideBySide, number: int) -> dict[str, _Profile]:
    """Profiles of one fit, the `number`-th of `points`, by the name of the quantity."""
    fitter, log_L = one.fitter, one.log_L
    theta = fitter.centred(one.surface)[0]
    tau, dof = _scale(fitter, log_L, theta)
    bounds = fitter.form.bounds(log_L[None])
    found = {}
    for name, target in fitter.form.targets(bounds, one.log_reach - float(fitter.centre.sum())).items():
        sd = None if one.replicate_sd is None else one.replicate_sd.get(name)
        if one.replicate_sd is None or sd is not None:
            found[name] = _Profile(fitter, log_L, theta, target, tau, dof, sd, points, number)
    return found


@dataclass(frozen=True)
class _Fitted:
    """A value of the quantity, the signed root there, and the free parameters phi (F,)."""

    t: float
    root: float
    phi: Array


@dataclass(frozen=True, eq=False)
class _Profile:
    """The objective as a function of one quantity, all else fitted again.

    Attributes
    ----------
    fitter, log_L, theta : the points, and the centred parameters that fit them best.
    target : the quantity.
    tau, dof : of the likelihood ratio, and its degrees of freedom.
    wanted_sd : the replicates' standard deviation, for correlated points; None for independent ones.
    points, number : the points of all fits that are profiled together, and which of them are these.
    """

    fitter: Fitter
    log_L: Array
    theta: Array
    target: Target
    tau: float
    dof: int
    wanted_sd: float | None
    points: SideBySide
    number: int

    @cached_property
    def best(self) -> float:
        """The quantity at the best fit."""
        return float(self.target.of(self.theta[None])[0])

    @cached_property
    def base(self) -> float:
        """The objective there."""
        return _objective(self.fitter, self.log_L, self.theta)

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

    def scan(self, step: float) -> Generator[Request, Minima, list[_Fitted] | None]:
        """Profile far out to both sides; None where some minimum goes on falling, round after round."""
        t_T = self.best + step * np.concatenate([-SCAN[::-1], [0.0], SCAN])
        t_T = np.unique(np.clip(t_T, self.target.low, self.target.high))
        objective_T, phi_TF = yield t_T, np.broadcast_to(self.phi, (len(t_T), 1, len(self.phi)))
        stale = np.arange(len(t_T))  # those with a neighbour that has come lower since
        for _ in t_T:  # a minimum that is found at one end reaches the other in so many rounds
            if not len(stale):
                return list(map(_Fitted, t_T.tolist(), self.root(t_T, objective_T).tolist(), phi_TF))
            sides = np.clip([stale - 1, stale + 1], 0, len(t_T) - 1)
            objective_K, phi_KF = yield t_T[stale], np.moveaxis(phi_TF[sides], 0, 1)
            lower = objective_K < objective_T[stale] - LOWER * self.unit
            fallen = stale[lower]
            objective_T[fallen], phi_TF[fallen] = objective_K[lower], phi_KF[lower]
            stale = np.unique(np.clip([fallen - 1, fallen + 1], 0, len(t_T) - 1))
        return None

    def bracket(self, scan: list[_Fitted], sign: int, level: float) -> list[_Fitted]:
        """Neighbours of the scan between which the root passes `level` first; empty where it never does."""
        inner = _Fitted(self.best, 0.0, self.phi)
        for outer in scan[::sign]:
            if sign * (outer.t - self.best) > 0:
                if sign * outer.root >= level:
                    return [inner, outer]
                inner = outer
        return []

    def curvature_sd(self, curvature: Array) -> float:
        """Standard deviation of t from the curvature (F, F) at the best fit: the unit of the scan."""
        fitter, phi = self.fitter, self.fitter.form.reduced(self.theta[None])
        covariance = 2 * self.unit * np.linalg.pinv(curvature, hermitian=True)
        F = phi.shape[1]
        moved = phi + 1e-5 * np.concatenate([np.eye(F), -np.eye(F)])
        theta, _, _ = fitter.form.constraint(moved, np.arange(2 * F))
        up, down = self.target.of(theta).reshape(2, F)
        slope = (up - down) / 2e-5
        return float(np.sqrt(max(float(slope @ covariance @ slope), 0.0)))


def _intervals(profiles: list[_Profile], levels: Sequence[float]) -> list[Quantity]:
    """Value, standard deviation and intervals of every quantity."""
    # 1. Lengths to scan by: from the curvature, or the replicates' where points are correlated.
    curvature = {}
    for one in profiles:
        if one.number not in curvature:
            at_best = one.fitter.form.reduced(one.theta[None])
            ones = np.ones((1, len(one.log_L)))
            curvature[one.number] = one.fitter.solve(at_best, one.log_L[None], ones).curvature[0]
    scans: dict[_Profile, Generator[Request, Minima, list[_Fitted] | None]] = {}
    for one in profiles:
        step = one.curvature_sd(curvature[one.number])
        if one.base > one.fitter.rounding(one.log_L) and np.isfinite(step) and step > 0:  # else no scatter
            scans[one] = one.scan(max(step, one.wanted_sd or 0.0))
    # 2. Profile far out, so that each end lies between two values that were fitted; where some minimum goes
    # on falling there is none to count a rise from.
    scanned = {one: found for one, found in _in_step(scans).items() if found is not None}
    # 3. Ends at level 1 give the standard deviation of independent points, `naive`; correlated points have
    # the replicates' one, so their levels are stretched by the ratio of the two.
    naive: dict[_Profile, float] = {}
    for one, (ends,) in _ends(scanned, {one: [1.0] for one in scanned}).items():
        reached = [abs(end - one.best) for end in ends if end is not None]
        if reached:
            naive[one] = float(np.mean(reached))
    # 4. Ends at the level of every interval.
    asked = sorted({95.0, *levels})
    ratio = {one: 1.0 if one.wanted_sd is None else one.wanted_sd / sd for one, sd in naive.items()}
    wide = {one: [factor * student_reach(level, one.dof) for level in asked] for one, factor in ratio.items()}
    found = {one: Quantity(one.best) for one in profiles}
    for one, ends_of_levels in _ends({one: scanned[one] for one in naive}, wide).items():
        whole = {
            level: (low, high)
            for level, (low, high) in zip(asked, ends_of_levels, strict=True)
            if low is not None and high is not None
        }
        if 95.0 in whole:
            further = [level for level in levels if level in whole]
            found[one] = Quantity.of_levels(one.best, naive[one] * ratio[one], whole.__getitem__, further)
    return list(found.values())


def _in_step(
    scans: dict[_Profile, Generator[Request, Minima, list[_Fitted] | None]],
) -> dict[_Profile, list[_Fitted] | None]:
    """Carry on all scans, whose requests of one round are answered together."""
    found: dict[_Profile, list[_Fitted] | None] = {}
    requests = {one: next(scan) for one, scan in scans.items()}
    while requests:
        answers = dict(zip(requests, _minima(list(requests.items())), strict=True))
        requests = {}
        for one, answer in answers.items():
            try:
                requests[one] = scans[one].send(answer)
            except StopIteration as end:
                found[one] = end.value
    return found


def _ends(
    scanned: dict[_Profile, list[_Fitted]], levels: dict[_Profile, list[float]]
) -> dict[_Profile, list[Ends]]:
    """Where the signed roots first pass their levels on the way out from the best values, to both sides.

    The scan brackets each end; then it is a root, all are solved together, and every trial starts from what
    was fitted nearest on both sides, and from between them.
    """
    from scipy.optimize import elementwise

    found: dict[_Profile, list[list[float | None]]] = {
        one: [[None, None] for _ in of] for one, of in levels.items()
    }
    places = [
        (one, number, side, level, bracket)
        for one, of in levels.items()
        for number, level in enumerate(of)
        for side, sign in enumerate((-1, 1))
        if (bracket := one.bracket(scanned[one], sign, level))
    ]
    if places:
        level_K = np.array([place[3] for place in places])
        first_K, last_K = np.array([sorted(end.t for end in place[4]) for place in places]).T

        def excess(u_K: Array, number_K: Array) -> Array:
            k = number_K.astype(int)
            inside = np.clip(first_K[k] + u_K * (last_K - first_K)[k], first_K[k], last_K[k])
            t_K = np.where(u_K == 1, last_K[k], inside)
            fitted = [
                next((one for one in places[at][4] if one.t == t), None) for at, t in zip(k, t_K, strict=True)
            ]
            new = [row for row, one in enumerate(fitted) if one is None]
            requests = [
                (places[k[row]][0], (t_K[[row]], _starts(places[k[row]][4], t_K[row])[None])) for row in new
            ]
            answers = _minima(requests) if requests else []
            for row, (one, (t, _)), (objective, phi) in zip(new, requests, answers, strict=True):
                fitted[row] = _Fitted(float(t[0]), float(one.root(t, objective)[0]), phi[0])
                places[k[row]][4].append(fitted[row])
            root_K = np.array([one.root for one in fitted if one is not None])
            return np.asarray(np.abs(root_K) - level_K[k])

        solved = elementwise.find_root(
            excess,
            (np.zeros(len(places)), np.ones(len(places))),
            args=(np.arange(len(places), dtype=float),),
            tolerances={"xatol": PRECISION, "xrtol": 0.0, "fatol": PRECISION * float(level_K.min())},
            maxiter=100,
        )
        for (one, number, side, _, _), end in zip(
            places, first_K + solved.x * (last_K - first_K), strict=True
        ):
            found[one][number][side] = float(end)
    return {one: [(low, high) for low, high in of] for one, of in found.items()}


def _minima(requests: Sequence[tuple[_Profile, Request]]) -> list[Minima]:
    """Lowest objective at each t over its starts, and the free parameters there, of all requests at once."""
    sizes = [start.shape[:2] for _, (_, start) in requests]
    number = np.repeat(np.arange(len(requests)), [T * S for T, S in sizes])
    ends = [(one.target.bounds.low, one.target.bounds.high) for one, _ in requests]
    low_RF, high_RF = (np.stack([each[side] for each in ends])[number] for side in (0, 1))
    solution = requests[0][0].points.solve(
        np.array([one.number for one, _ in requests])[number],
        np.concatenate([start.reshape(-1, start.shape[2]) for _, (_, start) in requests]),
        _held([(one, np.repeat(t, start.shape[1])) for one, (t, start) in requests]),
        Bounds(low_RF, high_RF),
    )
    found, begin = [], 0
    for T, S in sizes:
        rows = slice(begin, begin + T * S)
        objective_TS = solution.objective[rows].reshape(T, S)
        lowest, row = objective_TS.argmin(axis=1), np.arange(T)
        found.append((objective_TS[row, lowest], solution.phi[rows].reshape(T, S, -1)[row, lowest]))
        begin += T * S
    return found


def _held(parts: Sequence[tuple[_Profile, Array]]) -> Constraint:
    """One constraint for rows that hold different quantities; `parts`: each with the values of its rows."""
    kinds = list(dict.fromkeys(one.target.fix for one, _ in parts))  # alike in all fits, mostly
    kind_R = np.concatenate([np.full(len(t), kinds.index(one.target.fix)) for one, t in parts])
    t_R = np.concatenate([t for _, t in parts])
    fixed, Q = [fix(t_R) for fix in kinds], len(parts[0][0].theta)

    def constraint(phi_RF: Array, index: Index) -> tuple[Array, Array, Array | None]:
        R, F = phi_RF.shape
        theta, tangent, bend = np.empty((R, Q)), np.empty((R, Q, F)), None
        of_row = kind_R[index]
        for number, fix in enumerate(fixed):
            mine = np.flatnonzero(of_row == number)
            if len(mine):
                theta[mine], tangent[mine], bent = fix(phi_RF[mine], index[mine])
                if bent is not None:
                    bend = np.zeros((R, Q, F, F)) if bend is None else bend
                    bend[mine] = bent
        return theta, tangent, bend

    return constraint


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
