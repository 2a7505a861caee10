"""What a run refuses before its first step, where the settings alone are not wrong."""

from __future__ import annotations

import re

import pytest
import torch

from jetscale.common.usage import SettingsError
from jetscale.jets.errors import JetDataError
from jetscale.training import ranks
from jetscale.training.budgets import budgets_told
from jetscale.training.build import check_design
from jetscale.training.phase_settings import Phase
from jetscale.training.settings import DeviceSettings, from_config
from tests.conftest import REPO


def test_an_accelerator_that_is_not_there(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("gpu", "cuda", "mps"):
        with pytest.raises(SettingsError, match=rf"^device\.accelerator={name}: torch .* finds none"):
            ranks.join(DeviceSettings(accelerator=name))
    for name in ("auto", "cpu"):
        assert ranks.join(DeviceSettings(accelerator=name)).world == 1


def test_a_shell_of_four_tasks_is_told_how_to_start(monkeypatch) -> None:
    """``srun --ntasks=4 --pty bash``: the shell is task 0, and Slurm's variables speak of four."""
    names = {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_PTY_PORT": "41235",
    }
    for name, value in {**names, "SLURM_STEP_NODELIST": "n1", "SLURM_STEP_TASKS_PER_NODE": "4"}.items():
        monkeypatch.setenv(name, value)
    for devices in (1, 4):  # with four, it would wait ten minutes for the others
        with pytest.raises(SettingsError) as refused:
            ranks.join(DeviceSettings(devices=devices))
        assert "this shell is one of the 4 tasks" in str(refused.value)
        assert "srun --ntasks=1 --pty bash" in str(refused.value)
        assert f"srun --ntasks={devices} python -m jetscale.train" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"finetune": {"steps": 10, "warmup": 11}},
            "finetune.warmup=11 is longer than the phase, finetune.steps=10",
        ),
        (
            {"subset": "a", "pretrain": {"composition": {"QCD": 1}, "steps": 9}},
            "pretrain.warmup=1000 is longer than the phase, pretrain.steps=9",
        ),
        ({"finetune": {"max_flops": 1e12}}, "finetune.steps=195 within max_flops=1e+12: the learning rate"),
        ({"finetune": {"max_flops": 10.0}}, "finetune.max_flops=10 does not pay one step of a model"),
        (
            {"model": {"dim": 8}, "finetune": {"batch_size": 16, "max_flops": 11036159, "warmup": 0}},
            "finetune.max_flops=11036159 does not pay one step of a model with N=2874; at least 11036160 is",
        ),
        ({"subset": "a", "pretrain": {"composition": {"X_bbx": 1}}}, "'X_bbx' matches no class"),
        (
            {"model": {"arch": "deepsets", "depth": 2}},
            "model.depth=2: the network model.arch=deepsets has no such option; leave it out",
        ),
    ],
)
def test_a_phase_that_cannot_be_trained_is_found_before_the_first(content, message) -> None:
    settings = from_config(content)
    with pytest.raises((SettingsError, JetDataError)) as refused:
        check_design(settings)
    assert message in str(refused.value)


def test_the_name_of_a_network_is_checked_and_part_of_a_run_unless_it_is_the_first() -> None:
    with pytest.raises(SettingsError, match=r"^model.arch=deepset: must be one of .* mean deepsets\?$"):
        from_config({"model": {"arch": "deepset"}})
    pretrained = {"subset": "a", "pretrain": {"composition": {"QCD": 1}}}
    usual, named, other = (
        from_config({**pretrained, "model": model})
        for model in ({}, {"arch": "transformer"}, {"arch": "deepsets"})
    )
    # as before there was a choice, so that finished runs and backbones are found again
    assert usual.backbone_identity()["model"] == {"dim": 64, "depth": 4, "head_dim": 8}
    assert usual.identity() == named.identity() != other.identity()
    check_design(from_config({"model": {"arch": "deepsets", "dim": 9}}))  # heads are a transformer's
    with pytest.raises(SettingsError, match=r"^model\.dim=9 must be a positive multiple of model\.head"):
        from_config({"model": {"dim": 9}})


def test_the_least_compute_that_is_named_pays_a_step() -> None:
    least = {"batch_size": 16, "max_flops": 11036160, "warmup": 0}
    assert check_design(from_config({"model": {"dim": 8}, "finetune": least}))[Phase.FINETUNE][0].steps == 1


def test_a_warm_up_as_long_as_the_phase_is_one() -> None:
    check_design(from_config({"finetune": {"steps": 10, "warmup": 10}}))
    check_design(from_config({"pretrain": {"steps": 9}}))  # scratch: that phase is not run


def test_budgets_are_told_with_what_they_take() -> None:
    assert budgets_told("finetune").startswith(
        "budget=smoke takes 160 jets, budget=quickstart takes 20,000 jets"
    )
    assert "budget=laptop takes 460,000 jets" in budgets_told("finetune")
    assert "budget=laptop takes 100,000 jets" in budgets_told("pretrain")


def test_the_runs_of_the_readme_are_content_with_the_jets_that_it_simulates() -> None:
    page = (REPO / "README.md").read_text()
    made = {
        dataset: int(jets) for dataset, jets in re.findall(r"simulate dataset=(\w+)\s+n_jets=(\d+)", page)
    }
    runs = re.findall(r"^python -m jetscale.train (\+experiment.*)$", page, flags=re.MULTILINE)
    assert len(runs) == 2
    assert all("budget=laptop" in run for run in runs)
    assert made["jetclass"] >= 14_375 * 32
    assert made["jetclass2"] / 3 >= 0.65 * 3_125 * 32  # a third of each bucket, and 65% of Res34P asked
