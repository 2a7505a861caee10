"""Sweeps, as a user starts them."""

from __future__ import annotations

import json

import pytest

from tests.runs import TINY, metrics_of, runs_under


@pytest.mark.slow
def test_the_literal_line_of_the_readme(train, tmp_path):
    line = "+experiment=bsm_all model.dim=256 -m seed=0,1,2,3,4 budget=smoke tracking.wandb=disabled"
    first = train(*line.split())
    runs = sorted((tmp_path / "multirun/smoke/bsm_all/dim=256").iterdir())
    assert [run.name for run in runs] == [f"seed={seed}" for seed in range(5)]
    losses = [json.loads((run / "done.json").read_text())["final"]["raw"]["loss"] for run in runs]
    assert len(set(losses)) == 5
    assert "5 runs, 0 failed" in first.stderr
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
    assert "2 runs, 1 failed" in done.stderr


@pytest.mark.slow
def test_joblib_runs_the_same_sweep(train, tmp_path):
    train(*TINY, "-m", "seed=0,1")
    one_process = [(run.parent.name, metrics_of(run)) for run in runs_under(tmp_path)]
    (tmp_path / "multirun").rename(tmp_path / "kept")
    train(*TINY, "-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert [(run.parent.name, metrics_of(run)) for run in runs_under(tmp_path)] == one_process
