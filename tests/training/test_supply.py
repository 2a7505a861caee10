"""A lack of jets for any phase or for the test is an error before the first step of the first phase."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from hydra_plugins.jetscale import GridSweeper
from jetscale.common.usage import SettingsError
from jetscale.jets.errors import JetDataError
from jetscale.model import NETWORKS
from jetscale.model.deepsets import DeepSets
from jetscale.training.build import check_design, design
from jetscale.training.phase_settings import Phase
from jetscale.training.run import run
from jetscale.training.settings import TrainSettings, from_config
from jetscale.training.supply import Need, check_found, check_supply, needs_of
from tests.runs import TINY

BUDGETS = "budget=smoke takes 160 jets, budget=quickstart takes 20,000 jets"
TEST_BUDGETS = "budget=smoke takes 100 jets, budget=quickstart takes 2,000 jets"


@pytest.fixture
def pretrained(tmp_path: Path) -> Callable[..., TrainSettings]:
    """Settings of a run of a few steps that is pretrained first."""

    def settings(jets: Path, **others: Any) -> TrainSettings:
        content: dict[str, Any] = {
            "subset": "qcd",
            "model": {"dim": 8},
            "data": {"dir": str(jets)},
            "pretrain": {
                "composition": {"QCD": 1}, "steps": 2, "batch_size": 8, "warmup": 0,
                "library": str(tmp_path / "backbones"),
            },
            "finetune": {"steps": 2, "batch_size": 8, "warmup": 0},
            "eval": {"jets": 100},
            "tracking": {"wandb": "disabled", "progress": False},
            "device": {"accelerator": "cpu"},
        }  # fmt: skip
        for key, value in others.items():
            content[key] = content[key] | value
        return from_config(content)

    return settings


def with_files(folder: Path, source: Path, *chosen: str) -> Path:
    """`folder` with the files of `source` whose paths begin with one of `chosen`."""
    for path in source.rglob("*_*.*"):
        place = path.relative_to(source)
        if place.as_posix().startswith(chosen):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).symlink_to(path)
    return folder


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            {"finetune": {"steps": 60}},
            rf"^finetune: .*jetclass_train_paper: 480 jets asked in a single pass, .* has 400 .*; {BUDGETS}",
        ),
        (
            {"eval": {"jets": 201}},
            rf"^eval: .*jetclass_test_paper: 201 test jets asked, there are 200; .*; {TEST_BUDGETS}",
        ),
    ],
)
def test_too_few_jets_to_fine_tune_or_to_test_are_found_before_the_pretraining(
    pretrained, simulated_data, tmp_path, others, message
):
    with pytest.raises(JetDataError, match=message):
        run(pretrained(simulated_data, **others), tmp_path / "run")
    assert not (tmp_path / "backbones").exists(), "nothing was pretrained"
    assert (tmp_path / "run/failed.log").exists()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("JetClassII",), "no train jets of jetclass: looked for"),
        (
            ("JetClassII", "JetClass/Pythia/train"),
            "no test jets of jetclass: looked for .* the 10 files there",
        ),
        (("JetClass/Pythia/",), "no train jets of jetclass2: looked for"),
    ],
)
def test_a_missing_folder_or_split_is_found_before_anything_is_packed(
    pretrained, simulated_data, tmp_path, chosen, message
):
    jets = with_files(tmp_path / "jets", simulated_data, *chosen)
    with pytest.raises(JetDataError, match=message):
        check_supply(pretrained(jets))
    assert not (tmp_path / "jets/store").exists()


def test_jets_that_may_repeat_need_not_suffice(pretrained, simulated_data):
    check_supply(pretrained(simulated_data, finetune={"steps": 60}, data={"repeat": True}))
    with pytest.raises(JetDataError, match="201 test jets asked"):  # a test shows each jet once
        check_supply(pretrained(simulated_data, data={"repeat": True}, eval={"jets": 201}))


def test_classes_without_jets_are_mentioned(pretrained, simulated_data, caplog):
    settings = pretrained(simulated_data)
    check_supply(settings)
    assert "classes have no jet" not in caplog.text
    need = asking(settings, finetune=16)[0]
    counts = need.source.store.label_counts_PL.copy()
    counts[:, [0, 3]] = 0
    need.mention_absent_classes(replace(need.source.store, label_counts_PL=counts))
    assert "jetclass_train_paper: 2 of 10 classes have no jet here (QCD, Hgg); the loss is" in caplog.text


def asking(settings: TrainSettings, **jets: int) -> list[Need]:
    """What `settings` need where their phases take so many jets."""
    with torch.device("meta"):
        sources = {Phase(name): design(settings, Phase(name))[2].source for name in jets}
    return needs_of(settings, {name: (source, jets[name]) for name, source in sources.items()})


def test_what_is_compared_before_a_sweep(pretrained, simulated_data, tmp_path):
    jets = with_files(tmp_path / "jets", simulated_data, "JetClass")
    check_found(asking(pretrained(jets), pretrain=10**9, finetune=10**9))
    assert not (jets / "store").exists(), "nothing is packed, so nobody knows how many jets there are"
    packed = pretrained(simulated_data)
    check_supply(packed)
    _ = asking(packed, pretrain=1)[0].source.store  # packed, if no other test has done it
    check_found(asking(packed, pretrain=200, finetune=400))
    for phase in ("pretrain", "finetune"):
        with pytest.raises(JetDataError, match=f"^{phase}: .* 500 jets asked in a single pass"):
            check_found(asking(packed, **{"pretrain": 1, "finetune": 1, phase: 500}))
    window = {"hard": {"weight": 1, "classes": "QCD", "jet_pt": [500, 1000]}}
    check_found(asking(pretrained(simulated_data, pretrain={"composition": window}), pretrain=500))


def test_a_sweep_is_refused_before_its_first_run(train, pretrained, simulated_data, tmp_path):
    check_supply(pretrained(simulated_data))
    refused = train(*TINY, "-m", "+experiment=scratch,qcd", "finetune.steps=40,51", check=False)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("jetscale.train: finetune: ")
    assert "408 jets asked in a single pass" in refused.stderr
    assert not (tmp_path / "multirun").exists()


def test_where_the_runs_are_made_elsewhere_the_sweep_is_only_warned(monkeypatch, caplog):
    def check_jets() -> None:
        raise JetDataError("no jets")

    plan: Any = SimpleNamespace(check_jets=check_jets)
    sweeper = GridSweeper()
    for target, here in (
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", True),
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", True),
        ("hydra_plugins.jetscale.SlurmLauncher", False),
    ):
        sweeper._config = OmegaConf.create({"hydra": {"launcher": {"_target_": target}}})
        with pytest.raises(JetDataError) if here else nullcontext():
            sweeper._check_jets(plan)
    assert "on this machine, which starts the runs: no jets" in caplog.text


def test_a_backbone_that_the_fine_tuning_cannot_take_is_found_before_the_pretraining(
    pretrained, simulated_data, monkeypatch
):
    class Wide(DeepSets):
        """As wide as there are classes, so that no backbone fits another dataset."""

        def __init__(self, dim: int, n_classes: int, n_features: int, n_pid: int) -> None:
            super().__init__(n_classes, n_classes, n_features, n_pid)

    monkeypatch.setitem(NETWORKS._entries, "wide", Wide)
    settings = pretrained(simulated_data, model={"arch": "wide"})
    with pytest.raises(SettingsError, match=r"^model\.arch=wide: .* embed\.weight has shape \(188, 8\)"):
        check_design(settings)
