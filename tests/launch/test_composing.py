"""A mapping given replaces the one before it, wherever it is given; one entry given changes that entry."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from jetscale.common.config_safety import CONF
from jetscale.common.usage import SettingsError
from jetscale.launch.composing import KEYS
from jetscale.launch.hydra_setup import register
from jetscale.training.settings import from_config

BSM = "+experiment=bsm_all"


def composed(*overrides: str, config_dir: str = str(CONF)):
    register()
    with initialize_config_dir(config_dir, version_base="1.3"):
        return from_config(compose("train", overrides=["study=test", *overrides]))


def test_which_mappings_replace() -> None:
    assert set(KEYS) == {"pretrain.composition", "pretrain.lr", "finetune.lr", "callbacks", "loggers"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([BSM], {"QCD": 15, "Res2P": 20, "Res34P": 65}),
        ([BSM, "pretrain.composition={QCD:1}"], {"QCD": 1}),
        ([BSM, "pretrain.composition={X_bb:1}"], {"X_bb": 1}),
        ([BSM, "+pretrain.composition={QCD:1}"], {"QCD": 1}),
        ([BSM, "++pretrain.composition={QCD:1}"], {"QCD": 1}),
        ([BSM, "pretrain.composition={QCD:1}", "pretrain.composition={Res2P:1}"], {"Res2P": 1}),
        ([BSM, "pretrain={composition:{QCD:1},steps:5000}", "pretrain.steps=6000"], {"QCD": 1}),
        ([BSM, "pretrain.composition.QCD=2"], {"QCD": 2, "Res2P": 20, "Res34P": 65}),
        ([BSM, "pretrain.composition.X_bb=2"], {"QCD": 15, "Res2P": 20, "Res34P": 65, "X_bb": 2}),
        ([BSM, "pretrain.composition={QCD:1}", "+pretrain.composition.X_bb=2"], {"QCD": 1, "X_bb": 2}),
        ([BSM, "pretrain.composition.X_bb=2", "pretrain.composition={QCD:1}"], {"QCD": 1}),
        ([BSM, "~pretrain.composition.QCD"], {"Res2P": 20, "Res34P": 65}),
        ([BSM, "pretrain.composition=null", "subset=scratch"], None),
        (["+experiment=[bsm_all,qcd]"], {"QCD": 100}),
        (["+experiment=[qcd,bsm_all]"], {"QCD": 15, "Res2P": 20, "Res34P": 65}),
    ],
)
def test_compositions(overrides, expected) -> None:
    assert composed(*overrides).pretrain.composition == expected


def test_a_component_given_replaces_the_component() -> None:
    settings = composed("+experiment=aligned_diverse", "pretrain.composition.QCD={weight:1}")
    assert settings.pretrain.composition["QCD"] == {"weight": 1}
    assert settings.pretrain.composition["Res2P"] == {"weight": 20, "jet_pt": [400, 1200]}


def test_other_keys_of_the_same_override_keep_their_order() -> None:
    settings = composed(BSM, "pretrain={composition:{QCD:1},steps:5000}", "pretrain.steps=6000")
    assert settings.pretrain.steps == 6000


def test_rates() -> None:
    tuned = ("budget=laptop_tuned", "model.dim=8")
    table = {"table": {8: 1e-3}}
    assert composed(*tuned, "finetune.lr={table:{8:1e-3}}").finetune.lr == table
    assert (
        composed(*tuned, "finetune.lr={table:{8:2e-3,16:1e-3}}", "finetune.lr={table:{8:1e-3}}").finetune.lr
        == table
    )
    assert composed(*tuned, "finetune.lr=2e-3").finetune.lr == 2e-3
    assert composed(*tuned, "finetune.lr.power=-0.5").finetune.lr == {
        "base": 2.386e-3,
        "dim": 24,
        "power": -0.5,
    }
    assert composed(*tuned, "finetune.lr={table:{8:1e-3}}").pretrain.lr["dim"] == 24


def test_files_replace_files(tmp_path) -> None:
    mine = tmp_path / "mine"
    for name, text in {
        "budget/mine.yaml": "defaults: [laptop_tuned]\nfinetune: {lr: {table: {64: 1e-3}}}\n",
        "experiment/two.yaml": "defaults: [bsm_all]\nsubset: two\npretrain: {composition: {X_bb: 1}}\n",
    }.items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(f"# @package _global_\n{text}")
    path = f"hydra.searchpath=[file://{mine}]"
    assert composed(path, "budget=mine").finetune.lr == {"table": {64: 1e-3}}
    assert composed(path, "+experiment=two").pretrain.composition == {"X_bb": 1}
    assert composed(path, "+experiment=two", "pretrain.composition={QCD:1}").pretrain.composition == {
        "QCD": 1
    }


def test_each_job_of_a_sweep_has_its_own() -> None:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        swept = [BSM, "pretrain.composition={QCD:1},{Res2P:1}"]
        master = loader.load_configuration("train", swept, RunMode.MULTIRUN)
        for name in ("QCD", "Res2P"):
            config = loader.load_sweep_config(master, [BSM, f"pretrain.composition={{{name}:1}}"])
            assert config.pretrain.composition == {name: 1}
            assert config.hydra.overrides.task[-1] == f"pretrain.composition={{{name}:1}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modl: {dim: 8}", "budget/mine.yaml: unknown key 'modl'; did you mean model.dim?"),
        (
            "finetune: {stepz: 8}",
            "budget/mine.yaml: unknown key 'finetune.stepz'; did you mean finetune.",
        ),
        ("finetune: {steps: few}", "budget/mine.yaml: finetune.steps=few: must be a whole number from 1"),
        ("finetune: {clip: 0}", "budget/mine.yaml: finetune.clip=0: must be a number above 0, or null"),
        ("finetune: {clip: .nan}", "budget/mine.yaml: finetune.clip=nan: must be a number above 0, or null"),
        ("finetune: 3", "budget/mine.yaml: finetune=3: a group of keys"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(tmp_path, text, message) -> None:
    (tmp_path / "budget").mkdir()
    (tmp_path / "budget/mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(SettingsError) as refused:
        composed(f"hydra.searchpath=[file://{tmp_path}]", "budget=mine")
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("name", ["experiment/mine", "budget/mine", "experiment/deeper/mine"])
def test_a_file_without_its_package_is_told_of_its_first_line(tmp_path, name) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    file = tmp_path / f"{name}.yaml"
    file.write_text("subset: mine\n")
    group, _, choice = name.partition("/")
    words = (f"hydra.searchpath=[file://{tmp_path}]", f"{'+' * (group != 'budget')}{group}={choice}")
    with pytest.raises(SettingsError, match=rf"^{name}.yaml: its first line must be `# @package _global_`; "):
        composed(*words)
    file.write_text(f"# @package _global_\n{group}: mine\n")  # where it is there, the key is the mistake
    with pytest.raises(SettingsError, match=rf"^{name}.yaml: unknown key '{group}'"):
        composed(*words)
