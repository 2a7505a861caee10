from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared" / "data"

TINY = (
    "budget=smoke", "pretrain.steps=24", "finetune.steps=40", "checkpoint_every=7", "tracking.log_every=5",
    "eval.every=10", "eval.jets=120", "model.dim=8", "tracking.wandb=disabled", "pretrain.batch_size=8",
    "finetune.batch_size=8",
)  # fmt: skip
"""A run of seconds that still has checkpoints, windows and evaluations at steps that do not coincide."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Reference files of the developers; absent elsewhere."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is missing: reference data of the developers, not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def simulated_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data directory with a few hundred really simulated jets in both published formats."""
    out = tmp_path_factory.mktemp("simulated")
    common = [f"out={out}", "mpi=false", "workers=2"]  # without MPI: fewer constituents, three times faster
    for arguments in (
        ["dataset=jetclass", "n_jets=400", "n_val=0", "n_test=200"],
        ["dataset=jetclass2", "n_jets=360", "n_val=0", "n_test=0"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "jetscale.simulate", *arguments, *common], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def train(simulated_data: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m jetscale.train`` in an empty folder on the simulated jets."""

    def call(*arguments: str, launch: tuple[str, ...] = (sys.executable, "-m"), check: bool = True) -> Any:
        command = [*launch, "jetscale.train", f"data.dir={simulated_data}", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=quiet_environment())
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return call


def quiet_environment() -> dict[str, str]:
    """This environment without a W&B key and with warnings as errors in jetscale itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Lines of ``metrics.jsonl`` without the wall time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
