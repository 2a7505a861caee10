"""A sweep on a real Slurm (one node, `tests/slurm/cluster.sh`), through all that happens to jobs there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pyarrow.parquet as pq
import pytest

from jetscale.runs.ownership import read_owner
from tests.runs import TINY, metrics_of, quiet_environment, runs_under
from tests.warm import WarmProcess, WarmServer

Value = TypeVar("Value")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]  # they share two cores

SWEEP = (
    *TINY, "pretrain.steps=150", "finetune.steps=600", "checkpoint_every=50", "eval.every=100",
    "data.repeat=true", "+experiment=scratch,bsm_all", "-m", "seed=0,1",
)  # fmt: skip
SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.partition=low", "hydra.launcher.runs_per_job=2",
    "hydra.launcher.parallel=2", "hydra.launcher.cpus_per_task=2", "hydra.launcher.timeout_min=10",
    "hydra.launcher.signal_delay_s=30",
)  # fmt: skip
ASKED = "asked to stop, checkpoint of step"


@pytest.fixture
def cluster(
    slurm: SimpleNamespace, warm: WarmServer, tmp_path: Path, simulated_data: Path
) -> Iterator[SimpleNamespace]:
    """Commands on the cluster, in an empty folder; jobs that are left are cancelled."""
    environment = {**quiet_environment(), **slurm.environment}

    def ask(*command: str) -> str:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        ).stdout

    drivers: list[WarmProcess] = []

    def driver(*arguments: str) -> WarmProcess:
        words = [f"data.dir={simulated_data}", *arguments]
        drivers.append(warm.start("jetscale.train", words, tmp_path, environment))
        return drivers[-1]

    def log() -> str:
        return "".join(one.printed(stream) for one in drivers for stream in ("stdout", "stderr"))

    yield SimpleNamespace(ask=ask, driver=driver, log=log, root=tmp_path)
    for process in drivers:
        process.kill()
        process.wait()
    ask("scancel", "--user=root")
    until(lambda: not ask("squeue", "--noheader"), "the queue to be empty")


def until(holds: Callable[[], Value], what: str, seconds: float = 180.0) -> Value:
    """What `holds` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)
    return value


def jobs_of(cluster: SimpleNamespace) -> dict[str, str]:
    """State by job id."""
    return dict(line.split() for line in cluster.ask("squeue", "-h", "-r", "-o", "%i %T").splitlines())


def packs_running(cluster: SimpleNamespace) -> list[str]:
    """Jobs of the sweep's array that run."""
    return [job for job, state in jobs_of(cluster).items() if state == "RUNNING" and "_" in job]


def under_way(cluster: SimpleNamespace) -> dict[Path, int]:
    """Runs that have written metrics and that a process works on; its id."""
    logs = (cluster.root / "multirun/smoke").rglob("metrics.jsonl")
    runs = [log.parent for log in logs if log.stat().st_size]
    owners = {run: owner["pid"] for run in runs if (owner := read_owner(run)) is not None}
    return {run: process for run, process in owners.items() if is_alive(process)}


def is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def stopped(cluster: SimpleNamespace, at_least: int) -> dict[Path, int]:
    """Stop the processes of all runs that are under way: what is to happen to them comes before their end.

    Nothing until they are so many. Runs that are done before they can be stopped, on too fast a machine, are
    not under way, so that a test waits in vain for them.
    """
    for process in under_way(cluster).values():
        os.kill(process, signal.SIGSTOP)
    runs = under_way(cluster)
    return runs if len(runs) >= at_least else {}


def results(root: Path) -> dict[str, object]:
    """All that a sweep leaves that must not depend on what happened on the way."""
    return {
        str(run.relative_to(root)): (
            metrics_of(run),
            pq.read_table(run / "test_blocks.parquet").to_pydict(),
            json.loads((run / "done.json").read_text())["final"],
        )
        for run in runs_under(root)
    }


def test_preempted_killed_cancelled_and_started_again_the_sweep_ends_the_same(
    cluster: SimpleNamespace, train: Callable[..., object], tmp_path: Path
) -> None:
    # the backbones of one sweep must not serve the other
    train(*SWEEP, "study=smoke", "pretrain.library=undisturbed_backbones")
    undisturbed = results(tmp_path)
    assert len(undisturbed) == 4
    (tmp_path / "multirun").rename(tmp_path / "undisturbed")

    driver = cluster.driver(*SWEEP, *SLURM)

    # a worker process dies
    victim, *_ = until(lambda: stopped(cluster, 1), "a run to begin").values()
    os.kill(victim, signal.SIGKILL)
    until(lambda: not is_alive(victim), "the worker to be missed")

    # a job that may preempt takes the node: the running one is stopped, with a checkpoint, and queued again
    both = until(lambda: stopped(cluster, 2), "two runs side by side")
    (running,) = (job for job, state in jobs_of(cluster).items() if state == "RUNNING")
    cluster.ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    until(lambda: jobs_of(cluster).get(running) == "PENDING", "the preempted job to be queued again")
    # Slurm lets stopped processes continue; a run that goes on after a kill may not train yet
    assert any(ASKED in (run / "train.log").read_text() for run in both)

    # the driver dies; the jobs go on
    driver.kill()
    driver.wait()
    until(lambda: packs_running(cluster), "a job to go on without its driver")

    # a job is cancelled by its user
    cluster.ask("scancel", packs_running(cluster)[0])

    # a second driver finds what is left in the queue, submits the rest, and no run is done twice
    submitted = len(list((tmp_path / "multirun/smoke/.slurm").glob("*.submitted.json")))
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "multirun/smoke").rglob("done.json")}
    for _ in range(2):
        driver = cluster.driver(*SWEEP, *SLURM)
        driver.wait(timeout=300)
        if driver.returncode == 0:
            break  # else the cancelled job was still in the queue when it started
    assert driver.returncode == 0, cluster.log()
    assert len(list((tmp_path / "multirun/smoke/.slurm").glob("*.submitted.json"))) <= submitted + 1
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert results(tmp_path) == undisturbed
    log = cluster.log()
    assert "4 runs: 4 done" in log


def test_runs_longer_than_the_time_limit_are_chained(
    cluster: SimpleNamespace, train: Callable[..., object], tmp_path: Path
) -> None:
    long = (*TINY, "finetune.steps=2000", "eval.every=500", "checkpoint_every=1000", "data.repeat=true")
    train(*long, "-m", "seed=0")
    undisturbed = results(tmp_path)
    (tmp_path / "multirun").rename(tmp_path / "undisturbed")
    alone = ("hydra.launcher.runs_per_job=1", "hydra.launcher.parallel=1")
    driver = cluster.driver(*long, "-m", "seed=0", *SLURM, *alone)

    # the time limit comes near when the run is under way, however long that took, and finds it unfinished
    ((run, process),) = until(lambda: stopped(cluster, 1), "the run to begin").items()
    (job,) = jobs_of(cluster)
    # Slurm looks every 30 s: it warns at least 30 s (signal_delay_s) before the end. What it warns continues
    cluster.ask("scontrol", "update", f"JobId={job}", "EndTime=now+60")
    until(lambda: not is_alive(process), "the warning before the time limit")
    cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=10")  # again, for the rest of the run

    assert driver.wait(timeout=200) == 0, cluster.log()
    assert ASKED in (run / "train.log").read_text()
    assert runs_under(tmp_path) == [run]
    assert results(tmp_path) == undisturbed


def test_a_run_of_two_ranks_gives_the_losses_of_one(
    cluster: SimpleNamespace, train: Callable[..., object], tmp_path: Path
) -> None:
    train(*TINY, "-m", "seed=0")
    (one,) = runs_under(tmp_path)
    alone = metrics_of(one)
    (tmp_path / "multirun").rename(tmp_path / "alone")
    ranks = (
        "device.devices=2", "device.accelerator=cpu", "hydra.launcher.tasks_per_node=2",
        "hydra.launcher.cpus_per_task=1", "hydra.launcher.runs_per_job=1", "hydra.launcher.parallel=1",
    )  # fmt: skip
    driver = cluster.driver(*TINY, "-m", "seed=0", *SLURM, *ranks)
    assert driver.wait(timeout=200) == 0, cluster.log()
    (two,) = runs_under(tmp_path)
    for ours, theirs in zip(metrics_of(two), alone, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-4)


def test_what_slurm_refuses_is_told(cluster: SimpleNamespace, tmp_path: Path) -> None:
    driver = cluster.driver(*TINY, "-m", "seed=0", *SLURM, "hydra.launcher.partition=nowhere")
    assert driver.wait(timeout=60) == 1
    log = cluster.log()
    assert "Slurm took no job" in log
    assert "nowhere" in log
