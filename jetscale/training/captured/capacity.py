"""How many tokens the graphs of a phase are captured for.

A graph has fixed shapes: it works on all rows of its capacity, or at least starts a program for them. So
there are two, one that holds nearly every batch and one that holds any.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

ESTIMATED_FROM = 64
"""Steps whose jets the usual capacity is estimated from."""
DEVIATIONS = 6
"""Standard deviations above the mean: a batch exceeds them once in a billion, were it Gaussian."""
MULTIPLE = 256
"""Tokens; the kernels' tiles of rows divide it."""


def capacities(lengths_J: npt.NDArray[np.int64], batch_size: int, max_constituents: int) -> tuple[int, int]:
    """Usual and full capacity of a phase.

    Parameters
    ----------
    lengths_J : (J,) constituents of the jets at the phase's first positions (`ESTIMATED_FROM` batches),
        whatever step the run resumes at: the capacities are a function of data and seed alone
    batch_size : jets of a batch
    max_constituents : of a jet

    Returns
    -------
    Tokens, a class token for each jet included: `DEVIATIONS` above the mean of a batch, rounded up to a
    `MULTIPLE`, at most the full one; and those of a batch of the longest jets.
    """
    tokens_J = lengths_J + 1
    mean, deviation = batch_size * tokens_J.mean(), math.sqrt(batch_size) * tokens_J.std()
    usual = math.ceil((mean + DEVIATIONS * deviation) / MULTIPLE) * MULTIPLE
    full = batch_size * (max_constituents + 1)
    return min(usual, full), full
