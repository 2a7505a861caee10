"""A network of the user's own module, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jetscale.analysis import load_losses
from tests.runs import TINY, killed_after, runs_under, same_run

TOY_LAB = Path(__file__).parent / "toy_lab"
TOY = ("--trust", "toy_lab.network", "model.arch=toy")
PRETRAINED = ("+experiment=qcd", "data.repeat=true", *TINY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that a user works in, with her package in it."""
    (tmp_path / "toy_lab").symlink_to(TOY_LAB)
    return tmp_path


def test_it_pretrains_fine_tunes_resumes_and_is_counted(train, warm, folder, simulated_data):
    train(*PRETRAINED, *TOY)
    (run,) = runs_under(folder)
    done = json.loads((run / "done.json").read_text())
    # 8 features and 10 classes at width 8, biases included
    counts = {"embedding": 72, "class_token": 0, "blocks": 72, "norms": 0, "head": 90, "total": 234}
    assert done["n_params"] == counts
    assert done["pretrain"]["n_params"]["blocks"] == 72
    final = torch.load(run / "checkpoints/final.pt", weights_only=True)
    assert final["arch"] == "toy"
    assert set(final["weights"]) == {
        f"{layer}.{part}" for layer in ("embed", "mix", "head") for part in ("weight", "bias")
    }

    words = [*PRETRAINED, *TOY, f"hydra.run.dir={folder}/killed", "pretrain.library=other_backbones"]
    killed_after(
        warm, 24 + 25, [*words, f"data.dir={simulated_data}"], folder / "other_backbones",
        folder / "killed", pretrain_steps=24,
    )  # fmt: skip
    train(*words)
    same_run(folder / "killed", run)


def test_it_is_a_variant_which_is_fitted_apart(train, folder):
    train("budget=smoke", "tracking.wandb=disabled", "model.dim=8", *TOY[:2], "-m", "model.arch=toy,deepsets")
    variants = [json.loads((run / "done.json").read_text())["variant"] for run in runs_under(folder)]
    assert variants == ["model.arch=deepsets", "model.arch=toy"]
    groups = load_losses(folder / "multirun/smoke").groups()
    assert sorted(groups) == [f"scratch [{variant}]" for variant in variants]
    assert [set(groups[name]["n_params"]) for name in sorted(groups)] == [{730.0}, {234.0}]


def test_it_is_planned_beside_the_others(train, folder):
    plan = train(*PRETRAINED, *TOY[:2], "-m", "model.arch=toy,transformer", "--dry").stdout
    sizes = [line.split("│")[3].strip() for line in plan.splitlines() if "finetune" in line]
    assert sizes == ["234", "2,874"]
    assert not list(folder.rglob("metrics.jsonl"))


def test_without_trust_it_is_unknown(train, folder):
    refused = train(*TINY, "model.arch=toy", check=False)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert (
        "model.arch=toy: must be one of transformer, deepsets, particlenet, or one that --trust MODULE"
        in (refused.stderr)
    )
