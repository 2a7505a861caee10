from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from jetscale.common.config_safety import CONF
from jetscale.launch.hydra_setup import register
from jetscale.launch.jobs import Job
from jetscale.launch.sweep_plan import plan_sweep
from jetscale.training.settings import from_config
from tests.runs import run_record


def jobs_of(root: Path, *grid: tuple[str, ...]) -> list[Job]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return [
            Job(overrides, from_config(compose("train", list(overrides))), root / str(number))
            for number, overrides in enumerate(grid)
        ]


def test_numbers_of_the_paper(tmp_path):
    jobs = jobs_of(tmp_path, *(("+experiment=bsm_all", "model.dim=512", f"seed={s}") for s in (0, 1)))
    plan = plan_sweep(jobs)
    assert [phase.name for phase in plan.phases] == ["pretrain", "pretrain", "finetune", "finetune"]
    finetune = plan.phases[-1]
    assert finetune.jets == 76_800_000
    assert finetune.flops == pytest.approx(6 * 10_505_226 * 40 * 76.8e6)
    assert finetune.steps == 600_000
    # 19.6 % as many test jets as training jets (docs/training.md), forward only
    assert finetune.step_equivalents / finetune.steps == pytest.approx(1 + 0.196 / 3, rel=0.01)


def test_a_shared_pretraining_counts_once(tmp_path):
    common = ("+experiment=qcd", "model.dim=8", "pretrain.seed=0")
    plan = plan_sweep(jobs_of(tmp_path, *((*common, f"seed={seed}") for seed in range(3))))
    assert [phase.name for phase in plan.phases].count("pretrain") == 1
    assert len({run.backbone for run in plan.runs}) == 1


def test_caps_and_what_is_done(tmp_path):
    jobs = jobs_of(tmp_path, *(("budget=laptop", f"model.dim={dim}") for dim in (8, 64)))
    small, large = (run.finetune for run in plan_sweep(jobs).runs)
    assert small.steps == 14_375
    assert large.steps < small.steps
    assert large.flops <= 1.2e12
    with jobs[1].directory.claim():
        jobs[1].directory.finish(run_record())
    assert [run.job for run in plan_sweep(jobs).to_do.runs] == [jobs[0]]


def test_plan_json_of_two_grids_of_one_study(tmp_path):
    first = jobs_of(tmp_path, ("budget=smoke", "seed=0"), ("budget=smoke", "seed=1"))
    plan_sweep(first).write(tmp_path)
    second = jobs_of(tmp_path, ("budget=smoke", "seed=0"), ("budget=smoke", "+experiment=qcd", "seed=7"))
    plan_sweep(second).write(tmp_path)
    entries = json.loads((tmp_path / "plan.json").read_text())["runs"]
    assert [(entry["directory"], entry["subset"], entry["seed"]) for entry in entries] == [
        ("0", "scratch", 0), ("1", "qcd", 7),
    ]  # fmt: skip
    assert entries[1]["steps"] == {"pretrain": 6, "finetune": 10}
    assert entries[1]["jets"] == 16 * 16


def test_times_are_measured_once_a_width(tmp_path):
    grid = [
        ("budget=smoke", "+experiment=qcd", f"model.dim={dim}", f"seed={s}")
        for dim in (8, 16)
        for s in (0, 1)
    ]
    told = []
    plan = plan_sweep(jobs_of(tmp_path, *grid), lambda done, of: told.append((done, of)))
    assert len(plan.step_seconds) == 2
    assert told[-1] == (2, 2)
    assert plan.seconds(plan.phases) > 0
