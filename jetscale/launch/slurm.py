"""Packs of runs as arrays of Slurm jobs, through submitit.

Every array is recorded in ``<sweep>/.slurm``, so that a driver that starts again, or a second driver, finds
in the queue what the first has submitted. The driver only submits and watches: jobs continue without it.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
from hydra.core.utils import JobReturn, JobStatus

from jetscale.common.usage import UsageError
from jetscale.launch.jobs import Job, write_jobs
from jetscale.launch.packs import Pack
from jetscale.launch.sweep_plan import plan_sweep
from jetscale.runs.directory import read_failure
from jetscale.runs.layout import DONE
from jetscale.runs.sealed import read_json, write_json_sealed

UNSET = ("SET_ME", "???")
"""Values that a user has to replace. ``???`` alone will not do: a file with it takes the ``null`` of the file
that it extends."""
POLL_SECONDS = 5.0
_LINE_SECONDS = 60.0
_GRACE_SHARE = 0.8

log = logging.getLogger(__name__)


class RunUnfinished(RuntimeError):
    """The job of a run left the queue before the run was finished: cancelled, killed, out of time."""


class Queue:
    """The part of Slurm's queue that belongs to one sweep.

    Parameters
    ----------
    sweep : folder of the sweep
    runs_per_job : runs that one job works through
    parallel : how many of these run at the same time, on the node or GPU of the job; 1 where a run takes
        several devices
    wait : watch until all is finished; else submit and return
    array_parallelism : jobs of one array that run at once
    signal_delay_s : seconds before a time limit at which runs checkpoint and their job is requeued
    max_num_timeout : times that a job may be requeued at its time limit
    sbatch : everything else goes to `submitit.AutoExecutor.update_parameters` (Slurm's own names: partition,
        qos, account, constraint, time in minutes as timeout_min, cpus_per_task, gpus_per_node,
        additional_parameters, ...)
    """

    def __init__(
        self,
        sweep: Path,
        *,
        runs_per_job: int,
        parallel: int,
        wait: bool,
        array_parallelism: int,
        signal_delay_s: int,
        max_num_timeout: int,
        **sbatch: Any,
    ) -> None:
        if runs_per_job < 1 or not 1 <= parallel <= runs_per_job:
            raise UsageError(
                f"hydra.launcher.parallel={parallel}, runs_per_job={runs_per_job}: "
                "at least one run a job, and no more at once than there are"
            )
        missing = [name for name, value in sbatch.items() if value in UNSET]
        if missing:
            raise UsageError(
                f"hydra.launcher.{missing[0]} is not set: give it, hydra.launcher.{missing[0]}=..."
            )
        self._folder = sweep / ".slurm"
        self._runs_per_job = runs_per_job
        self._parallel = parallel
        self._wait = wait
        self._array_parallelism = array_parallelism
        self._signal_delay_s = signal_delay_s
        self._max_num_timeout = max_num_timeout
        self._sbatch = sbatch

    def run(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """Submit the jobs that are not in the queue already, and watch until none of them is left in it.

        Parameters
        ----------
        jobs : jobs that are neither done nor run by another process

        Returns
        -------
        One result a job, in the order of `jobs`.

        Raises
        ------
        UsageError
            Slurm refused the submission, or is not there.
        """
        if shutil.which("sbatch") is None:
            raise UsageError(
                "there is no Slurm here (no sbatch); start from a login node of a cluster that has it, or "
                "take hydra/launcher=joblib for this machine"
            )
        self._check_devices(jobs)
        queued = self._queued_paths()
        new = [job for job in jobs if str(job.path) not in queued]
        if len(new) < len(jobs):
            log.info("%d of %d runs are in the queue already", len(jobs) - len(new), len(jobs))
        if new:
            self._submit(new)
        if not self._wait:
            return [_result(job, JobStatus.COMPLETED, None) for job in jobs]
        try:
            self._watch(jobs)
        except KeyboardInterrupt:
            log.info("the jobs continue; run the same command again to watch, scancel them to stop")
            raise
        return [_outcome(job) for job in jobs]

    def _check_devices(self, jobs: Sequence[Job]) -> None:
        tasks = int(self._sbatch.get("tasks_per_node") or 1) * int(self._sbatch.get("nodes") or 1)
        for job in jobs:
            devices = job.settings.device.devices * job.settings.device.num_nodes
            if devices != tasks or (devices > 1 and self._parallel > 1):
                raise UsageError(
                    f"device.devices x device.num_nodes = {devices} of {job.path}, with "
                    f"tasks_per_node x nodes = {tasks} and parallel={self._parallel}: a run takes one task a "
                    "device; set hydra.launcher.tasks_per_node, nodes and (for several devices) parallel=1"
                )

    def _submit(self, jobs: Sequence[Job]) -> None:
        """Submit one array whose tasks are packs: expensive runs first, runs of similar cost together."""
        cost = {run.job.path: run.finetune.flops for run in plan_sweep(jobs).runs}
        ordered = sorted(jobs, key=lambda job: -cost[job.path])
        packs = [ordered[at : at + self._runs_per_job] for at in range(0, len(ordered), self._runs_per_job)]
        executor = submitit.AutoExecutor(
            folder=self._folder / "%j", cluster="slurm", slurm_max_num_timeout=self._max_num_timeout
        )
        executor.update_parameters(
            slurm_array_parallelism=self._array_parallelism,
            slurm_signal_delay_s=self._signal_delay_s,
            **{_submitit_name(name): value for name, value in self._sbatch.items() if value is not None},
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        stamp = time.time_ns()
        calls = []
        for number, pack in enumerate(packs):
            file = (self._folder / f"{stamp}_{number}.jobs.json").resolve()
            write_jobs(file, pack)
            calls.append(Pack(file, self._parallel, _GRACE_SHARE * self._signal_delay_s))
        try:
            submitted = executor.submit_array(calls)
        except (submitit.core.utils.FailedJobError, OSError) as error:
            raise UsageError(f"Slurm took no job: {' '.join(str(error).split())}") from error
        note = {
            job.job_id: [str(one.path) for one in pack] for job, pack in zip(submitted, packs, strict=True)
        }
        write_json_sealed(self._folder / f"{stamp}.submitted.json", note)
        log.info("submitted %d runs as %d jobs: %s", len(jobs), len(packs), ", ".join(note))

    def _queued_paths(self) -> set[str]:
        """Run directories of all recorded jobs that are pending or running."""
        if not self._folder.is_dir():
            return set()
        live = _live_jobs()
        return {
            path
            for file in self._folder.glob("*.submitted.json")
            for job, paths in read_json(file)[0].items()
            if job in live
            for path in paths
        }

    def _watch(self, jobs: Sequence[Job]) -> None:
        paths = {str(job.path) for job in jobs}
        said = time.monotonic()
        while queued := paths & self._queued_paths():
            done = sum((job.path / DONE).exists() for job in jobs)
            if done == len(jobs):
                return
            if time.monotonic() - said > _LINE_SECONDS:
                said = time.monotonic()
                log.info("%d of %d runs done, %d in the queue", done, len(jobs), len(queued))
            time.sleep(POLL_SECONDS)


def _live_jobs() -> set[str]:
    """Ids of the user's jobs in the queue, one for each task of an array (``12_0``)."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    for attempt in range(5):  # a busy controller refuses now and then
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError as error:
            raise UsageError("no squeue here: the launcher slurm is for a machine with Slurm") from error
        except subprocess.CalledProcessError as error:
            if attempt == 4:
                raise UsageError(f"squeue failed: {' '.join(error.stderr.split())}") from error
            time.sleep(POLL_SECONDS)
        else:
            return set(done.stdout.split())
    raise AssertionError


def _submitit_name(name: str) -> str:
    """Submitit's name of a parameter: ``slurm_`` stands before the names that only Slurm has."""
    common = {
        "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name",
        "stderr_to_stdout",
    }  # fmt: skip
    return name if name in common else f"slurm_{name}"


def _outcome(job: Job) -> JobReturn:
    done = job.directory.done()
    if done is not None:
        return _result(job, JobStatus.COMPLETED, done.final_losses["raw"])
    if (failure := read_failure(job.path)) is not None:
        error = RuntimeError(f"{job.path}: {failure[0]}: {failure[1]}")
    else:
        error = RunUnfinished(
            f"{job.path}: its job left the queue before the run was finished (cancelled, killed, or out of "
            "time too often); run the same command again to go on"
        )
    return _result(job, JobStatus.FAILED, error)


def _result(job: Job, status: JobStatus, value: Any) -> JobReturn:
    result = JobReturn(overrides=list(job.overrides), status=status)
    result.return_value = value
    return result
