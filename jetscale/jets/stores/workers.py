"""Run independent jobs in worker processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from jetscale.common.orphans import die_with_parent
from jetscale.common.trust import import_trusted
from jetscale.jets.errors import JetDataError

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_method_is_ours() -> bool:
    """Whether processes start here as Python says; inside a worker of joblib they do not."""
    known = (None, *multiprocessing.get_all_start_methods())
    return multiprocessing.get_start_method(allow_none=True) in known


def loader_context(workers: int) -> str | None:
    """Start method for the workers of a `DataLoader`: None takes Python's.

    joblib's start method, the default inside its workers, cannot start them ("no attribute 'env'"), and a
    process spawned from there does not know it; a fork needs neither.
    """
    return None if workers == 0 or start_method_is_ours() else "fork"


class Workers:
    """Up to `n_workers` processes, started when there is more than one job; a context manager.

    Inside a worker of joblib all jobs run in this process: joblib's start method is unknown to a process
    spawned from there, and its workers share the cores already.

    Parameters
    ----------
    n_workers : with 1 all jobs run in this process
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers if start_method_is_ours() else 1
        self._pool: ProcessPoolExecutor | None = None

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """Yield ``function(job)`` for all jobs as they finish.

        Parameters
        ----------
        function : of one job; must be importable by name
        jobs : in any order

        Raises
        ------
        JetDataError
            A worker process died (killed, out of memory).
        """
        if self.n_workers <= 1 or len(jobs) <= 1:
            yield from map(function, jobs)
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
            self._pool = ProcessPoolExecutor(self.n_workers, context, _start_worker)
        futures = [self._pool.submit(function, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise JetDataError(
                "a worker process died (killed, or out of memory); start again, finished files are kept, "
                "or use fewer workers"
            ) from error

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            end(self._pool)


def end(pool: ProcessPoolExecutor) -> None:
    """Kill the workers of a pool whose results are here, or not wanted, and leave no process behind.

    Not by a plain shutdown: a worker that is killed while it waits for work takes the queue's lock with it,
    the others wait for that lock, and shutdown for them, for ever.
    """
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Know the user's additions, end with the main process, and leave ctrl-C to it."""
    import_trusted()
    die_with_parent()
