"""Approach 2: at fixed C a parabola of ln L in ln N (and in ln D); its vertices give N*(C) and D*(C).

Slices come from runs at one nominal C where the table has them, else from every size's curve interpolated in
log-log at C, never beyond its ends.

Shapes: R replicates, P points, K slices, M members of a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import TIE, distinct
from jetscale.analysis.settings import Approach2Settings
from jetscale.common.usage import UsageError

Array = NDArray[np.float64]
Index = NDArray[np.intp]

APART = 0.01  # in ln N or ln D: less is one size, of which a parabola needs several
EDGE = "the optimum is at the edge of the grid"
MOST_NUMBERS = 4_000_000  # replicates x slices x members held at a time


@dataclass(frozen=True)
class Slice:
    """One budget: member m is the point between `low[m]` and `high[m]`, at `fraction[m]` of the way."""

    log_C: float
    low: Index
    high: Index
    fraction: Array

    def at(self, value_RP: Array) -> Array:
        """Interpolate a quantity of the points, (..., P) to (..., M).

        Parameters
        ----------
        value_RP : (..., P).
        """
        return np.asarray(
            (1 - self.fraction) * value_RP[..., self.low] + self.fraction * value_RP[..., self.high]
        )


@dataclass(frozen=True)
class Vertex:
    """Minimum of one slice's polynomial.

    Attributes
    ----------
    position : ln N* (or ln D*), NaN where there is none inside the sampled range.
    problem : why the slice is not used; empty when it is.
    flag : what is doubtful about a used slice.
    """

    position: float
    problem: str
    flag: str


@dataclass(frozen=True)
class Profiles:
    """The slices of one table."""

    slices: list[Slice]
    interpolated: bool
    reason: str = ""  # why there is no slice
    notes: list[str] = field(default_factory=list)


def find_profiles(
    log_N: Array, log_C: Array, copy: Index, settings: Approach2Settings, is_curve: bool
) -> Profiles:
    """Slices at nominal budgets, or through the curves of each size.

    Parameters
    ----------
    log_N, log_C : (P,); ln N the same for all points of one size.
    copy : (P,) points of one size and one copy (a run, a seed) make a curve.
    is_curve : whether runs have several evaluations each.
    """
    if not is_curve:
        nominal = _nominal(log_N, log_C, settings)
        if len(nominal) >= 3:
            return Profiles(nominal, interpolated=False)
    curves = _curves(log_N, log_C, copy)
    of_curve = np.array([log_N[index[0]] for index in curves])
    sizes, drawn = distinct(log_N, APART), distinct(of_curve, APART)
    if drawn < settings.min_points:
        several = f"{sizes} sizes, {drawn} of them with several budgets"
        return Profiles([], True, f"{several}; a parabola needs {settings.min_points}")
    ends = np.array([[log_C[index[0]], log_C[index[-1]]] for index in curves])
    covered = np.sort(ends.ravel())
    reaches = (ends[:, 0] <= covered[:, None] + TIE) & (ends[:, 1] >= covered[:, None] - TIE)
    size = _sizes(of_curve[None])[0]
    count = np.stack([reaches[:, size == one].any(axis=1) for one in range(drawn)]).sum(axis=0)
    wide = covered[count >= settings.min_points]
    if not len(wide) or wide[-1] <= wide[0] + TIE:
        return Profiles([], True, f"no budget is reached by {settings.min_points} sizes")
    inset = 1e-9 * (wide[-1] - wide[0])
    budgets = np.linspace(wide[0] + inset, wide[-1] - inset, settings.slices)
    return Profiles([_through(curves, log_C, float(budget)) for budget in budgets], interpolated=True)


def _curves(log_N: Array, log_C: Array, copy: Index) -> list[Index]:
    """Points of each size and copy in order of C; none of a single point."""
    found = []
    order = np.lexsort((log_C, copy, log_N))
    ends = np.flatnonzero((np.diff(log_N[order]) != 0) | (np.diff(copy[order]) != 0)) + 1
    for index in np.split(order, ends):
        index = index[np.r_[True, np.diff(log_C[index]) > 1e-9]]
        if len(index) >= 2:
            found.append(index)
    return found


def copies(log_N: Array, log_C: Array) -> Index:
    """Number of each final loss among those of one N and C, in their order; (P,).

    Parameters
    ----------
    log_N, log_C : (P,); ln N the same for all points of one size.
    """
    order = np.lexsort((log_C, log_N))
    fresh = np.r_[True, (np.diff(log_N[order]) != 0) | (np.diff(log_C[order]) > 1e-9)]
    begin = np.flatnonzero(fresh)[np.cumsum(fresh) - 1]
    number = np.empty(len(order), dtype=np.intp)
    number[order] = np.arange(len(order)) - begin
    return number


def _nominal(log_N: Array, log_C: Array, settings: Approach2Settings) -> list[Slice]:
    """Groups of points whose C agree within the tolerance and that hold enough sizes."""
    order = np.argsort(log_C, kind="stable")
    groups, start = [], 0
    for i in range(1, len(order) + 1):
        if i == len(order) or log_C[order[i]] - log_C[order[i - 1]] > settings.tolerance / 2:
            groups.append(order[start:i])
            start = i
    found = []
    for group in groups:
        if (
            np.ptp(log_C[group]) <= settings.tolerance
            and distinct(log_N[group], APART) >= settings.min_points
        ):
            members = np.sort(group)
            found.append(Slice(float(log_C[group].mean()), members, members, np.zeros(len(group))))
    return found


def _through(curves: list[Index], log_C: Array, budget: float) -> Slice:
    low, high, fraction = [], [], []
    for index in curves:
        c = log_C[index]
        if c[0] <= budget <= c[-1]:
            right = int(np.clip(np.searchsorted(c, budget), 1, len(c) - 1))
            low.append(index[right - 1])
            high.append(index[right])
            fraction.append((budget - c[right - 1]) / (c[right] - c[right - 1]))
    return Slice(budget, np.array(low, dtype=np.intp), np.array(high, dtype=np.intp), np.array(fraction))


@dataclass(frozen=True)
class StackedSlices:
    """Several slices in one array: where one has fewer members than another, its first one again, absent.

    Attributes
    ----------
    low, high, fraction : (K, M), as in `Slice`.
    present : (K, M) whether there is such a member.
    """

    low: Index
    high: Index
    fraction: Array
    present: NDArray[np.bool_]

    @classmethod
    def of(cls, slices: Sequence[Slice]) -> StackedSlices:
        """Those of slices that have members."""
        sizes = np.array([len(one.low) for one in slices])
        member = np.arange(sizes.max())
        present = member < sizes[:, None]
        at = np.where(present, member, 0)
        low, high, fraction = (
            np.stack([getattr(one, name)[row] for one, row in zip(slices, at, strict=True)])
            for name in ("low", "high", "fraction")
        )
        return cls(low, high, fraction, present)

    def at(self, value_RP: Array) -> Array:
        """Interpolate a quantity of the points, (R, P) to (K, R, M)."""
        low_RKM, high_RKM = value_RP[:, self.low], value_RP[:, self.high]
        return np.asarray(((1 - self.fraction) * low_RKM + self.fraction * high_RKM).transpose(1, 0, 2))

    def weights(self, weight_RP: Array) -> Array:
        """Weight of each member, of the rarer of its two points, (K, R, M)."""
        rarer_RKM = np.minimum(weight_RP[:, self.low], weight_RP[:, self.high])
        return np.asarray((rarer_RKM * self.present).transpose(1, 0, 2))


def vertices(
    slices: Sequence[Slice], x_P: Array, y_RP: Array, weight_RP: Array, degree: int, min_points: int
) -> Array:
    """Local minima of weighted least-squares polynomials inside the sampled range, (R, slices).

    NaN where there is none, or where fewer than `min_points` distinct x (`degree` + 2 at least) are present.

    Parameters
    ----------
    slices : K budgets, each with members.
    x_P : (P,) ln N or ln D of the points.
    y_RP, weight_RP : (R, P) or (1, P) ln L and weights of the points.
    degree : 2 or 3.
    min_points : distinct x that are needed.
    """
    R = max(len(y_RP), len(weight_RP))
    if not slices:
        return np.empty((R, 0))
    every = StackedSlices.of(slices)
    if len(slices) > 1 and R * every.low.size > MOST_NUMBERS:
        some = [vertices([one], x_P, y_RP, weight_RP, degree, min_points) for one in slices]
        return np.concatenate(some, axis=1)
    x_KM = every.at(x_P[None])[:, 0]
    y_KRM, weight_KRM = np.broadcast_arrays(every.at(y_RP), every.weights(weight_RP))
    middle_K = (x_KM * every.present).sum(axis=1) / every.present.sum(axis=1)
    scale_K = np.maximum(np.ptp(x_KM, axis=1) / 2, 1e-12)
    t_KM = (x_KM - middle_K[:, None]) / scale_K[:, None]
    powers = t_KM[:, :, None] ** np.arange(2 * degree + 1)
    moments = weight_KRM @ powers
    rhs = (weight_KRM * y_KRM) @ powers[:, :, : degree + 1]
    normal = moments[:, :, np.add.outer(np.arange(degree + 1), np.arange(degree + 1))]
    present = weight_KRM > 0
    # members of one size count once
    of_size = (_sizes(x_KM)[:, :, None] == np.arange(x_KM.shape[1])).astype(float)
    distinct = (present.astype(float) @ of_size > 0).sum(axis=2)
    usable = distinct >= max(min_points, degree + 2)
    normal = np.where(usable[:, :, None, None], normal, np.eye(degree + 1))
    t_star = _minimum(np.linalg.solve(normal, rhs[:, :, :, None])[:, :, :, 0])
    inside = (t_star > np.where(present, t_KM[:, None], np.inf).min(axis=2)) & (
        t_star < np.where(present, t_KM[:, None], -np.inf).max(axis=2)
    )
    position = middle_K[:, None] + scale_K[:, None] * t_star
    return np.where(usable & inside, position, np.nan).T


def _sizes(x_KM: Array) -> NDArray[np.intp]:
    """Number of the size of each member; a size holds what is less than `APART` beyond its smallest."""
    number_KM = np.empty(x_KM.shape, dtype=np.intp)
    for x_M, number_M in zip(x_KM, number_KM, strict=True):
        order, begin, number = np.argsort(x_M, kind="stable"), -np.inf, -1
        for at in order:
            if x_M[at] > begin + APART:
                begin, number = x_M[at], number + 1
            number_M[at] = number
    return number_KM


def _minimum(c: Array) -> Array:
    """Stationary point with positive second derivative of parabolas or cubics (..., 3 or 4); NaN: none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        _, linear, square, *cubic = np.moveaxis(c, -1, 0)
        if not cubic:
            return np.where(square > 0, -linear / (2 * square), np.nan)
        root = square**2 - 3 * linear * cubic[0]
        # q'(t) = c1 + 2 c2 t + 3 c3 t^2; at this root q'' = 2 sqrt(root) > 0; the form is stable for small c3
        denominator = square + np.sqrt(np.maximum(root, 0))
        return np.where((root > 0) & (denominator != 0), -linear / denominator, np.nan)


def check_slices(
    slices: Sequence[Slice], x_P: Array, log_L_P: Array, degree: int, min_points: int
) -> list[Vertex]:
    """Vertices of the data themselves, with the reason where a slice cannot be used.

    Parameters
    ----------
    slices : the budgets.
    x_P, log_L_P : (P,) ln N or ln D of the points, and their ln L.
    degree, min_points : as in `vertices`.
    """
    needed = max(min_points, degree + 2)
    members = [(one.at(x_P), one.at(log_L_P)) for one in slices]
    sizes = [distinct(x_M, APART) for x_M, _ in members]
    enough = [k for k, count in enumerate(sizes) if count >= needed]
    ones = np.ones((1, len(x_P)))
    of_enough = vertices([slices[k] for k in enough], x_P, log_L_P[None], ones, degree, min_points)[0]
    position = dict(zip(enough, of_enough.tolist(), strict=True))
    return [
        _checked(x_M, y_M, position[k])
        if k in position
        else Vertex(np.nan, f"{sizes[k]} sizes, {needed} needed", "")
        for k, (x_M, y_M) in enumerate(members)
    ]


def _checked(x_M: Array, y_M: Array, position: float) -> Vertex:
    """The vertex at a position; why it is none, or doubtful."""
    lowest = _size_of_lowest(x_M, y_M)
    if lowest in (x_M.min(), x_M.max()):
        return Vertex(
            np.nan, f"{EDGE} (lowest loss at the {'smallest' if lowest == x_M.min() else 'largest'} size)", ""
        )
    if not np.isfinite(position):
        return Vertex(np.nan, f"no minimum inside the sampled range: {EDGE}", "")
    left, right = (x_M < position).sum(), (x_M > position).sum()
    flag = "" if min(left, right) >= 2 else "fewer than two sizes on one side of the optimum"
    return Vertex(position, "", flag)


def windowed(x_M: Array, y_M: Array, window: float) -> Index:
    """Members within a factor `window` of the size with the lowest loss; all of them for 0.

    Parameters
    ----------
    x_M, y_M : (M,) ln N and ln L.
    window : factor of N.

    Returns
    -------
    Numbers of the members that stay.

    Raises
    ------
    UsageError
        A factor below 1, which no size is within.
    """
    if window <= 0:
        return np.arange(len(x_M))
    if window < 1:
        raise UsageError(
            f"approach2.window={window:g}: must be a factor of at least 1, or 0 for all sizes of a slice"
        )
    return np.flatnonzero(np.abs(x_M - _size_of_lowest(x_M, y_M)) <= np.log(window) + 1e-9)


def _size_of_lowest(x_M: Array, y_M: Array) -> float:
    """Where the lowest loss is; of equal ones nearest to the middle of the range, then the larger size."""
    x_T = x_M[y_M <= y_M.min() + TIE]
    off_T = np.abs(x_T - (x_M.min() + x_M.max()) / 2)
    return float(x_T[off_T <= off_T.min() + TIE].max())


def power_law(log_C_K: Array, position_RK: Array) -> tuple[Array, Array]:
    """Least-squares slope and intercept of ln N* on ln C over the slices each replicate can use; (R,).

    Parameters
    ----------
    log_C_K : (K,) ln of the budgets.
    position_RK : (R, K) ln N* or ln D*; NaN where a replicate has no vertex.
    """
    present = np.isfinite(position_RK)
    m = present.astype(float)
    count = m.sum(axis=1)
    y = np.where(present, position_RK, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x_mean, y_mean = m @ log_C_K / count, (m * y).sum(axis=1) / count
        dx = m * (log_C_K - x_mean[:, None])
        slope = (dx * y).sum(axis=1) / (dx**2).sum(axis=1)
        slope = np.where(count >= 2, slope, np.nan)
        return slope, y_mean - slope * x_mean
