"""Lines through the neighbours of each point of a curve: they smooth it, and show a plateau at its start.

Shapes: T evaluations of a run, K points of a curve.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]

PLATEAU_SLOPE = 0.5  # of the curve's steepest slope
SLOPE_WINDOW = float(np.log(2))  # half-width in ln D of the local slope
PLATEAU_MIN_POINTS = 8
SURE = 3.0  # standard errors of a local slope
MAX_WINDOW_ELEMENTS = 20_000_000


def smoother(x_T: Array, half_width: float) -> csr_array:
    """Local-linear smoother (T, T) of a curve over ascending `x_T` = ln D: a power law passes unchanged.

    Tricube weights over `half_width`; a point with fewer than three in its window is kept as it is.

    Parameters
    ----------
    x_T : (T,) ln D, ascending.
    half_width : of the window, in ln D; 0: the identity.
    """
    return _smoother(x_T.tobytes(), half_width)


@lru_cache(maxsize=256)
def _smoother(content: bytes, half_width: float) -> csr_array:
    """The same of the bytes of x_T: all seeds, all subsets and all choices of a multiverse share it."""
    from scipy.sparse import csr_array, identity

    x_T = np.frombuffer(content)
    T = len(x_T)
    if half_width <= 0:
        return csr_array(identity(T))
    begin, end = (np.searchsorted(x_T, x_T + shift, side=side) for shift, side in _window_ends(half_width))
    if (end - begin).sum() > MAX_WINDOW_ELEMENTS:
        raise UsageError(
            f"curves.smooth={half_width} over {T:,} evaluations a run is too much; set curves.bin"
        )
    rows, columns, values = [], [], []
    for t in range(T):
        window = np.arange(begin[t], end[t])
        weight = _local_linear((x_T[window] - x_T[t]) / half_width)
        if weight is None:
            window, weight = np.array([t]), np.ones(1)
        rows.append(np.full(len(window), t))
        columns.append(window)
        values.append(weight)
    return csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(T, T))


def _window_ends(half_width: float) -> tuple[tuple[float, Literal["left"]], tuple[float, Literal["right"]]]:
    return (-half_width, "left"), (half_width, "right")


def _local_linear(distance: Array) -> Array | None:
    """Weights whose sum with the values is the local line's height at distance 0; None for too few points."""
    weight = (1 - np.minimum(np.abs(distance), 1) ** 3) ** 3
    if (weight > 0).sum() < 3:
        return None
    s0, s1, s2 = (float(weight @ distance**power) for power in (0, 1, 2))
    if s0 * s2 - s1**2 <= 1e-12 * s0 * s2:
        return None
    return weight * (s2 - s1 * distance) / (s0 * s2 - s1**2)


def plateau_end(log_D_K: Array, log_L_K: Array) -> int:
    """Index of the first point after the plateau at the class prior; 0 where none is seen.

    Rule: the plateau ends where the local slope of ln L against ln D (least squares within a factor 2 of D)
    first reaches half of the curve's steepest slope. It is *seen* where an earlier slope is known to be
    flatter: by 3 standard errors, which the scatter about the local lines gives. The slope of E + B / D^beta
    is steepest at its start, so a curve that follows the law loses nothing; nor does one whose first slopes
    are unknown (fewer than three points within a factor 2) or lost in noise.

    Parameters
    ----------
    log_D_K, log_L_K : (K,) the curve, ascending in D.
    """
    if len(log_D_K) < PLATEAU_MIN_POINTS:
        return 0
    slope_K, error_K = _local_slopes(log_D_K, log_L_K)
    known = np.flatnonzero(np.isfinite(slope_K))
    if not len(known):
        return 0
    half = PLATEAU_SLOPE * float((slope_K + SURE * error_K)[known].min())  # at least so steep, somewhere
    steep = known[slope_K[known] <= half]
    if not half < 0 or not len(steep):
        return 0
    before = known[known < steep[0]]
    flat = (slope_K - SURE * error_K)[before] > half
    return int(steep[0]) if flat.any() else 0


def _local_slopes(x_K: Array, y_K: Array) -> tuple[Array, Array]:
    """Slope within `SLOPE_WINDOW` of each point and its standard error; NaN for under three points."""
    ends = _window_ends(SLOPE_WINDOW)
    begin, end = (np.searchsorted(x_K, x_K + shift, side=side) for shift, side in ends)
    slope_K, squares_K, variance_K = (np.full(len(x_K), np.nan) for _ in range(3))
    for k in np.flatnonzero(end - begin >= 3):
        x, y = x_K[begin[k] : end[k]], y_K[begin[k] : end[k]]
        if x[0] == x[-1]:
            continue
        x = x - x.mean()
        squares_K[k] = x @ x
        slope_K[k] = x @ y / squares_K[k]
        left = y - y.mean() - slope_K[k] * x
        variance_K[k] = left @ left / (len(x) - 2)
    known = np.isfinite(slope_K)
    noise = float(np.median(variance_K[known])) if known.any() else 0.0
    return slope_K, np.sqrt(noise / squares_K)
