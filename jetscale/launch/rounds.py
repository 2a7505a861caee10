"""Run a sweep to its end: skip finished runs, wait for runs of other processes, go on after a crash.

A launcher starts jobs. This module decides which jobs it starts, and when it is called again. Any number of
drivers may work on one sweep.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus

from jetscale.common.usage import UsageError
from jetscale.launch.jobs import Job
from jetscale.launch.launchers import Launch
from jetscale.runs.directory import RunBusy

CRASHES = 3
"""The sweep gives up after so many crashes of the launcher in a row without one more finished run."""
POLL_SECONDS = 5.0

log = logging.getLogger(__name__)


class SweepStopped(RuntimeError):
    """The launcher crashed again and again; finished runs stay finished."""


def carry_through(jobs: Sequence[Job], first: int, launch: Launch) -> list[JobReturn]:
    """Launch all jobs that are not finished, until each is finished or has failed.

    Parameters
    ----------
    jobs : jobs of the sweep, checked
    first : number of the first job, for the launcher's log
    launch : starts jobs and returns a result for each; it is called again where it raises or jobs are left

    Returns
    -------
    One result a job, in the order of `jobs`. A failed job's result holds its error.

    Raises
    ------
    SweepStopped
        The launcher crashed `CRASHES` times in a row (a worker process killed, out of memory) without
        progress.
    RunDirectoryError
        A directory holds a finished run with other settings.
    UsageError
        The launcher cannot work as it is set.
    """
    results: dict[int, JobReturn] = {}
    crashes = 0
    while True:
        for number, job in enumerate(jobs):
            if number not in results and (done := job.directory.done()) is not None:
                results[number] = _finished(job, done.final_losses["raw"])
        waiting = [number for number in range(len(jobs)) if number not in results]
        if not waiting:
            return [results[number] for number in range(len(jobs))]
        free = [number for number in waiting if jobs[number].is_free()]
        if not free:
            log.info("%d runs are being run by other processes; waiting for them", len(waiting))
            _until_one_is_left([jobs[number] for number in waiting])
            continue
        if results:
            log.info("%d of %d runs are done, starting %d", len(results), len(jobs), len(free))
        try:
            returned = launch([jobs[number].overrides for number in free], first)
        except UsageError:
            raise  # the same next time
        except Exception as error:  # launchers fail each in their own way
            crashes = 0 if any(jobs[number].directory.done() for number in free) else crashes + 1
            if crashes == CRASHES:
                raise SweepStopped(
                    f"the launcher failed {CRASHES} times without finishing a run, "
                    f"last with {type(error).__name__}: {error}; {len(waiting)} runs are left: run the "
                    "same command again, with fewer jobs at once if memory was short"
                ) from error
            log.warning("the launcher failed (%s: %s); going on", type(error).__name__, error)
            continue
        results |= {
            number: result for number, result in zip(free, returned, strict=True) if not _was_busy(result)
        }


def _finished(job: Job, loss: float) -> JobReturn:
    result = JobReturn(overrides=list(job.overrides), status=JobStatus.COMPLETED)
    result.return_value = loss
    return result


def _was_busy(result: JobReturn) -> bool:
    return result.status == JobStatus.FAILED and isinstance(result._return_value, RunBusy)


def _until_one_is_left(jobs: Sequence[Job]) -> None:
    while not any(job.is_free() for job in jobs):
        time.sleep(POLL_SECONDS)
