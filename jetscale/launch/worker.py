"""``python -m jetscale.launch.worker JOBS``: work through a list of runs in this process.

Any number of workers may share a list: the lock of a run directory is the queue. A worker passes over a run
that is done, or that another process holds. Where a run fails, the worker leaves its traceback in the run's
directory and goes on with the next one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jetscale.common.masking import masked
from jetscale.common.trust import import_trusted
from jetscale.launch.hydra_setup import run_suffix
from jetscale.launch.jobs import Job, read_jobs
from jetscale.launch.single_run import run_told
from jetscale.runs.directory import RunBusy

log = logging.getLogger(__name__)


class MaskedFormatter(logging.Formatter):
    """A formatter whose lines, tracebacks included, show no password."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, masked."""
        return masked(super().format(record))


def work(jobs: list[Job]) -> None:
    """Run every job that is not done and that no other process holds."""
    for job in jobs:
        with _logged_to(job.path):
            try:
                run_told(job.settings, job.path, run_suffix(job.overrides))
            except RunBusy as busy:
                log.info("%s", busy)
            except Exception:
                log.exception("%s failed", job.path)


@contextmanager
def _logged_to(directory: Path) -> Iterator[None]:
    """Log to ``train.log`` of the run, as Hydra does in its jobs, besides stderr."""
    directory.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(directory / "train.log")
    handler.setFormatter(MaskedFormatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _main(jobs: Path) -> None:
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(MaskedFormatter("[%(asctime)s][%(levelname)s] - %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_stderr])
    import_trusted()
    work(read_jobs(jobs))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
