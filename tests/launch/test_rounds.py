"""Which jobs are launched, and when again: launchers are functions here, directories and locks are real."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.utils import JobReturn, JobStatus

from jetscale.common.config_safety import CONF
from jetscale.common.usage import UsageError
from jetscale.launch import rounds
from jetscale.launch.hydra_setup import register
from jetscale.launch.jobs import Job, read_jobs, write_jobs
from jetscale.launch.rounds import SweepStopped, carry_through
from jetscale.launch.worker import work
from jetscale.runs.directory import RunBusy, RunDirectoryError
from jetscale.runs.record import FinalLoss
from jetscale.training.settings import from_config
from tests.runs import run_record


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return [
            Job(
                (f"seed={seed}",),
                from_config(compose("train", ["budget=smoke", f"seed={seed}"])),
                tmp_path / str(seed),
            )
            for seed in range(4)
        ]


def finish(job: Job, loss: float = 1.0) -> JobReturn:
    with job.directory.claim():
        job.directory.finish(run_record(final={"raw": FinalLoss(loss=loss, accuracy=None, jets=1)}))
    return result(job, JobStatus.COMPLETED, loss)


def result(job: Job, status: JobStatus, value: object) -> JobReturn:
    made = JobReturn(overrides=list(job.overrides), status=status)
    made.return_value = value
    return made


class Launcher:
    """Does `act` with each job it is given, and remembers which those were."""

    def __init__(self, jobs: list[Job], act) -> None:
        self.by_overrides = {job.overrides: job for job in jobs}
        self.act = act
        self.launched: list[list[str]] = []

    def __call__(self, batch: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        self.launched.append([overrides[0] for overrides in batch])
        return [self.act(self.by_overrides[tuple(overrides)], len(self.launched)) for overrides in batch]


def test_what_is_done_is_not_launched(jobs):
    finish(jobs[1], 2.5)
    launcher = Launcher(jobs, lambda job, _: finish(job))
    returned = carry_through(jobs, 0, launcher)
    assert launcher.launched == [["seed=0", "seed=2", "seed=3"]]
    assert [one.return_value for one in returned] == [1.0, 2.5, 1.0, 1.0]


def test_done_with_other_settings_stops_before_anything_starts(jobs):
    finish(jobs[0])
    (jobs[2].path).mkdir()
    (jobs[0].path / "done.json").rename(jobs[2].path / "done.json")
    launcher = Launcher(jobs, lambda job, _: finish(job))
    with pytest.raises(RunDirectoryError, match="other settings"):
        carry_through(jobs, 0, launcher)
    assert launcher.launched == []


def test_a_failed_run_is_not_tried_again_in_the_same_sweep(jobs):
    def act(job: Job, _: int) -> JobReturn:
        return result(job, JobStatus.FAILED, ValueError("bad")) if job is jobs[2] else finish(job)

    launcher = Launcher(jobs, act)
    returned = carry_through(jobs, 0, launcher)
    assert len(launcher.launched) == 1
    assert [one.status for one in returned].count(JobStatus.FAILED) == 1


def test_what_another_process_runs_is_waited_for(jobs, monkeypatch):
    monkeypatch.setattr(rounds, "POLL_SECONDS", 0.05)
    holder = (
        "import sys; from pathlib import Path; from jetscale.runs.ownership import owning\n"
        "Path(sys.argv[1]).mkdir()\n"
        "with owning(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, jobs[0].path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"

        def act(job: Job, round_number: int) -> JobReturn:
            if job is jobs[3] and round_number == 1:  # somebody took it after we looked
                return result(job, JobStatus.FAILED, RunBusy("held"))
            if job is jobs[3]:
                other.kill()  # the owner of the first dies
            return finish(job)

        launcher = Launcher(jobs, act)
        returned = carry_through(jobs, 0, launcher)
    assert launcher.launched == [["seed=1", "seed=2", "seed=3"], ["seed=3"], ["seed=0"]]
    assert all(one.status == JobStatus.COMPLETED for one in returned)


def test_a_launcher_that_crashes_goes_on_with_the_rest(jobs, caplog):
    caplog.set_level(logging.WARNING)

    def act(job: Job, round_number: int) -> JobReturn:
        if round_number < 3 and job is jobs[round_number]:
            raise BrokenPipeError("a worker was killed")
        return finish(job)

    launcher = Launcher(jobs, act)
    carry_through(jobs, 0, launcher)
    assert launcher.launched == [
        ["seed=0", "seed=1", "seed=2", "seed=3"], ["seed=1", "seed=2", "seed=3"], ["seed=2", "seed=3"],
    ]  # fmt: skip
    assert caplog.text.count("a worker was killed") == 2


def test_a_launcher_that_only_crashes_is_given_up(jobs):
    def act(job: Job, _: int) -> JobReturn:
        raise MemoryError("no memory")

    launcher = Launcher(jobs, act)
    with pytest.raises(SweepStopped, match=r"3 times .*no memory.*4 runs are left.*same command"):
        carry_through(jobs, 0, launcher)
    assert len(launcher.launched) == 3


def test_jobs_survive_a_file(jobs, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2hunter2")  # given so, it is in no setting
    write_jobs(tmp_path / "jobs.json", jobs)
    assert read_jobs(tmp_path / "jobs.json") == jobs


def test_jobs_whose_settings_hold_a_password_are_refused_before_they_are_written(jobs, tmp_path):
    """Masked, they would be other runs; an experiment's file may hold what the command line may not."""
    secret = replace(jobs[1].settings.data, dir="s3://AKIA:hunter2@bucket/jets")
    jobs[1] = replace(jobs[1], settings=replace(jobs[1].settings, data=secret))
    with pytest.raises(UsageError, match=rf"data.dir of {jobs[1].path} holds a password") as refused:
        write_jobs(tmp_path / "jobs.json", jobs)
    assert "hunter2" not in str(refused.value)
    assert not (tmp_path / "jobs.json").exists()


def test_a_worker_leaves_no_password_in_its_log(jobs, tmp_path):
    """The traceback of a run that fails names its data; the worker goes on with the next run."""
    secret = replace(jobs[0].settings.data, dir="s3://AKIA:hunter2@bucket/jets")
    failing = replace(jobs[0], settings=replace(jobs[0].settings, data=secret))
    work([failing])
    log = (failing.path / "train.log").read_text()
    assert "Traceback" in log
    assert "bucket" in log
    assert "hunter2" not in log
