"""Approach 2: at fixed C a parabola of ln L in ln N (and in ln D); its vertices give N*(C) and D*(C).

Slices come from runs at one nominal C where the table has them, else from every size's curve interpolated in
log-log at C, never beyond its ends.

Shapes: R replicates, P points, K slices, M members of a slice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import TIE
from jetscale.analysis.settings import Approach2Settings

Array = NDArray[np.float64]
Index = NDArray[np.intp]

EDGE = "the optimum is at the edge of the grid"


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

    def weights(self, weight_RP: Array) -> Array:
        """Weight of each member: of the rarer of its two points."""
        return np.minimum(weight_RP[..., self.low], weight_RP[..., self.high])


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
    log_N, log_C : (P,).
    copy : (P,) points of one size and one copy (a run, a seed) make a curve.
    is_curve : whether runs have several evaluations each.
    """
    if not is_curve:
        nominal = _nominal(log_N, log_C, settings)
        if len(nominal) >= 3:
            return Profiles(nominal, interpolated=False)
    curves = _curves(log_N, log_C, copy)
    sizes, drawn = len(np.unique(log_N)), len({float(log_N[index[0]]) for index in curves})
    if drawn < settings.min_points:
        several = f"{sizes} sizes, {drawn} of them with several budgets"
        return Profiles([], True, f"{several}; a parabola needs {settings.min_points}")
    ends = np.array([[log_C[index[0]], log_C[index[-1]]] for index in curves])
    covered = np.sort(ends.ravel())
    reaches = (ends[:, 0] <= covered[:, None] + TIE) & (ends[:, 1] >= covered[:, None] - TIE)
    _, size = np.unique([log_N[index[0]] for index in curves], return_inverse=True)
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
    log_N, log_C : (P,).
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
        if np.ptp(log_C[group]) <= settings.tolerance and len(np.unique(log_N[group])) >= settings.min_points:
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


def polynomial_vertices(x_M: Array, y_RM: Array, weight_RM: Array, degree: int, min_points: int) -> Array:
    """Position of the local minimum of a weighted least-squares polynomial inside the sampled range; (R,).

    NaN where there is none, or where fewer than `min_points` distinct x (`degree` + 2 at least) are present.

    Parameters
    ----------
    x_M : (M,) ln N or ln D of the members.
    y_RM, weight_RM : (R, M) or (1, M) ln L and weights.
    degree : 2 or 3.
    min_points : distinct x that are needed.
    """
    y_RM, weight_RM = np.broadcast_arrays(y_RM, weight_RM)
    middle, scale = x_M.mean(), max(float(np.ptp(x_M)) / 2, 1e-12)
    t_M = (x_M - middle) / scale
    powers = t_M[:, None] ** np.arange(2 * degree + 1)
    moments = weight_RM @ powers
    rhs = (weight_RM * y_RM) @ powers[:, : degree + 1]
    normal = moments[:, np.add.outer(np.arange(degree + 1), np.arange(degree + 1))]
    present = weight_RM > 0
    _, first = np.unique(x_M, return_inverse=True)
    distinct = np.stack([(present & (first == g)).any(axis=1) for g in range(first.max() + 1)]).sum(axis=0)
    usable = distinct >= max(min_points, degree + 2)
    normal = np.where(usable[:, None, None], normal, np.eye(degree + 1))
    c = np.linalg.solve(normal, rhs[:, :, None])[:, :, 0]
    t_star = _minimum(c)
    inside = (t_star > np.where(present, t_M, np.inf).min(axis=1)) & (
        t_star < np.where(present, t_M, -np.inf).max(axis=1)
    )
    return np.where(usable & inside, middle + scale * t_star, np.nan)


def _minimum(c: Array) -> Array:
    """Stationary point with positive second derivative of a parabola or a cubic, (R,); NaN where none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        parabola = np.where(c[:, 2] > 0, -c[:, 1] / (2 * c[:, 2]), np.nan)
        if c.shape[1] == 3:
            return parabola
        root = c[:, 2] ** 2 - 3 * c[:, 1] * c[:, 3]
        # q'(t) = c1 + 2 c2 t + 3 c3 t^2; at this root q'' = 2 sqrt(root) > 0; the form is stable for small c3
        denominator = c[:, 2] + np.sqrt(np.maximum(root, 0))
        return np.where((root > 0) & (denominator != 0), -c[:, 1] / denominator, np.nan)


def check_slice(x_M: Array, y_M: Array, degree: int, min_points: int) -> Vertex:
    """Vertex of the data themselves, with the reason where the slice cannot be used.

    Parameters
    ----------
    x_M, y_M : (M,) ln N or ln D, and ln L.
    degree, min_points : as in `polynomial_vertices`.
    """
    sizes = len(np.unique(x_M))
    needed = max(min_points, degree + 2)
    if sizes < needed:
        return Vertex(np.nan, f"{sizes} sizes, {needed} needed", "")
    position = float(polynomial_vertices(x_M, y_M[None], np.ones((1, len(x_M))), degree, min_points)[0])
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
    """
    if window <= 0:
        return np.arange(len(x_M))
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
