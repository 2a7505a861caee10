"""How many of the first n jets belong to each component.

Sainte-Laguë apportionment: the seats (component k, j-th jet) in the order of (j + 1/2) / w_k. Counts
follow the weights to within about one jet at every n, never decrease as n grows (largest remainders can:
the Alabama paradox), and are exact wherever all n * w_k are whole. Any n can be asked without the ones
before. Shape: K components.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def apportion(n: int, weights_K: npt.NDArray[np.float64]) -> Counts:
    """Jets of each component among the first `n`.

    Parameters
    ----------
    weights_K : (K,) float64 > 0, adding up to 1

    Returns
    -------
    (K,) int64 adding up to `n`.
    """
    counts = np.floor(weights_K * n + 0.5).astype(np.int64)
    while counts.sum() > n:
        counts[_last_seat(counts, weights_K)] -= 1
    while counts.sum() < n:
        counts[_next_seat(counts, weights_K)] += 1
    while True:  # correct a seat at the very edge that the floor above rounded to the wrong side
        last, following = _last_seat(counts, weights_K), _next_seat(counts, weights_K)
        if last == following or _key(counts[last] - 1, weights_K[last]) <= _key(
            counts[following], weights_K[following]
        ):
            return counts
        counts[last] -= 1
        counts[following] += 1


def run_out(available_K: Counts, weights_K: npt.NDArray[np.float64]) -> int:
    """Jets in all that can be taken before a component has none left.

    Where seats tie with the first one that cannot be filled, none of them is counted.

    Parameters
    ----------
    available_K : (K,) int64, jets of each component
    weights_K : (K,) float64 > 0, adding up to 1
    """
    end = _key(available_K, weights_K).min() * (1 - 1e-12)  # a hair before the place of that seat
    return int(np.ceil(weights_K * end - 0.5).sum())


def _key(jet: npt.ArrayLike, weight: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray((np.asarray(jet) + 0.5) / np.asarray(weight))


def _last_seat(counts: Counts, weights_K: npt.NDArray[np.float64]) -> int:
    """Component that got its last seat latest; among equals the one that stands last."""
    keys = np.where(counts > 0, _key(counts - 1, weights_K), -np.inf)
    return len(keys) - 1 - int(np.argmax(keys[::-1]))


def _next_seat(counts: Counts, weights_K: npt.NDArray[np.float64]) -> int:
    """Component whose next seat comes first; among equals the one that stands first."""
    return int(np.argmin(_key(counts, weights_K)))
