"""How the optimiser steps of a phase are cut into chunks, and how many tokens their graphs are captured for.

What a step computes does not depend on the chunk it is in, so a run may go on with other cuts. A graph has
fixed shapes: it works on all rows of its capacity, or at least starts a program for them. So there are
several capacities, and a batch takes the smallest that holds it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jetscale.training.outputs import Schedule

MOST_STEPS = 128
"""Steps of a chunk: at 0.1 ms a step, Lightning's 0.5 ms a chunk is hidden behind them."""
MOST_CONSTITUENTS = 1 << 21
"""Constituents of a chunk, were all its jets as long as they may be: 36 MB of the paper's inputs."""


def jets_of_a_chunk(batch_size: int, max_constituents: int) -> int:
    """Jets that a chunk can have: whole batches, at least one.

    Parameters
    ----------
    batch_size : jets of a batch
    max_constituents : of a jet
    """
    return batch_size * max(1, MOST_CONSTITUENTS // max_constituents // batch_size)


def chunks(schedule: Schedule, start: int, batch_size: int, max_constituents: int) -> list[range]:
    """Cut the steps behind `start` so that a chunk ends wherever something is written, saved or evaluated.

    Between two such steps the chunks have equal lengths, as far as whole numbers go.

    Parameters
    ----------
    schedule : the steps that write
    start : steps done already
    batch_size, max_constituents : jets of a step, constituents of a jet

    Returns
    -------
    For each chunk its steps, counted from 0; the first begins at `start`, the last ends at `schedule.steps`.
    """
    longest = min(MOST_STEPS, jets_of_a_chunk(batch_size, max_constituents) // batch_size)
    every = (schedule.log_every, schedule.checkpoint_every)
    evaluations = sorted(step for step in schedule.evaluations if step > start)
    cuts: list[range] = []
    done = start
    while done < schedule.steps:
        while evaluations and evaluations[0] <= done:
            evaluations.pop(0)
        due = [(done // period + 1) * period for period in every]
        gap = min([schedule.steps, *due, *evaluations[:1]]) - done
        n_steps = -(-gap // -(-gap // longest))
        cuts.append(range(done, done + n_steps))
        done += n_steps
    return cuts


ESTIMATED_FROM = 64
"""Steps whose jets the usual capacities are estimated from."""
DEVIATIONS = 6
"""Standard deviations above the mean: a batch exceeds them once in a billion, were it Gaussian."""
MULTIPLE = 256
"""Tokens; the kernels' tiles of rows divide it."""


class Capacities(NamedTuple):
    """For how many tokens of a batch graphs are captured, a class token for each jet included.

    Attributes
    ----------
    usual : ascending; nearly every batch fits the last. They share the memory of the last
    full : tokens of a batch of the longest jets; in memory of its own, if one ever comes
    """

    usual: tuple[int, ...]
    full: int

    def of(self, tokens: int) -> int:
        """The smallest that holds a batch.

        Raises
        ------
        ValueError
            None does.
        """
        for capacity in (*self.usual, self.full):
            if tokens <= capacity:
                return capacity
        raise ValueError(f"a batch of {tokens} tokens, the largest capacity is {self.full}")

    def memory_of(self, capacity: int) -> int:
        """The capacity whose memory it shares."""
        return max(capacity, self.usual[-1])


def capacities(lengths_J: npt.NDArray[np.int64], batch_size: int, max_constituents: int) -> Capacities:
    """Capacities of a phase.

    Parameters
    ----------
    lengths_J : (J,) constituents of the jets at the phase's first positions (`ESTIMATED_FROM` batches),
        whatever step the run resumes at: the capacities are a function of data and seed alone
    batch_size : jets of a batch
    max_constituents : of a jet

    Returns
    -------
    The last usual capacity is `DEVIATIONS` above the mean of a batch, rounded up to a `MULTIPLE`, at most the
    full one. Those before are one standard deviation of a batch apart, at least a `MULTIPLE`, down to about
    two below the mean: a batch then has spare rows for half a deviation.
    """
    tokens_J = lengths_J + 1
    mean, deviation = batch_size * tokens_J.mean(), math.sqrt(batch_size) * tokens_J.std()
    full = batch_size * (max_constituents + 1)
    last = min(_rounded(mean + DEVIATIONS * deviation), full)
    apart = max(_rounded(deviation), MULTIPLE)
    above = min(max(int(mean - 2 * deviation), 0), last - 1)
    return Capacities(tuple(range(last, above, -apart))[::-1], full)


def _rounded(tokens: float) -> int:
    return math.ceil(tokens / MULTIPLE) * MULTIPLE
