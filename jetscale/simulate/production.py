"""Run chunks in worker processes and join finished chunks into files."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from filelock import FileLock, Timeout

from jetscale.common.orphans import die_with_parent
from jetscale.common.usage import UsageError
from jetscale.jets.stores.workers import end
from jetscale.simulate.chunk import Chunk, Effort, simulate_chunk
from jetscale.simulate.output_files import PARTS, Target, assemble, is_finished, refuse_other_physics
from jetscale.simulate.parts import has_part, write_part
from jetscale.simulate.progress import Progress
from jetscale.simulate.pythia import is_whole, save_mpi_table

QUEUED = 3
"""Chunks in the queue for each worker."""


def make_chunk(target: Target, chunk: Chunk) -> Effort:
    """Simulate a chunk and save it.

    Parameters
    ----------
    target : the file that it belongs to
    chunk : which of its chunks

    Returns
    -------
    The cost.

    Raises
    ------
    RuntimeError
        The simulation failed; the message names file, chunk and seed.
    """
    try:
        jets, effort = simulate_chunk(chunk, target.mpi_table)
    except Exception as error:
        raise RuntimeError(f"{target.path.name}, chunk {chunk.index}, seed {chunk.seed}: {error}") from error
    write_part(target.part(chunk), jets)
    return effort


def simulate(targets: list[Target], workers: int, out: Path) -> list[Target]:
    """Make the files that are missing.

    Parameters
    ----------
    targets : files to make; finished ones are kept
    workers : number of processes; 1 simulates in this process
    out : data directory

    Returns
    -------
    The files that were made.

    Raises
    ------
    UsageError
        There is a file of another origin, of another version of the simulator, or with other multiparton
        interactions, or another simulation is writing to `out`.
    RuntimeError
        A chunk failed; finished chunks and files stay.
    """
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    with _alone(out):
        missing = [target for target in targets if not is_finished(target)]
        for target in {target.file.dataset: target for target in targets}.values():
            refuse_other_physics(target)
        todo = [(t, chunk) for t in missing for chunk in t.chunks() if not has_part(t.part(chunk))]
        waiting = {id(t): sum(1 for other, _ in todo if other is t) for t in missing}
        for table in {target.mpi_table for target, _ in todo} - {None}:
            if table and not (table.exists() and is_whole(table)):
                save_mpi_table(table)
        for target in missing:
            if not waiting[id(target)]:
                assemble(target)
        with Progress(sum(chunk.jets for _, chunk in todo), workers) as progress:
            for target, effort in _efforts(todo, workers):
                progress.advance(effort)
                waiting[id(target)] -= 1
                if not waiting[id(target)]:
                    assemble(target)
    return missing


def _efforts(todo: list[tuple[Target, Chunk]], workers: int) -> Iterator[tuple[Target, Effort]]:
    """Run chunks in this process or in worker processes, and yield their cost as they finish."""
    if workers == 1:
        for target, chunk in todo:
            yield target, make_chunk(target, chunk)
        return
    context = get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, max(len(todo), 1)), mp_context=context, initializer=die_with_parent
    )
    running: dict[Future[Effort], Target] = {}
    remaining = iter(todo)
    try:
        while True:
            while len(running) < QUEUED * workers and (item := next(remaining, None)):
                running[pool.submit(make_chunk, *item)] = item[0]
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        end(pool)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    lock = FileLock(out / PARTS / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"another simulation is writing to {out}; wait for it or choose another out="
        ) from error
    try:
        yield
    finally:
        lock.release()
