"""Whole runs, as a user starts them, on simulated jets."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jetscale.common.config_safety import CONF
from jetscale.model.deepsets import DeepSets
from jetscale.runs.directory import RunDirectory
from jetscale.training.backbone import Backbone
from jetscale.training.checkpoint import CheckpointError
from tests.runs import TINY, killed_after, metrics_of, runs_under, same_run

# windows above 1.2 TeV, and rare classes, hold none of the few hundred jets here
TOO_RARE = {"misaligned_diverse", "misaligned_narrow", "multi_prong", "qcd_flavours"}
EXPERIMENTS = sorted({path.stem for path in (CONF / "experiment").glob("*.yaml")} - TOO_RARE)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains(train, tmp_path, experiment):
    few = ["data.repeat=true"] if "aligned" in experiment else []  # the 2 x 2 design's windows
    train(f"+experiment={experiment}", *TINY, *few)
    (run,) = runs_under(tmp_path)
    assert run.relative_to(tmp_path / "multirun/smoke").parts[:3] == (experiment, "dim=8", "seed=0")
    done = json.loads((run / "done.json").read_text())
    assert done["jets"] == 40 * 8
    assert done["n_params"]["total"] == sum(n for kind, n in done["n_params"].items() if kind != "total")
    assert (done["pretrain"] is None) == (experiment == "scratch")
    lines = metrics_of(run)
    assert {line["phase"] for line in lines} == (
        {"finetune"} if experiment == "scratch" else {"pretrain", "finetune"}
    )
    last = [line for line in lines if line["split"] == "test"][-2:]
    assert [line["weights"] for line in last] == ["raw", "ema"]
    assert all(line["step"] == 40 and math.isfinite(line["loss"]) for line in last)
    assert last[0]["flops"] == pytest.approx(6 * done["n_params"]["total"] * 40 * 320)
    blocks = pq.read_table(run / "test_blocks.parquet").to_pandas()
    final = blocks[(blocks.step == 40) & (blocks.weights == "raw")]
    assert final.jets.sum() == 120
    assert final.loss_sum.sum() / 120 == pytest.approx(last[0]["loss"], rel=1e-12)


def test_the_first_loss_is_that_of_a_guess(train, tmp_path):
    train(*TINY, "finetune.lr=1e-9")
    (run,) = runs_under(tmp_path)
    assert all(abs(line["loss"] - math.log(10)) < 0.1 for line in metrics_of(run))


@pytest.mark.slow
def test_killed_anywhere_the_run_is_the_same_to_the_last_bit(train, warm, tmp_path, simulated_data):
    arguments = [
        "+experiment=bsm_all",
        *TINY,
        "pretrain.steps=80",
        "finetune.steps=120",
        "data.repeat=true",
        f"data.dir={simulated_data}",
    ]
    train(*arguments, f"hydra.run.dir={tmp_path}/whole", "pretrain.library=whole_backbones")
    broken = tmp_path / "broken"
    arguments += [f"hydra.run.dir={broken}", "pretrain.library=backbones"]
    for steps in (15, 43, 95, 131, 178):  # counted over both phases
        killed_after(warm, steps, arguments, tmp_path / "backbones", broken, pretrain_steps=80)
    train(*arguments)
    same_run(broken, tmp_path / "whole")


@pytest.mark.slow
def test_deep_sets_killed_in_either_phase_go_on_to_the_last_bit(train, warm, tmp_path, simulated_data):
    words = [
        "+experiment=qcd",
        "model.arch=deepsets",
        *TINY,
        "data.repeat=true",
        f"data.dir={simulated_data}",
    ]
    train(*words, f"hydra.run.dir={tmp_path}/whole", "pretrain.library=whole_backbones")
    words += [f"hydra.run.dir={tmp_path}/broken", "pretrain.library=backbones"]
    for steps in (15, 24 + 15):
        killed_after(warm, steps, words, tmp_path / "backbones", tmp_path / "broken", pretrain_steps=24)
    train(*words)
    same_run(tmp_path / "broken", tmp_path / "whole")
    done = json.loads((tmp_path / "whole/done.json").read_text())
    assert done["n_params"]["blocks"] == 7 * 8**2 + 6 * 8
    assert done["pretrain"]["n_params"]["head"] == 188 * 9


@pytest.mark.slow
def test_a_backbone_of_another_network_is_refused_by_name(train, tmp_path):
    train("+experiment=qcd", *TINY)
    (backbone,) = (tmp_path / "multirun/backbones").glob("qcd-*")
    directory = RunDirectory(backbone, json.loads((backbone / "done.json").read_text())["identity"])
    record = directory.done_pretraining()
    assert record is not None
    with pytest.raises(CheckpointError) as refused:
        Backbone(directory, record).load_into(DeepSets(8, 10))
    weights = backbone / "checkpoints/final.pt"
    assert str(refused.value).startswith(f"{weights} holds the weights of model.arch=transformer, and the")
    assert "model.arch=deepsets" in str(refused.value)


@pytest.mark.slow
def test_seed_zero_twice_is_the_same_and_seed_one_is_not(train, tmp_path):
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        train(*TINY, f"seed={seed}", f"hydra.run.dir={tmp_path}/{name}")
    assert metrics_of(tmp_path / "first") == metrics_of(tmp_path / "second")
    assert metrics_of(tmp_path / "first") != metrics_of(tmp_path / "third")


@pytest.mark.slow
def test_half_precision_follows_the_same_curve(train, tmp_path):
    for precision in ("32-true", "bf16-mixed"):
        train(*TINY, f"device.precision={precision}", f"hydra.run.dir={tmp_path}/{precision}")
    full, half = metrics_of(tmp_path / "32-true"), metrics_of(tmp_path / "bf16-mixed")
    assert full != half
    for ours, theirs in zip(half, full, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.01)


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(train, tmp_path):
    train("+experiment=qcd", *TINY, f"hydra.run.dir={tmp_path}/one")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    train(
        "+experiment=qcd", *TINY, f"hydra.run.dir={tmp_path}/two",
        "device.devices=2", "device.accelerator=cpu",
        "pretrain.library=other_backbones", launch=torchrun,
    )  # fmt: skip
    one, two = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two")
    assert len(one) == len(two)
    for ours, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=2e-4)
        assert (theirs["step"], theirs["jets"], theirs["constituents"]) == (
            ours["step"], ours["jets"], ours["constituents"],
        )  # fmt: skip


@pytest.mark.slow
def test_more_devices_than_processes_is_explained(train):
    done = train(*TINY, "device.devices=2", check=False)
    assert done.returncode != 0
    assert "torchrun --nproc-per-node 2" in done.stderr


@pytest.mark.slow
def test_a_backbone_is_shared_by_what_it_is_not_by_name(train, tmp_path):
    train("+experiment=qcd", *TINY, "pretrain.seed=3", "seed=0")
    train("+experiment=qcd", *TINY, "pretrain.seed=3", "seed=1")
    assert len(list((tmp_path / "multirun/backbones").glob("qcd-*"))) == 1
    train("+experiment=qcd", *TINY, "pretrain.seed=3", "seed=2", "pretrain.lr=2e-3", "study=other")
    assert len(list((tmp_path / "multirun/backbones").glob("qcd-*"))) == 2


@pytest.mark.slow
def test_one_composition_under_two_names_is_pretrained_once(train, tmp_path):
    words = ("pretrain.composition={QCD:100}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    train("-m", *TINY, "subset=aa,bb", *words)  # both want it at the same time
    train("+experiment=qcd", *TINY)
    (backbone,) = (tmp_path / "multirun/backbones").glob("*-dim=8-*")
    found = [json.loads((run / "done.json").read_text())["pretrain"] for run in runs_under(tmp_path)]
    assert [Path(one["path"]).name for one in found] == [backbone.name] * 3


@pytest.mark.slow
def test_a_loss_that_blows_up_names_step_and_jets(train, tmp_path):
    done = train(*TINY, "finetune.lr=1e30", check=False)
    assert done.returncode != 0
    (run,) = runs_under(tmp_path)
    failure = json.loads((run / "failed.json").read_text())
    assert failure["error"] == "NonFiniteLoss"
    assert "positions" in failure["message"]
    assert "last good checkpoint" in failure["message"]
