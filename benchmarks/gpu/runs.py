"""Whole runs, all tracking on: time a step, start, memory of the card, runs that share it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.commands import CHECKPOINT_EVERY, Bench, Run, wandb_mode
from benchmarks.gpu.kernels import n_compiled
from benchmarks.gpu.timeline import Timeline, log_of, steps_per_second

# width to steps, in the order in which they run: should the time run out, the ends are known
STEPS = {8: 12_000, 512: 3_000, 128: 8_000, 64: 12_000, 256: 5_000, 32: 12_000}
QUICK = {8: 6_000, 512: 2_000, 128: 4_000}
START, START_QUICK = (8, 512), (8,)
START_SEED, SHARED_SEED = 1, 100  # no seed comes twice at one width: a finished run would not run again
# width to steps and numbers of runs at once; both ends first, between which the grid's hours interpolate
SHARED = {8: (20_000, (8,)), 512: (3_000, (4,)), 64: (10_000, (8,))}
SHARED_QUICK = {8: (10_000, (8,))}


def run(bench: Bench, steps: Mapping[int, int]) -> None:
    """One row a width: milliseconds a step and a checkpoint, MiB of the card, last loss.

    Parameters
    ----------
    bench : where, and with which jets
    steps : of each width
    """
    bench.session.results["runs"] |= {"wandb": wandb_mode(), "checkpoint_every": CHECKPOINT_EVERY}
    for dim, n_steps in steps.items():
        bench.session.row("runs", str(dim), partial(_one, bench, Run(dim, 0, n_steps)))


def start(bench: Bench, dims: Sequence[int]) -> None:
    """One row a width: seconds from the command of a run to its first optimiser step done, and to log lines.

    The run writes a line after each step, which waits for the card. Runs of its width have been made before,
    so that no kernel is to be compiled; how many were all the same is told.

    Parameters
    ----------
    bench : where, and with which jets
    dims : widths
    """
    for dim in dims:
        run = Run(dim, START_SEED, 2, ("tracking.log_every=1",))
        bench.session.row("start", str(dim), partial(_start, bench, run))


def shared(bench: Bench, runs: Mapping[int, tuple[int, Sequence[int]]]) -> None:
    """One row a width and number of runs: steps a second of all together, each a process on the one card.

    Parameters
    ----------
    bench : where, and with which jets
    runs : by width, steps of a run and numbers of runs
    """
    for dim, (n_steps, counts) in runs.items():
        for count in counts:
            together = [Run(dim, SHARED_SEED * count + seed, n_steps) for seed in range(count)]
            bench.session.row("shared", f"{dim} x {count}", partial(_shared, bench, together))


def _one(bench: Bench, run: Run) -> dict[str, Any]:
    with _memory() as memory, _compiling() as compiled:
        bench.train(run)
    timeline = Timeline.of(bench.directory(run))
    every = int(bench.value(run, "checkpoint_every"))
    return {
        "ms": timeline.step_ms(every),
        "checkpoint_ms": timeline.checkpoint_ms(every),
        "loss": timeline.lines[-1]["loss"],
        "memory_mib": memory[0],
        "compiled": compiled[0],
    }


def _start(bench: Bench, run: Run) -> dict[str, Any]:
    with _compiling() as compiled:
        begun = bench.train(run)
    directory = bench.directory(run)
    return {
        "start_s": Timeline.of(directory).first_line() - begun,
        "compiled": compiled[0],
        "log": log_of(directory, begun),
    }


def _shared(bench: Bench, runs: Sequence[Run]) -> dict[str, Any]:
    with _memory() as memory:
        bench.train(*runs)
    rate = steps_per_second([Timeline.of(bench.directory(run)) for run in runs])
    return {"dim": runs[0].dim, "runs": len(runs), "steps_per_second": rate, "memory_mib": memory[0]}


@contextmanager
def _compiling() -> Iterator[list[int]]:
    """How many kernels were compiled meanwhile."""
    found, before = [0], n_compiled()
    yield found
    found[0] = n_compiled() - before


@contextmanager
def _memory() -> Iterator[list[float | None]]:
    """Most memory of the card that was in use meanwhile, beyond what was before, in MiB; None without one."""
    if not torch.cuda.is_available():
        yield [None]
        return
    before = torch.cuda.mem_get_info()[0]
    found: list[float | None] = [None]
    done = threading.Event()

    def watch() -> None:
        most = 0.0
        while not done.wait(0.1):
            most = max(most, (before - torch.cuda.mem_get_info()[0]) / 2**20)
            found[0] = most

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
