from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from jetscale.common.config_safety import CONF
from jetscale.launch import probe
from jetscale.launch.hydra_setup import register
from jetscale.launch.jobs import Job
from jetscale.launch.probe import Step
from jetscale.launch.sweep_plan import plan_sweep
from jetscale.model.transformer import SetTransformer
from jetscale.training.captured import choice
from jetscale.training.captured.plan import MOST_CONSTITUENTS
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


@pytest.fixture
def card(monkeypatch):
    """A card with which nothing is wrong."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(choice, "unusable", lambda model, precision, device: no_half(precision))


def no_half(precision):
    return None if precision == "bf16-mixed" else "the precision is not bf16-mixed"


EAGER = {
    "callbacks": "+callbacks.timer={_target_: lightning.pytorch.callbacks.DeviceStatsMonitor}",
    "precision": "device.precision=32-true",
    "two processes": "device.devices=2",
    "a large batch": "finetune.batch_size=1000000",
    "the CPU": "device.accelerator=cpu",
}


@pytest.mark.parametrize("override", EAGER.values(), ids=EAGER.keys())
def test_a_run_that_goes_step_by_step_is_measured_so(tmp_path, card, override):
    pytest.importorskip("triton", reason="the kernels need Triton")
    usual = ("budget=smoke", "model.dim=64", "finetune.batch_size=128")
    captured, eager = (run.finetune for run in plan_sweep(jobs_of(tmp_path, usual, (*usual, override))).runs)
    assert captured.step.captured
    assert not eager.step.captured
    assert captured.kind != eager.kind


def test_runs_that_differ_in_nothing_that_takes_time_are_measured_once(tmp_path, card):
    pytest.importorskip("triton", reason="the kernels need Triton")
    usual = ("budget=smoke", "model.dim=64")
    grid = ((*usual, "seed=1"), (*usual, "eval.batch_size=1000000"), (*usual, "finetune.lr=0.1"))
    assert len({run.finetune.kind for run in plan_sweep(jobs_of(tmp_path, usual, *grid)).runs}) == 1
    assert (
        len(
            {
                run.finetune.kind
                for run in plan_sweep(jobs_of(tmp_path, usual, (*usual, "device.threads=2"))).runs
            }
        )
        == 2
    )


def test_a_plan_says_what_of_several_processes_was_measured(tmp_path, card):
    alone, shared = ("budget=smoke",), ("budget=smoke", "device.devices=4", "device.num_nodes=2")
    plan = plan_sweep(jobs_of(tmp_path, alone))
    assert plan.device == "NVIDIA H200"
    plan = plan_sweep(jobs_of(tmp_path, alone, shared, ("budget=smoke", "device.accelerator=cpu")))
    assert plan.device == (
        "NVIDIA H200 and one CPU thread (where several processes share a run: one of them alone, with its "
        "part of a batch and without the exchange of gradients)"
    )
    whole, part, _ = (run.finetune for run in plan.runs)
    assert whole.step.batch_size == whole.batch_size == 8 * part.step.batch_size


@pytest.mark.parametrize(
    ("batch_size", "max_constituents", "n_steps"),
    [(128, 128, 64), (512, 128, 32), (65_536, 128, 1), (8, 40, 64), (4, 4_000, 64), (100, 10_000, 2)],
)
def test_a_measured_chunk_takes_no_more_of_the_card_than_that_of_a_run(
    monkeypatch, batch_size, max_constituents, n_steps
):
    alone = pytest.importorskip("jetscale.training.captured.alone", reason="the kernels need Triton")
    given = []
    monkeypatch.setattr(alone, "steps_alone", lambda _, jets, steps: given.append((jets, steps)))
    step = Step(batch_size, max_constituents, "cpu", "bf16-mixed", threads=1, captured=True)
    assert probe._work(SetTransformer(8, 10, depth=1), step)[1] == n_steps
    [(jets, steps)] = given
    assert steps == n_steps
    assert jets.n_jets == batch_size
    assert int(jets.lengths_B.max()) <= max_constituents
    assert steps == 1 or steps * jets.n_jets * max_constituents <= MOST_CONSTITUENTS


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_is_measured_in_the_precision_of_the_run(monkeypatch, precision):
    seen = []

    class Noted(SetTransformer):
        def forward(self, jets):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(jets)

    monkeypatch.setattr(probe, "_ENOUGH_SECONDS", 0.0)
    step = Step(2, 16, "cpu", precision, threads=1, captured=False)
    assert probe.seconds_per_step(Noted(8, 10, depth=1), step) > 0
    assert seen == [precision == "bf16-mixed"] * 2
