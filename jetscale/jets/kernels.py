"""Compiled loops of `prepare`. Compiled at the first call, kept on disk by numba where it finds a folder to.

Numba's cache looks at this file alone, so nothing here calls functions of other files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter lock; without a disk cache where no folder can be written to."""
    try:
        compiled: Callable[..., Any] = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # "no locator available"
        compiled = numba.njit(nogil=True)(function)
    return compiled


@kernel
def copy_runs(source, offsets, places, target, width, skip):  # type: ignore[no-untyped-def]
    """Copy run b, rows ``offsets[b]:offsets[b + 1]`` of `width` items, to `target` from row ``places[b]`` on.

    Its first `skip` items are left behind, and the whole run where its place is negative.
    """
    for b in range(len(places)):
        if places[b] >= 0:
            start, place = offsets[b] * width + skip, places[b] * width
            for k in range((offsets[b + 1] - offsets[b]) * width - skip):
                target[place + k] = source[start + k]


@kernel
def interleave(rows_FT, target_TF):  # type: ignore[no-untyped-def]
    """Transpose, 64 constituents at a time, which stay in the innermost cache."""
    n_features, n = rows_FT.shape
    for low in range(0, n, 64):
        high = min(low + 64, n)
        for f in range(n_features):
            for t in range(low, high):
                target_TF[t, f] = rows_FT[f, t]


@kernel
def all_finite(bits):  # type: ignore[no-untyped-def]
    """Whether no float32, given as uint32 bits, is infinite or not a number."""
    bad = np.uint32(0)
    for i in range(len(bits)):
        bad |= np.uint32((bits[i] & np.uint32(0x7F800000)) == np.uint32(0x7F800000))
    return bad == 0


@kernel
def all_possible(px, py, energy, charge, photon, electron, muon):  # type: ignore[no-untyped-def]
    """Whether every constituent has an energy, a pT, a charge of -1, 0 or 1, and flags that fit it."""
    bad = False
    for i in range(len(px)):
        q, lepton = charge[i], electron[i] + muon[i]
        bad |= not energy[i] > 0
        bad |= (px[i] == 0) & (py[i] == 0)
        bad |= (q != 0) & (q != 1) & (q != -1)
        bad |= photon[i] + lepton > 1
        bad |= (lepton > 0) & (q == 0)
        bad |= (photon[i] > 0) & (q != 0)
    return not bad


@kernel
def identities(charge, photon, electron, muon, first, pid):  # type: ignore[no-untyped-def]
    """Fill in identities; `first` are those of h-, neutral hadron, electron-, muon-, in this order."""
    hadron, neutral, light, heavy = first
    for i in range(len(pid)):
        q = charge[i]
        charged = hadron + (light - hadron) * electron[i] + (heavy - hadron) * muon[i] + (q > 0)
        pid[i] = charged if q != 0 else neutral + photon[i]
