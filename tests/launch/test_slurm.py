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

import pyarrow.parquet as pq
import pytest

from tests.runs import TINY, metrics_of, quiet_environment, runs_under
from tests.warm import WarmProcess, WarmServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]  # they share two cores

SWEEP = (
    *TINY, "pretrain.steps=300", "finetune.steps=900", "checkpoint_every=50", "eval.every=100",
    "data.repeat=true", "+experiment=scratch,bsm_all", "-m", "seed=0,1,2",
)  # fmt: skip
SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.partition=low", "hydra.launcher.runs_per_job=2",
    "hydra.launcher.parallel=2", "hydra.launcher.cpus_per_task=2", "hydra.launcher.timeout_min=10",
    "hydra.launcher.signal_delay_s=30",
)  # fmt: skip


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


def until(holds: Callable[[], object], what: str, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


def jobs_of(cluster: SimpleNamespace) -> dict[str, str]:
    """State by job id."""
    return dict(line.split() for line in cluster.ask("squeue", "-h", "-r", "-o", "%i %T").splitlines())


def packs_running(cluster: SimpleNamespace) -> list[str]:
    """Jobs of the sweep's array that run."""
    return [job for job, state in jobs_of(cluster).items() if state == "RUNNING" and "_" in job]


def under_way(cluster: SimpleNamespace, at_least: int = 1) -> list[Path]:
    """Runs that have written metrics and are not done."""
    logs = (cluster.root / "multirun/smoke").rglob("metrics.jsonl")
    running = [log.parent for log in logs if not (log.parent / "done.json").exists()]
    return running if len(running) >= at_least else []


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
    assert len(undisturbed) == 6
    (tmp_path / "multirun").rename(tmp_path / "undisturbed")

    driver = cluster.driver(*SWEEP, *SLURM)
    until(lambda: under_way(cluster), "a run to begin")

    # a worker process dies
    victim = under_way(cluster)[0]
    os.kill(json.loads((victim / "owner.json").read_text())["pid"], signal.SIGKILL)

    # a job that may preempt takes the node: the running one is stopped, with a checkpoint, and queued again
    until(lambda: under_way(cluster, 2), "two runs side by side")
    (running,) = (job for job, state in jobs_of(cluster).items() if state == "RUNNING")
    cluster.ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    until(lambda: jobs_of(cluster).get(running) == "PENDING", "the preempted job to be queued again")

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
    assert "6 runs: 6 done" in log


def test_runs_longer_than_the_time_limit_are_chained(
    cluster: SimpleNamespace, train: Callable[..., object], tmp_path: Path
) -> None:
    long = (*TINY, "finetune.steps=10000", "eval.every=2500", "checkpoint_every=5000", "data.repeat=true")
    train(*long, "-m", "seed=0")
    undisturbed = results(tmp_path)
    (tmp_path / "multirun").rename(tmp_path / "undisturbed")
    limits = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=45")
    driver = cluster.driver(*long, "-m", "seed=0", *SLURM, "hydra.launcher.runs_per_job=1",
                            "hydra.launcher.parallel=1", *limits)  # fmt: skip
    driver.wait(timeout=500)
    assert driver.returncode == 0, cluster.log()
    (run,) = runs_under(tmp_path)
    assert "asked to stop, checkpoint of step" in (run / "train.log").read_text()
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
