"""Randomness that is a pure function of its key, the same on every machine and with every numpy.

numpy keeps the raw output of a bit generator stable between versions but not what `Generator` makes of it, so
permutations are made here from the raw 64-bit output.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def raw_words(n: int, *key: int | str) -> npt.NDArray[np.uint64]:
    """`n` uniform 64-bit words of the Philox stream that belongs to `key`."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    words: npt.NDArray[np.uint64] = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(n)
    return words


def permutation(n: int, *key: int | str) -> npt.NDArray[np.int64]:
    """Permutation of ``range(n)`` that belongs to `key`: the order of `n` random words."""
    return np.argsort(raw_words(n, *key), kind="stable")
