"""Runs on top tagging, the third dataset, whose jets have neither displacement, charge nor identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.jets.top_tagging import write_top_tagging
from tests.runs import TINY, metrics_of

KINEMATICS = "data.features=kinematics"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, simulated_data: Path) -> Path:
    """Data directory with all three datasets."""
    folder = tmp_path_factory.mktemp("datasets")
    for name in ("JetClass", "JetClassII"):
        (folder / name).symlink_to(simulated_data / name)
    for number, split in enumerate(("train", "test")):
        write_top_tagging(folder / "TopTagging" / f"{split}.parquet", 400, seed=number)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pretrain", "finetune", "classes"),
    [(None, "top_tagging", 2), ("jetclass2", "top_tagging", 2), ("top_tagging", "jetclass", 10)],
)
def test_a_run(train, folder: Path, tmp_path: Path, pretrain: str, finetune: str, classes: int) -> None:
    words = [*TINY, KINEMATICS, f"data.dir={folder}", f"finetune.dataset={finetune}", "finetune.lr=1e-2"]
    if pretrain:
        mix = "{QCD:1,Res2P:1}" if pretrain == "jetclass2" else "{QCD:1,top:1}"
        words += ["subset=mine", f"pretrain.dataset={pretrain}", f"pretrain.composition={mix}"]
    train(*words, f"hydra.run.dir={tmp_path}/run")
    done = json.loads((tmp_path / "run" / "done.json").read_text())
    weights = torch.load(tmp_path / "run" / "checkpoints" / "final.pt")["weights"]
    assert classes in {len(value) for name, value in weights.items() if "head" in name}
    phases = {line["phase"] for line in metrics_of(tmp_path / "run")}
    assert phases == ({"pretrain", "finetune"} if pretrain else {"finetune"})
    if classes == 2:
        assert done["final"]["raw"]["accuracy"] > 0.75, "tops are wider than QCD in these files"
        assert done["final"]["raw"]["jets"] == 120


def test_inputs_that_it_lacks_are_refused_before_a_step(train, folder: Path, tmp_path: Path) -> None:
    refused = train(
        *TINY,
        f"data.dir={folder}",
        "finetune.dataset=top_tagging",
        f"hydra.run.dir={tmp_path}/run",
        check=False,
    )
    assert refused.returncode == 1
    assert "features=paper needs part_charge" in refused.stderr
    assert "which top tagging does not have; take features=kinematics" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_default_datasets_keep_the_fingerprints_of_old_runs() -> None:
    from jetscale.training.settings import from_config

    plain = from_config({})
    chosen = from_config({"finetune": {"dataset": "jetclass"}, "pretrain": {"dataset": "jetclass2"}})
    other = from_config({"finetune": {"dataset": "top_tagging"}})
    assert plain.identity() == chosen.identity() != other.identity()
    mix = {"subset": "mine", "pretrain": {"composition": {"QCD": 1}}}
    assert "dataset" not in from_config(mix).backbone_identity()["pretrain"]
