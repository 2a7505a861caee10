"""How the optimiser steps of a phase are cut into chunks, and how many tokens their graphs are captured for.

What a step computes does not depend on the chunk it is in, so a run may go on with other cuts. A graph has
fixed shapes: it works on all rows of its capacity, or at least starts a program for them. So there are two
capacities, one that holds nearly every batch and one that holds any.
"""

from __future__ import annotations

import math

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
