"""Values that differ by rounding alone are equal: a choice among them must not hang on their last bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TIE = 1e-10  # of a logarithm: far above rounding, far below the precision of any loss, N, D or C


def levelled(value: Array) -> Array:
    """Give values that are equal up to rounding one value, along the last axis; (..., P).

    A value within `TIE` of the next smaller one takes the smallest of their group; infinite ones stay.
    """
    order = np.argsort(value, axis=-1, kind="stable")
    ascending = np.take_along_axis(value, order, axis=-1)
    with np.errstate(invalid="ignore"):
        first = ~(np.diff(ascending, axis=-1, prepend=-np.inf) <= TIE)
    start = np.maximum.accumulate(np.where(first, np.arange(value.shape[-1]), 0), axis=-1)
    level = np.empty_like(value)
    np.put_along_axis(level, order, np.take_along_axis(ascending, start, axis=-1), axis=-1)
    return level


def beyond_rounding(value: float, size: float = 1.0) -> float:
    """Return the value; 0 where rounding alone explains it, as a difference of numbers of this size."""
    return 0.0 if abs(value) <= TIE * size else value
