"""``python -m jetscale.launch.worker JOBS``: work through a list of runs in this process.

Any number of workers may share a list: the lock of a run directory is the queue. A run that is done, or that
somebody else is at, is passed over; one that fails leaves its traceback in its directory and the next begins.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from jetscale.common.trust import import_trusted
from jetscale.launch.hydra_setup import run_suffix
from jetscale.launch.jobs import Job, read_jobs
from jetscale.runs.directory import RunBusy
from jetscale.training.run import run

log = logging.getLogger(__name__)


def work(jobs: list[Job]) -> None:
    """Run every job that is neither done nor somebody else's."""
    for job in jobs:
        with _logging_to(job.path):
            try:
                run(job.settings, job.path, run_suffix(job.overrides))
            except RunBusy as busy:
                log.info("%s", busy)
            except Exception:
                log.exception("%s failed", job.path)


class _logging_to:  # noqa: N801 (a context manager, used like a function)
    """Log to ``train.log`` of the run, as Hydra does, and to stderr."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(directory / "train.log")
        self._handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self._handler)

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s][%(levelname)s] - %(message)s")
    import_trusted()  # what the user's command trusted registers here too
    work(read_jobs(Path(sys.argv[1])))
