"""Several runs in one Slurm job: worker processes share its node or GPU, and each takes the next free run.

Submitit calls the pack, and calls it again after a requeue. Workers are separate processes: a run that dies
takes no other run with it, and all runs of a worker share its imports.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from submitit.helpers import DelayedSubmission

from jetscale.common.trust import VARIABLE, trusted
from jetscale.training.preemption import EXIT_STATUS

_STOPPED = {EXIT_STATUS, -signal.SIGTERM, -signal.SIGUSR2}
"""Exit status of a worker that was asked to stop: after its checkpoint, or before it had begun a run."""
_DEATHS = 5
"""The pack gives up after so many deaths of its workers (killed, out of memory)."""
_POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


class PackStopped(RuntimeError):
    """The pack ends with runs left; finished runs stay, the others continue when the sweep restarts."""


@dataclass
class Pack:
    """A list of runs, and the number of processes that work through it.

    Attributes
    ----------
    jobs : file of `jetscale.launch.jobs.write_jobs`
    parallel : processes at the same time
    grace_seconds : time that a stopped worker has for its checkpoint
    trust : modules that the driver trusted (``--trust``); the workers import them too
    """

    jobs: Path
    parallel: int
    grace_seconds: float
    trust: list[str] = field(default_factory=trusted)
    _workers: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    def __call__(self) -> None:
        """Work until every run is done, has failed, or is held by another process.

        Raises
        ------
        PackStopped
            Workers were stopped from outside, or died too often.
        """
        self._workers = [self._start(slot) for slot in range(self.parallel)]
        deaths = 0
        while any(worker.poll() != 0 for worker in self._workers):
            time.sleep(_POLL_SECONDS)
            for slot, worker in enumerate(self._workers):
                status = worker.poll()
                if status in (None, 0):
                    continue
                if status in _STOPPED:
                    self.stop()
                    _requeue_unless_cancelled()
                    raise PackStopped("asked to stop (its job was cancelled); checkpoints are written")
                deaths += 1
                if deaths > _DEATHS:
                    self.stop()
                    raise PackStopped(f"workers died {deaths} times, the last with status {status}")
                log.warning("a worker died with status %d; another takes its place", status)
                self._workers[slot] = self._start(slot)

    def checkpoint(self) -> DelayedSubmission:
        """Stop the workers and return the pack; submitit calls this on its signal, and queues it again."""
        self.stop()
        return DelayedSubmission(Pack(self.jobs, self.parallel, self.grace_seconds, self.trust))

    def stop(self) -> None:
        """Have every worker write its checkpoint and end; kill those that take longer than the grace time."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.terminate()
        deadline = time.monotonic() + self.grace_seconds
        for worker in self._workers:
            try:
                worker.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def _start(self, slot: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "jetscale.launch.worker", str(self.jobs)]
        trusting = {VARIABLE: ",".join(self.trust)}  # also where a site's sbatch passes no environment on
        environment = {**os.environ, **_gpu_of(slot), **trusting, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment)


def _requeue_unless_cancelled() -> None:
    """Have submitit queue this job again, as it does on its signal; it does not where a job is preempted."""
    job = os.environ.get("SLURM_JOB_ID", "")
    asked = subprocess.run(
        ["squeue", f"--jobs={job}", "--noheader", "--format=%T"], capture_output=True, text=True, check=False
    )
    if asked.stdout.split() == ["RUNNING"]:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(_POLL_SECONDS)  # the handler ends this process


def _gpu_of(slot: int) -> dict[str, str]:
    """Environment that gives a worker one GPU; where there are more workers, several share a GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = [gpu for gpu in visible.split(",") if gpu]
    ranks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # several: one run over several devices
    return {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus and ranks == 1 else {}
