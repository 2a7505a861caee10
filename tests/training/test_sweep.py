"""Sweeps, as a user starts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import TINY, metrics_of, quiet_environment, runs_under

TOY_LAB = Path(__file__).parents[1] / "plugin/toy_lab"
CALLBACK = "callbacks.norms={_target_: toy_lab.callback.GradientNorm, every: 10}"


@pytest.mark.slow
def test_the_literal_line_of_the_readme(train, tmp_path):
    line = "+experiment=bsm_all model.dim=256 -m seed=0,1,2,3,4 budget=smoke tracking.wandb=disabled"
    first = train(*line.split())
    runs = sorted((tmp_path / "multirun/smoke/bsm_all/dim=256").iterdir())
    assert [run.name for run in runs] == [f"seed={seed}" for seed in range(5)]
    losses = [json.loads((run / "done.json").read_text())["final"]["raw"]["loss"] for run in runs]
    assert len(set(losses)) == 5
    assert "5 runs: 5 done" in first.stderr
    written = {run: (run / "done.json").stat().st_mtime_ns for run in runs}
    train(*line.split())  # finished runs are skipped
    assert {run: (run / "done.json").stat().st_mtime_ns for run in runs} == written


@pytest.mark.slow
def test_a_failing_run_does_not_stop_the_rest(train, tmp_path):
    done = train(*TINY, "-m", "finetune.lr=1e30,1e-3", check=False)
    assert done.returncode == 1
    bad, good = sorted(runs_under(tmp_path), key=lambda run: (run / "done.json").exists())
    assert "NonFiniteLoss" in (bad / "failed.log").read_text()
    assert (good / "done.json").exists()
    assert "2 runs: 1 done, 1 failed" in done.stderr


@pytest.mark.slow
def test_joblib_runs_the_same_sweep_and_its_workers_trust_what_the_command_trusts(train, tmp_path):
    (tmp_path / "toy_lab").symlink_to(TOY_LAB)
    (tmp_path / "noted.py").write_text("import os\nopen(f'{os.getpid()}.noted', 'w').close()\n")
    train(*TINY, "-m", "seed=0,1")
    one_process = [metrics_of(run) for run in runs_under(tmp_path)]
    (tmp_path / "multirun").rename(tmp_path / "kept")
    trusted = ("--trust", "toy_lab.callback", "--trust", "noted", CALLBACK)
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    train(*TINY, *trusted, "-m", "seed=0,1", "data.workers=1", *joblib)
    runs = runs_under(tmp_path)
    assert all(run.name.startswith("callbacks.norms=") for run in runs), "its folder names the callback"
    assert [metrics_of(run) for run in runs] == one_process
    steps = [list(json.loads((run / "gradient_norm.json").read_text())) for run in runs]
    assert steps == [["0", "10", "20", "30"]] * 2
    assert len(list(tmp_path.glob("*.noted"))) == 3  # the driver and its two workers


@pytest.mark.slow
def test_two_drivers_share_a_sweep(warm, tmp_path, simulated_data):
    """Started at the same time, they run each seed once, pretrain once, and both end well."""
    words = (f"data.dir={simulated_data}", *TINY, "+experiment=qcd", "pretrain.seed=0", "-m", "seed=0,1,2,3")
    drivers = [warm.start("jetscale.train", words, tmp_path, quiet_environment()) for _ in range(2)]
    for driver in drivers:
        _, errors = driver.communicate(timeout=200)
        assert driver.returncode == 0, errors
    assert len(list((tmp_path / "multirun/backbones").glob("*-dim=*"))) == 1
    runs = runs_under(tmp_path)
    assert len(runs) == 4
    for run in runs:
        steps = [
            line["step"]
            for line in metrics_of(run)
            if line["split"] == "train" and line["phase"] == "finetune"
        ]
        assert steps == sorted(set(steps))


@pytest.mark.slow
def test_ray_runs_the_same_sweep(train, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="the extra `ray` is not installed")
    train(*TINY, "-m", "seed=0,1")
    one_process = [(run.parent.name, metrics_of(run)) for run in runs_under(tmp_path)]
    (tmp_path / "multirun").rename(tmp_path / "kept")
    train(*TINY, "-m", "seed=0,1", "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2")
    assert [(run.parent.name, metrics_of(run)) for run in runs_under(tmp_path)] == one_process


@pytest.mark.slow
def test_dry_prints_the_plan_and_starts_nothing(train, tmp_path):
    done = train(*TINY, "+experiment=scratch,qcd", "seed=0,1", "--dry")
    assert "4 runs, 0 done, 4 to do with 2 pretrainings" in done.stdout
    assert "FLOPs" in done.stdout
    assert not list(tmp_path.iterdir())
