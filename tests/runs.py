from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import torch

from jetscale.runs.record import FinalLoss, RunRecord

if TYPE_CHECKING:
    from tests.warm import WarmServer

TINY = (
    "budget=smoke", "pretrain.steps=24", "finetune.steps=40", "checkpoint_every=7", "tracking.log_every=5",
    "eval.every=10", "eval.jets=120", "model.dim=8", "tracking.wandb=disabled", "pretrain.batch_size=8",
    "finetune.batch_size=8",
)  # fmt: skip
"""A run of seconds that still has checkpoints, windows and evaluations at steps that do not coincide."""


_CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")


def quiet_environment() -> dict[str, str]:
    """This environment without a W&B key and Triton's interpreter, one thread a process.

    The folder of caches is named, so that a test with another home does not compile every loop again.
    """
    left_out = ("WANDB", "TRITON_INTERPRET")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": _CACHE}


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Lines of ``metrics.jsonl`` without the wall time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def runs_under(root: Path) -> list[Path]:
    """Run directories of the study ``smoke`` below `root`, failed ones too."""
    marks = [
        mark for name in ("identity.json", "failed.json") for mark in (root / "multirun/smoke").rglob(name)
    ]
    return sorted({mark.parent for mark in marks})


def run_record(**facts: Any) -> RunRecord:
    """Record of a finished run without pretraining; `facts` replaces fields of it."""
    usual: dict[str, Any] = {
        "subset": "scratch", "dim": 8, "seed": 0, "variant": "", "steps": 40, "batch_size": 8, "jets": 320,
        "constituents": 12_800, "flops": 1e9, "seconds": 2.0, "n_params": {"total": 2_946}, "lr": 1e-3,
        "final": {"raw": FinalLoss(loss=1.5, accuracy=0.5, jets=120)}, "pretrain": None,
        "data": {"train": "a", "test": "b"},
        "jets_from": None, "threads": 1, "versions": {"jetscale": "0.1.0"}, "git": None,
    }  # fmt: skip
    return RunRecord(**(usual | facts))


def same_run(one: Path, two: Path) -> None:
    """Assert that two runs gave the same to the last bit: metrics, block losses, weights."""
    assert metrics_of(one) == metrics_of(two)
    assert pq.read_table(one / "test_blocks.parquet").equals(pq.read_table(two / "test_blocks.parquet"))
    for which in ("weights", "average"):
        ours, theirs = (torch.load(run / "checkpoints/final.pt")[which] for run in (one, two))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def steps_done(library: Path, run: Path, pretrain_steps: int) -> int:
    """Steps that a run's metrics tell of, over both phases; `library` is the folder of its backbones."""
    seen = 0
    for log in [*library.glob("*/metrics.jsonl"), run / "metrics.jsonl"]:
        if log.exists():
            steps = [json.loads(line) for line in log.read_text().splitlines()[-1:] if line.endswith("}")]
            seen = max(
                [seen, *(line["step"] + pretrain_steps * (line["phase"] == "finetune") for line in steps)]
            )
    return seen


def killed_after(
    warm: WarmServer, steps: int, arguments: list[str], library: Path, run: Path, pretrain_steps: int = 0
) -> None:
    """Start a run and kill it with SIGKILL once it has told of `steps`, counted over both phases."""
    process = warm.start("jetscale.train", arguments, run.parent, quiet_environment())
    while steps_done(library, run, pretrain_steps) < steps and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.printed("stderr")
