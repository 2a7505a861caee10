from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TINY = (
    "budget=smoke", "pretrain.steps=24", "finetune.steps=40", "checkpoint_every=7", "tracking.log_every=5",
    "eval.every=10", "eval.jets=120", "model.dim=8", "tracking.wandb=disabled", "pretrain.batch_size=8",
    "finetune.batch_size=8",
)  # fmt: skip
"""A run of seconds that still has checkpoints, windows and evaluations at steps that do not coincide."""


def quiet_environment() -> dict[str, str]:
    """This environment without a W&B key, one thread a process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return {**kept, "OMP_NUM_THREADS": "1"}


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
