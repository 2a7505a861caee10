from __future__ import annotations

import pickle
import shutil
import subprocess
from contextlib import nullcontext

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from hydra_plugins.jetscale import combinations
from jetscale.common.config_safety import CONF
from jetscale.common.usage import SettingsError, UsageError
from jetscale.launch.help import train_help
from jetscale.launch.hydra_setup import (
    hydra_arguments,
    print_status,
    register,
    run_suffix,
    suffix_as_typed,
)
from jetscale.launch.single_run import refuse_earlier_name
from jetscale.runs.directory import RunDirectory
from jetscale.training.settings import TrainSettings, from_config

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
BUDGETS = sorted(path.stem for path in (CONF / "budget").glob("*.yaml"))


def composed(*overrides: str):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=["study=test", *overrides])


def test_multirun_flag_moves_to_the_front():
    line = ["+experiment=bsm_all", "model.dim=256", "-m", "seed=0,1,2,3,4"]
    assert hydra_arguments(line) == ["-m", "+experiment=bsm_all", "model.dim=256", "seed=0,1,2,3,4"]
    assert hydra_arguments(["seed=0"]) == ["seed=0"]
    assert hydra_arguments(["seed=0", "--multirun"]) == ["--multirun", "seed=0"]
    assert hydra_arguments(["seed=0", "--dry"]) == ["--multirun", "seed=0", "hydra.sweeper.dry=true"]


def test_help_names_every_choice_and_key():
    text = train_help([], CONF)
    for choice in (*EXPERIMENTS, *BUDGETS, "slurm", "perlmutter", "--dry"):
        assert choice in text
    for key in ("finetune.max_flops=None", "checkpoint_every=2000", "optimiser steps", "model.dim=64"):
        assert key in text


def test_run_suffix_names_what_the_path_does_not():
    assert (
        run_suffix(
            ["+experiment=bsm_all", "model.dim=256", "seed=0", "budget=smoke", "tracking.wandb=disabled"]
        )
        == ""
    )
    assert run_suffix(["seed=0", "finetune.lr=0.003"]) == "finetune.lr=0.003"
    assert run_suffix(["data.dir=/elsewhere"]) == ""


WORDS = (
    "finetune.lr=3e-3", "finetune.lr=0.00001", "finetune.lr=1E20", "finetune.steps=1_000", "ema.enabled=true",
    "finetune.clip=null", "callbacks.a={_target_: b.C, on: [1, 2.50, 'x y', true, null], of: \"z\"}",
    "finetune.lr={table: {8: 1e-3, 16: 2e-3}}", "model.note=a b", "model.note='it\\'s'", "model.note=${seed}",
    "~pretrain.composition.QCD", "++pretrain.composition.X_bb=2.0", "data.features=", "model.note=a:b\\,c",
)  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_run_has_one_folder_alone_and_in_a_sweep(word):
    (in_a_sweep,) = combinations([OverridesParser.create().parse_override(word)])
    assert run_suffix([word]) == run_suffix(in_a_sweep) != ""
    assert suffix_as_typed(in_a_sweep) == run_suffix(in_a_sweep), "committed sweeps keep their folders"


def test_however_a_value_is_typed_it_has_one_name():
    for name, typed in {
        "finetune.lr=0.003": ("finetune.lr=3e-3", "finetune.lr=.003", "finetune.lr=3E-3"),
        "ema.enabled=True": ("ema.enabled=true", "ema.enabled=TRUE"),
        "finetune.clip=null": ("finetune.clip=null", "finetune.clip=NULL"),
    }.items():
        assert {run_suffix([word]) for word in typed} == {name}
    spaced, bare = (
        "pretrain.composition={QCD: 1.0, X_bb: [1, 2]}",
        "pretrain.composition={QCD:1.0,X_bb:[1,2]}",
    )
    assert run_suffix([spaced]) == run_suffix([bare])
    assert run_suffix(["finetune.lr=1e-3", "finetune.lr=3e-3"]) == "finetune.lr=0.003", "the last counts"


def test_a_run_under_its_earlier_name_is_not_made_again(tmp_path):
    settings = TrainSettings()
    new, old = tmp_path / "finetune.lr=0.003", tmp_path / "finetune.lr=3e-3"
    refuse_earlier_name(settings, new, old.name)
    for identity, refused in (("another run", False), (settings.identity(), True)):
        shutil.rmtree(old, ignore_errors=True)
        old.mkdir()
        RunDirectory(old, identity).start("")
        with pytest.raises(UsageError, match=r"mv .*3e-3 .*0\.003$") if refused else nullcontext():
            refuse_earlier_name(settings, new, old.name)
    refuse_earlier_name(settings, old, old.name)
    new.mkdir()
    RunDirectory(new, settings.identity()).start("")
    refuse_earlier_name(settings, new, old.name)  # it was begun under both names: nothing is made again


def test_run_suffix_keeps_different_overrides_apart():
    first, second = (
        run_suffix(["pretrain.composition={X_bb:1}"]),
        run_suffix(["pretrain.composition={X_bb;1}"]),
    )
    assert first != second
    assert "/" not in run_suffix(["model.note=a/b"])
    assert len(run_suffix([f"finetune.lr={'1' * 300}"])) < 100


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_with_every_budget(experiment, budget):
    settings = from_config(composed(f"+experiment={experiment}", f"budget={budget}"))
    assert settings.subset == experiment
    assert (not settings.pretrain.composition) == (experiment == "scratch")


def test_any_composition_can_be_typed():
    settings = from_config(composed("subset=mine", "pretrain.composition={X_bb:1,QCD_*:2}"))
    assert settings.pretrain.composition == {"X_bb": 1, "QCD_*": 2}
    heavy = "{weight:3,classes:[Res2P,Res34P],flavours:[b,c],jet_pt:[500,1000]}"
    settings = from_config(composed("subset=mine", f"pretrain.composition={{heavy:{heavy},QCD:1}}"))
    assert settings.pretrain.composition["heavy"]["jet_pt"] == [500, 1000]


def test_paper_values_are_the_default():
    settings = from_config(composed())
    assert (settings.pretrain.steps, settings.finetune.steps) == (200_000, 600_000)
    assert (settings.pretrain.warmup, settings.finetune.warmup) == (1_000, 5_000)
    assert settings.pretrain.batch_size * settings.pretrain.steps == 25_600_000
    assert settings.finetune.batch_size * settings.finetune.steps == 76_800_000
    assert settings.finetune.lr == 1e-3
    assert settings.finetune.weight_decay == 0.01
    assert not settings.ema.enabled


def test_paper_sweep_is_the_grid_of_the_paper():
    import yaml

    grid = yaml.safe_load((CONF / "sweep" / "paper.yaml").read_text())["hydra"]["sweeper"]["params"]
    subsets, widths, seeds = (str(grid[key]).split(",") for key in ("+experiment", "model.dim", "seed"))
    assert set(subsets) <= set(EXPERIMENTS)
    assert (len(subsets), len(widths), len(seeds)) == (5, 12, 5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["subset=bsm_all"], "composition"),
        (["finetune.lr={table:{8:0.003}}"], "no rate for dim=64"),
        (["finetune.schedule=linear"], "constant, cosine"),
        (["subset=mine", "pretrain.composition={X_bb:much}"], "weight of 'X_bb' is 'much'"),
        (["subset=mine", "pretrain.composition={X_bb:0}"], "at least one weight must be above 0"),
        (["subset=mine", "pretrain.composition={X_bb:{weight:1,mass:[1,2]}}"], "no key 'mass'"),
        (["finetune.dataset=jetclas"], "finetune.dataset=jetclas: must be one of .*did you mean jetclass"),
        (["+data.dataset=jetclass2"], "unknown key 'data.dataset'"),
        (["finetune.steps=0"], "finetune.steps=0"),
        (["tracking.wandb=on"], "tracking.wandb"),
        (["model.dim=20"], "model.dim=20 must be a positive multiple of model.head_dim=8"),
        (["+modl.dim=16"], "unknown key 'modl'; did you mean model.dim"),
        (["+model.dm=16"], "unknown key 'model.dm'; did you mean model.dim"),
    ],
)
def test_settings_that_cannot_run_are_named(overrides, message):
    with pytest.raises(SettingsError, match=message):
        from_config(composed(*overrides))


def test_a_typo_fails_at_composition():
    with pytest.raises(Exception, match=r"finetune\.stepz|stepz"):
        composed("finetune.stepz=3")


def test_identity_follows_the_numbers_and_nothing_else():
    base = from_config(composed("+experiment=bsm_all")).identity()
    same = ["tracking.wandb=disabled", "data.dir=/x", "device.devices=2", "checkpoint_every=7", "study=other"]
    assert from_config(composed("+experiment=bsm_all", *same)).identity() == base
    for other in (
        "seed=1",
        "model.dim=8",
        "finetune.lr=0.002",
        "eval.jets=5",
        "pretrain.steps=9",
        "ema.enabled=true",
    ):
        assert from_config(composed("+experiment=bsm_all", other)).identity() != base


def test_backbone_identity_is_shared_between_fine_tunings():
    def backbone(*overrides):
        return from_config(composed("+experiment=bsm_all", *overrides)).backbone_identity()

    assert backbone("finetune.lr=0.002", "eval.jets=5") == backbone()
    assert backbone("pretrain.seed=7", "seed=1") == backbone("pretrain.seed=7", "seed=2")
    assert backbone("seed=1") != backbone("seed=2")
    assert backbone("pretrain.lr=0.002") != backbone()


def test_what_the_check_composed_is_what_is_launched():
    register()
    overrides = ["study=test", "model.dim=16"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        from hydra_plugins.jetscale import _ComposesOnce  # Hydra imports its plugins anew at its start

        loader = _ComposesOnce(GlobalHydra.instance().config_loader().get_search_path())
        master = loader.load_configuration("train", [], RunMode.MULTIRUN)
        checked = loader.compose_ahead(master, overrides)
        elsewhere = pickle.loads(pickle.dumps(loader)).load_sweep_config(master, overrides)
        assert loader.load_sweep_config(master, overrides) is checked
        again = loader.load_sweep_config(master, overrides)  # the first launch may have changed the kept one
    assert again is not checked
    assert again == elsewhere == checked


def test_the_end_of_a_sweep_says_how_to_send_what_is_kept_for_wandb(tmp_path, capsys):
    sweep = tmp_path / "a study"
    print_status(sweep)
    assert "W&B" not in capsys.readouterr().err
    kept = [
        sweep / f"qcd/dim=8/seed=0/{variant}wandb/offline-run-20270101_000000-ab"
        for variant in ("", "finetune.lr=1/")
    ]
    for folder in kept:
        (folder / "files").mkdir(parents=True)
        (folder.parent / "latest-run").symlink_to(folder.name)
    (tmp_path / "disk/dim=8/seed=0/wandb/offline-run-20270101_000000-cd").mkdir(parents=True)
    (sweep / "scratch").symlink_to(tmp_path / "disk")
    kept.append(sweep / "scratch/dim=8/seed=0/wandb/offline-run-20270101_000000-cd")
    print_status(sweep)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "W&B" in line]
    command = line.partition(": ")[2].replace("wandb sync", "printf '%s\\n'")
    listed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    assert sorted(listed.splitlines()) == sorted(map(str, kept))
