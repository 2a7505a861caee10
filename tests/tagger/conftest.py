"""One tiny trained run for all tests of the room."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jetscale.tagger.load import Tagger, load
from tests.conftest import Made
from tests.runs import quiet_environment
from tests.warm import WarmServer

TRAIN = (
    "budget=smoke", "model.dim=8", "finetune.steps=100", "finetune.batch_size=32", "data.repeat=true",
    "eval.jets=120", "tracking.wandb=disabled",
)  # fmt: skip


PRETRAINED = ("+experiment=bsm_all", "pretrain.steps=20", "pretrain.batch_size=32", *TRAIN)
PRETRAINED += ("finetune.steps=3",)


@pytest.fixture(scope="session")
def lab(simulated_data: Path, warm: WarmServer, made_once: Made) -> Path:
    """A folder in which runs were made, from scratch and pretrained: ``data`` and ``multirun``."""

    def fill(folder: Path) -> None:
        shutil.copytree(simulated_data, folder / "data")
        for words in (TRAIN, PRETRAINED):
            process = warm.start("jetscale.train", list(words), folder, quiet_environment())
            process.communicate(timeout=300)
            assert process.wait() == 0, process.printed("stderr")[:3000]

    return made_once("tagger", fill)


@pytest.fixture
def run(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished run from scratch, in the folder that it was made in."""
    monkeypatch.chdir(lab)
    return next(Path("multirun").rglob("scratch/**/done.json")).parent


@pytest.fixture
def pretraining(run: Path) -> Path:
    """The finished pretraining."""
    return next(Path("multirun/backbones").rglob("done.json")).parent


@pytest.fixture
def tagger(run: Path) -> Tagger:
    return load(run)


@pytest.fixture(scope="session")
def files(lab: Path) -> list[Path]:
    """Its test files, ten processes."""
    return sorted((lab / "data/JetClass/Pythia/test_20M").glob("*.root"))
