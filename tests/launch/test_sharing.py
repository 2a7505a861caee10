"""How many runs share a GPU, and what a plan says of it. No GPU is needed: what it has is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from jetscale.common.config_safety import CONF
from jetscale.launch.hydra_setup import register
from jetscale.launch.launchers import BASIC, JOBLIB, SLURM
from jetscale.launch.plan_table import three_digits
from jetscale.launch.sharing import joblib_runs, runs_on_a_card, sharing

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GIB = 1 << 30


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of 80 GiB, in a machine with 16 cores."""
    properties = SimpleNamespace(total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr("jetscale.launch.sharing.available_cores", lambda: 16)


@pytest.mark.parametrize(
    ("cores", "memory", "runs"),
    [(16, 80, 8), (128, 140, 8), (4, 80, 4), (16, 16, 5), (16, 2, 1), (1, 80, 1)],
)
def test_a_core_and_room_on_the_card_for_each_run(cores: int, memory: int, runs: int) -> None:
    assert runs_on_a_card(cores, memory * GIB) == runs


def test_only_what_the_user_leaves_open_is_chosen(card: None) -> None:
    assert joblib_runs(-1, GPU) == 8
    assert joblib_runs(3, GPU) == 3
    assert joblib_runs(-1, CPU) == -1, "a run for each core"


@pytest.mark.parametrize(("accelerator", "given", "runs"), [("auto", -1, 8), ("cpu", -1, -1), ("auto", 2, 2)])
def test_joblib_starts_as_many_runs_as_share_the_gpu(
    card: None, accelerator: str, given: int, runs: int
) -> None:
    from jetscale.launch.joblib_workers import launch_with

    register()
    started: list[Any] = []

    def composed(_: Any, overrides: list[str]) -> Any:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", overrides, return_hydra_config=True)

    def launch(overrides: Any, first: int) -> list[Any]:
        started.append((launcher.joblib["n_jobs"], overrides, first))
        return []

    loader = SimpleNamespace(load_sweep_config=composed)
    context = SimpleNamespace(config_loader=loader)
    launcher = SimpleNamespace(joblib={"n_jobs": given}, hydra_context=context, config=None, launch=launch)
    overrides = [("budget=smoke", f"device.accelerator={accelerator}")]
    assert launch_with(launcher)(overrides, 5) == []
    assert started == [(runs, overrides, 5)]


def test_a_plan_says_how_runs_share_the_gpu(card: None) -> None:
    assert sharing({"_target_": JOBLIB, "n_jobs": -1}, CPU) is None
    assert str(sharing({"_target_": BASIC}, GPU)).startswith("none, one run after the other")
    not_measured = "the time above is that of one run after the other, what sharing saves is not measured"
    for launcher, said in (
        ({"_target_": JOBLIB, "n_jobs": -1}, "8 at a time on one card (hydra.launcher.n_jobs)"),
        ({"_target_": JOBLIB, "n_jobs": 2}, "2 at a time on one card (hydra.launcher.n_jobs)"),
        ({"_target_": SLURM, "parallel": 4}, "4 at a time in each job (hydra.launcher.parallel)"),
        ({"_target_": "their.Launcher"}, "as the launcher does it"),
    ):
        assert sharing(launcher, GPU) == f"{said}; {not_measured}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.1301, "0.130"), (0.0987, "0.0987"), (1.0, "1.00"), (12.34, "12.3"), (253.9, "254"), (3_812, "3,810")],
)
def test_milliseconds_with_three_digits(value: float, shown: str) -> None:
    assert three_digits(value) == shown
