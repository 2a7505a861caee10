"""Where the optimiser steps of a phase are cut into chunks.

What a step computes does not depend on the chunk it is in, so a run may go on with other cuts.
"""

from __future__ import annotations

from jetscale.training.outputs import Schedule

MOST_STEPS = 128
"""Steps of a chunk: at 0.1 ms a step, Lightning's 0.5 ms a chunk is hidden behind them."""
MOST_JETS = 16_384
"""Jets of a chunk, unless one batch has more: 11 MB of mean jets, 36 MB where all had 128 constituents."""


def jets_of_a_chunk(batch_size: int) -> int:
    """Jets that a chunk can have: a multiple of the batch."""
    return batch_size * max(1, MOST_JETS // batch_size)


def chunks(schedule: Schedule, start: int, batch_size: int) -> list[range]:
    """Cut the steps behind `start` so that a chunk ends wherever something is written, saved or evaluated.

    Between two such steps the chunks have equal lengths, as far as whole numbers go.

    Parameters
    ----------
    schedule : the steps that write
    start : steps done already
    batch_size : jets of a step

    Returns
    -------
    For each chunk its steps, counted from 0; the first begins at `start`, the last ends at `schedule.steps`.
    """
    longest = min(MOST_STEPS, jets_of_a_chunk(batch_size) // batch_size)
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
