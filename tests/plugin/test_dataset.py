"""A dataset of the user's own, through the command lines of prepare and train."""

from __future__ import annotations

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import torch

from tests.runs import TINY, metrics_of, quiet_environment

TOY_LAB = Path(__file__).parent / "toy_lab"
TRUST = ("--trust", "toy_lab.dataset")
KINEMATICS = "data.features=kinematics"


def write(path: Path, n_jets: int, seed: int) -> None:
    """Jets of the toy layout; those of gluons have more and softer particles."""
    rng = np.random.default_rng([4, seed])
    is_gluon = rng.integers(0, 2, n_jets)
    counts = np.where(is_gluon, rng.integers(25, 40, n_jets), rng.integers(3, 10, n_jets))
    n = int(counts.sum())
    particles = {
        "pt": rng.exponential(np.repeat(np.where(is_gluon, 3.0, 30.0), counts)) + 1.0,
        "eta": rng.normal(0.3, 0.1, n),
        "phi": rng.normal(1.0, 0.1, n),
        "mass": np.full(n, 0.13957),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    lists = {name: ak.unflatten(values, counts) for name, values in particles.items()}
    ak.to_parquet(ak.Array({**lists, "is_gluon": is_gluon == 1}), path)


@pytest.fixture
def folder(tmp_path: Path, simulated_data: Path) -> Path:
    """The folder that a user works in: her package, her jets, and simulated ones."""
    (tmp_path / "toy_lab").symlink_to(TOY_LAB)
    for number, split in enumerate(("train", "val", "test")):
        write(tmp_path / "jets" / "QuarkGluon" / f"{split}.parquet", 400, seed=number)
    (tmp_path / "jets" / "JetClass").symlink_to(simulated_data / "JetClass")
    return tmp_path


@pytest.mark.slow
def test_fine_tuned_on_it(train, folder: Path) -> None:
    run = folder / "run"
    words = (*TINY, "finetune.lr=1e-2", KINEMATICS, f"data.dir={folder}/jets", f"hydra.run.dir={run}")
    train(*words, "--trust", "toy_lab.dataset", "finetune.dataset=quark_gluon")
    weights = torch.load(run / "checkpoints/final.pt")["weights"]
    assert 2 in {len(value) for name, value in weights.items() if "head" in name}, "two classes"
    final = json.loads((run / "done.json").read_text())["final"]["raw"]
    assert final["accuracy"] > 0.9, "the number of particles tells a quark from a gluon"


@pytest.mark.slow
def test_pretrained_on_it(train, folder: Path) -> None:
    run = folder / "run"
    words = (*TINY, KINEMATICS, f"data.dir={folder}/jets", f"hydra.run.dir={run}")
    mix = ("subset=gluons", "pretrain.composition={any:{weight:1,classes:'*',flavours:[q,g]}}")
    train(*words, *TRUST, *mix, "pretrain.dataset=quark_gluon")
    assert {line["phase"] for line in metrics_of(run)} == {"pretrain", "finetune"}


def test_prepared_by_worker_processes(warm, folder: Path) -> None:
    for number in range(3):
        path = folder / "more" / "QuarkGluon" / str(number) / f"{('train', 'val', 'test')[number]}.parquet"
        write(path, 50, seed=number)
    words = [f"dir={folder}/more", "dataset=quark_gluon", "features=kinematics", "workers=2", *TRUST]
    process = warm.start("jetscale.prepare", words, folder, quiet_environment())
    _, printed = process.communicate(timeout=120)
    assert process.wait() == 0, printed
    assert printed.count("ready, 50 jets") == 3


def test_refused_by_name(warm, train, folder: Path) -> None:
    words = (*TINY, f"data.dir={folder}/jets", "finetune.dataset=quark_gluon")
    unknown = train(*words, KINEMATICS, check=False)
    assert "finetune.dataset=quark_gluon: must be one of jetclass, jetclass2, top_tagging, or one that" in (
        " ".join(unknown.stderr.split())
    )
    lacking = train(*words, *TRUST, check=False)
    assert "features=paper needs part_charge" in lacking.stderr
    assert "which quark-gluon does not have; take features=kinematics" in lacking.stderr
    assert "Traceback" not in unknown.stderr + lacking.stderr
