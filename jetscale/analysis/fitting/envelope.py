"""Approach 1: power laws of N and D along the lower envelope of all (C, loss) points.

The answer depends on what is called the envelope, so the definition is named in the result:
``record-low`` (below every point of lower C), ``hull`` (lower-left convex hull of (ln C, ln L),
while L falls), ``bins`` (lowest loss of each of n log-spaced bins of C). Losses, and budgets, that differ by
rounding alone are equal; of equal losses the larger model counts, whatever the order of rows: losses read
off a picture tie (211 of the 245 rows of the Chinchilla table do), and the rule moves a by up to .04.

What it needs: three points and three sizes over half a decade of C, and three sizes at budgets that a smaller
size with more data and a larger size with less data were tried at too. Where D is 20 N in every run, or there
are two sizes, the lowest loss of a budget is where the runs end, not an optimum: no exponent, and the reason.

Shapes: R replicates, P points, M points on the envelope of some replicate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import TIE, levelled
from jetscale.common.usage import UsageError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Definition = Literal["hull", "record-low", "bins"]

MIN_POINTS = 3
MIN_SIZES = 3  # on the envelope, and again inside the grid
MIN_DECADES = 0.5  # of C on the envelope
NEAR = float(np.log(4))  # in ln C: budgets at which sizes are compared
APART = 0.01  # in ln N or ln D: less is one size, or the same data


@dataclass(frozen=True)
class Envelope:
    """Envelope fits of R replicates.

    Attributes
    ----------
    a, b : (R,) slopes of ln N and ln D on ln C; NaN where the envelope is too short.
    log_cN, log_cD : (R,) intercepts: N* = cN C^a, D* = cD C^b.
    member_RP : (R, P) the points on the envelope.
    """

    a: Array
    b: Array
    log_cN: Array
    log_cD: Array
    member_RP: Mask


def fit_envelope(
    log_N: Array,
    log_D: Array,
    log_C: Array,
    log_L_RP: Array,
    weight_RP: Array,
    definition: str,
    bins: int,
    inner_P: Mask | None = None,
) -> Envelope:
    """Pick the envelope of every replicate and fit it; points of weight 0 are absent from a replicate.

    Parameters
    ----------
    inner_P : of curves, points whose budget is reached by a smaller and a larger size: the others compete,
        but are not fitted. None for final losses: all are fitted, where enough are found to lie inside.
    """
    if definition not in get_args(Definition):
        raise UsageError(f"envelope {definition!r}: choose one of {', '.join(get_args(Definition))}")
    shape = np.broadcast_shapes(log_L_RP.shape, weight_RP.shape)
    present = np.broadcast_to(weight_RP > 0, shape)
    log_L_RP = levelled(np.where(present, log_L_RP, np.inf))
    level_C = levelled(log_C)
    if definition == "bins":
        member = _bins(log_N, level_C, log_L_RP, bins)
    else:
        member = (_hull if definition == "hull" else _record_low)(log_N, level_C, log_L_RP)
    if inner_P is not None:
        member &= inner_P
    usable = np.array([not text for text in problems(log_N, log_D, log_C, member, inner_P, present)])
    a, log_cN = _lines(log_C, log_N, member)
    b, log_cD = _lines(log_C, log_D, member)
    a, b, log_cN, log_cD = (np.where(usable, value, np.nan) for value in (a, b, log_cN, log_cD))
    return Envelope(a, b, log_cN, log_cD, member)


def problems(
    log_N: Array, log_D: Array, log_C: Array, member_RP: Mask, inner_P: Mask | None, present_RP: Mask
) -> list[str]:
    """Why each replicate's envelope gives no exponent; "" where it gives one.

    Parameters
    ----------
    log_N, log_D, log_C : (P,) the points.
    member_RP : (R, P) the points on the envelope.
    inner_P : (P,) as in `fit_envelope`.
    present_RP : (R, P) the points of a replicate.

    Returns
    -------
    R texts.
    """
    on = np.flatnonzero(member_RP.any(axis=0))
    size_M = _numbers(log_N)[on]
    if inner_P is None:
        inner_M = _inside(log_N, log_D, log_C, np.asarray(present_RP.any(axis=0)), on)
    else:
        inner_M = inner_P[on]
    decades_R = _span(log_C, member_RP) / np.log(10)
    proportional = bool(np.ptp(log_D - log_N) < APART)
    found = []
    for member_M, decades in zip(member_RP[:, on], decades_R, strict=True):
        sizes, inside = (len(np.unique(size_M[chosen])) for chosen in (member_M, member_M & inner_M))
        found.append(_problem(int(member_M.sum()), sizes, inside, float(decades), proportional))
    return found


def _problem(points: int, sizes: int, inside: int, decades: float, proportional: bool) -> str:
    if points < MIN_POINTS:
        return f"{points} points on the envelope, {MIN_POINTS} needed"
    if decades < MIN_DECADES - TIE:
        return f"the envelope spans {decades:.2g} decades of C, {MIN_DECADES:g} needed"
    if sizes < MIN_SIZES:
        return f"the envelope holds {sizes} size{'s' * (sizes > 1)}, {MIN_SIZES} needed"
    if proportional:
        return "D is the same multiple of N in every run: no budget was tried with several sizes"
    if inside < MIN_SIZES:
        return (
            f"{inside} of the {sizes} sizes on the envelope lie inside the grid, {MIN_SIZES}"
            " needed: at its budgets"
            " hardly any smaller size with more data and larger size with less data were tried, so"
            " the lowest loss"
            " is at the edge"
        )
    return ""


def _numbers(log_N: Array) -> NDArray[np.intp]:
    """Number of the size of each point, (P,); sizes that differ by under 1% are one."""
    order = np.argsort(log_N, kind="stable")
    number = np.empty(len(log_N), dtype=np.intp)
    number[order] = np.cumsum(np.r_[False, np.diff(log_N[order]) > APART])
    return number


def _inside(log_N: Array, log_D: Array, log_C: Array, present_P: Mask, on: NDArray[np.intp]) -> Mask:
    """Points `on` near whose budget a smaller size saw more data, and a larger one less; (M,)."""
    x, y, c = log_N[present_P], log_D[present_P], log_C[present_P]
    found = np.zeros(len(on), dtype=bool)
    for m, point in enumerate(on):
        near = np.abs(c - log_C[point]) <= NEAR + TIE
        dx, dy = x[near] - log_N[point], y[near] - log_D[point]
        found[m] = ((dx < -APART) & (dy > APART)).any() and ((dx > APART) & (dy < -APART)).any()
    return found


def _span(log_C: Array, member_RP: Mask) -> Array:
    high = np.where(member_RP, log_C, -np.inf).max(axis=1)
    low = np.where(member_RP, log_C, np.inf).min(axis=1)
    return np.asarray(np.where(member_RP.any(axis=1), high - low, 0.0))


def _lines(x_P: Array, y_P: Array, member_RP: Mask) -> tuple[Array, Array]:
    """Least-squares slope and intercept of y on x over each replicate's members."""
    m = member_RP.astype(float)
    count = np.maximum(m.sum(axis=1), 1)
    x_mean, y_mean = m @ x_P / count, m @ y_P / count
    dx = m * (x_P - x_mean[:, None])
    squares = (dx**2).sum(axis=1)
    slope = (dx @ y_P) / np.where(squares > 0, squares, np.nan)
    return slope, y_mean - slope * x_mean


def _record_low(log_N: Array, log_C: Array, log_L_RP: Array) -> Mask:
    """Below every point of lower C; among points of one C only the lowest can be."""
    member = np.zeros(log_L_RP.shape, dtype=bool)
    for r, log_L in enumerate(log_L_RP):
        order = np.lexsort((-log_N, log_L, log_C))
        best = np.minimum.accumulate(log_L[order])
        fresh = np.r_[True, best[1:] < best[:-1]]
        member[r, order[fresh & np.isfinite(log_L[order])]] = True
    return member


def _hull(log_N: Array, log_C: Array, log_L_RP: Array) -> Mask:
    """Lower convex hull of the record lows (monotone chain), points on its edges included."""
    member = np.zeros(log_L_RP.shape, dtype=bool)
    for r, record in enumerate(_record_low(log_N, log_C, log_L_RP)):
        index = np.flatnonzero(record)
        index = index[np.argsort(log_C[index], kind="stable")]
        x, y = log_C[index].tolist(), log_L_RP[r, index].tolist()
        chain: list[int] = []
        for i in range(len(index)):
            while len(chain) >= 2 and _turns_down(x, y, chain[-2], chain[-1], i):
                chain.pop()
            chain.append(i)
        member[r, index[chain]] = True
    return member


def _turns_down(x: list[float], y: list[float], i: int, j: int, k: int) -> bool:
    """Whether point j lies above the line from i to k, by more than rounding."""
    return (y[j] - y[i]) * (x[k] - x[i]) - (x[j] - x[i]) * (y[k] - y[i]) > TIE * (x[k] - x[i])


def _bins(log_N: Array, log_C: Array, log_L_RP: Array, bins: int) -> Mask:
    """Lowest loss of each bin of ln C between the smallest and the largest budget."""
    edges = np.linspace(log_C.min(), log_C.max(), bins + 1)
    number = np.clip(np.searchsorted(edges, log_C + TIE, side="right") - 1, 0, bins - 1)
    member = np.zeros(log_L_RP.shape, dtype=bool)
    row = np.arange(len(log_L_RP))
    for b in np.unique(number):
        inside = np.flatnonzero(number == b)
        inside = inside[np.argsort(-log_N[inside], kind="stable")]
        lowest = inside[log_L_RP[:, inside].argmin(axis=1)]
        member[row, lowest] = np.isfinite(log_L_RP[row, lowest])
    return member
