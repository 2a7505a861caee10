"""Sweeps, as a user starts them."""

from __future__ import annotations

import json

import pytest

from tests.runs import TINY


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
    runs = tmp_path / "multirun/smoke/scratch/dim=8/seed=0"
    assert "NonFiniteLoss" in (runs / "finetune.lr=1e+30" / "failed.log").read_text() if (
        runs / "finetune.lr=1e+30"
    ).exists() else "NonFiniteLoss" in (runs / "finetune.lr=1e30" / "failed.log").read_text()
    assert (runs / "finetune.lr=1e-3" / "done.json").exists()
    assert "2 runs, 1 failed" in done.stderr


@pytest.mark.slow
def test_joblib_runs_the_same_sweep(train, tmp_path):
    train(*TINY, "-m", "seed=0,1")
    train(*TINY, "-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "study=parallel")
    for seed in (0, 1):
        final = [
            json.loads((tmp_path / f"multirun/{study}/scratch/dim=8/seed={seed}/done.json").read_text())["final"]
            for study in ("smoke", "parallel")
        ]
        assert final[0] == final[1]
