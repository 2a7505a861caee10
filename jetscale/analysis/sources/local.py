"""Run directories (contract 4 of the design) to a loss table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jetscale.analysis.sources.block_files import join, read
from jetscale.analysis.table import LossTable, checked
from jetscale.cli import UsageError

PAPER_CONSTITUENTS = 40.0  # per jet: the paper's n_p in C = 6 N n_p B S


def load(path: Path, *, unfinished: bool = False, phase: str = "finetune") -> LossTable:
    """Read every run below `path`.

    Parameters
    ----------
    path : a sweep folder, or any folder above or below run directories.
    unfinished : take runs without done.json too (their curves so far).
    phase : which phase's losses; fine-tuning is the paper's.

    Raises
    ------
    UsageError
        No run below `path`, or a file of a run that cannot be read; named with its line.
    """
    import pandas as pd

    folders = sorted(metrics.parent for metrics in path.rglob("metrics.jsonl")) if path.is_dir() else []
    if not folders:
        raise UsageError(f"{path}: no run directory (a folder with metrics.jsonl) below it")
    frames, blocks, warnings = [], [], []
    for folder in folders:
        name = folder.relative_to(path).as_posix()
        if not (folder / "done.json").exists():
            if not unfinished:
                warnings.append(
                    f"run {name} is not finished (no done.json); left out, take it with unfinished=true"
                )
                continue
            warnings.append(f"run {name} is not finished; its curve so far is used")
        frame = _run(folder, name, phase)
        if frame is None:
            warnings.append(f"run {name} has no test loss in phase {phase}; left out")
            continue
        frames.append(frame)
        if (folder / "test_blocks.parquet").exists():
            blocks.append(read(folder / "test_blocks.parquet", name, phase))
    if not frames:
        raise UsageError(f"{path}: {len(folders)} runs, none of them usable: {'; '.join(warnings)}")
    table = LossTable(
        frame=pd.concat(frames, ignore_index=True),
        source=str(path),
        flops_per_param_sample=6 * PAPER_CONSTITUENTS,
        sample="jet",
        warnings=warnings,
        blocks=join([block for block in blocks if block is not None]),
    )
    return checked(table)


def _run(folder: Path, name: str, phase: str) -> Any:
    import pandas as pd

    facts = _facts(folder)
    lines = [line for line in read_lines(folder / "metrics.jsonl") if line.get("phase") == phase]
    lines = [line for line in lines if line.get("split") == "test" and line.get("jets", 0) > 0]
    if not lines:
        return None
    frame = pd.DataFrame(lines)
    for column in ("step", "jets", "flops", "loss", "weights", "split"):
        if column not in frame:
            raise UsageError(f"{folder / 'metrics.jsonl'}: test lines lack {column!r}")
    numbers = frame[["step", "jets", "flops", "loss"]].astype(float)
    table = numbers.assign(
        run=name,
        subset=facts["subset"],
        dim=float(facts["dim"]),
        seed=str(facts["seed"]),
        warmup=float(facts["warmup"]),
        schedule=float(facts["steps"]),
        pretrain_jets=facts["pretrain_jets"],
        pretrain_constituents=facts["pretrain_constituents"],
        pretrain_n_params=facts["pretrain_n_params"],
        lr=facts["lr"],
        rate=facts["rate"],
        constituents=frame["constituents"].astype(float) if "constituents" in frame else np.nan,
        split=frame["split"],
        weights=frame["weights"],
    )
    total = facts["n_params"].get("total")
    table["n_params"] = float(total) if total else table["flops"] / (6 * PAPER_CONSTITUENTS * table["jets"])
    for kind, count in facts["n_params"].items():
        if isinstance(count, int | float):
            table[f"n_params_{kind}"] = float(count)
    return table


def _facts(folder: Path) -> dict[str, Any]:
    """Who the run is: from config.yaml, and from done.json when it has finished."""
    from omegaconf import OmegaConf

    config_file, done_file = folder / "config.yaml", folder / "done.json"
    try:
        config = OmegaConf.load(config_file) if config_file.exists() else OmegaConf.create({})
        done = json.loads(done_file.read_text()) if done_file.exists() else {}
    except (ValueError, OSError) as error:
        raise UsageError(f"{folder}: config.yaml or done.json cannot be read: {error}") from error

    def select(key: str, default: Any = None) -> Any:
        return OmegaConf.select(config, key, default=default)

    facts = {
        "subset": done.get("subset", select("subset")),
        "dim": done.get("dim", select("model.dim")),
        "seed": done.get("seed", select("seed")),
        "n_params": done.get("n_params", {}),
        "warmup": select("finetune.warmup", 0) or 0,
        "steps": select("finetune.steps", 0) or 0,
        **_pretraining(done, from_scratch=select("pretrain.composition") is None),
        "lr": _rate(done, select("finetune.lr")),
        "rate": float(done["flops"] / done["seconds"])
        if done.get("flops") and done.get("seconds")
        else np.nan,
    }
    missing = [key for key in ("subset", "dim", "seed") if facts[key] is None]
    if missing:
        raise UsageError(f"{folder}: neither done.json nor config.yaml gives {', '.join(missing)}")
    return facts


def _pretraining(done: dict[str, Any], from_scratch: bool) -> dict[str, float]:
    """What a run's pretraining took: 0 from scratch, NaN where it is not told (a run still going on)."""
    counted: dict[str, Any] = done.get("pretrain") or {}
    otherwise = 0.0 if from_scratch else np.nan
    return {
        "pretrain_jets": float(counted.get("jets", otherwise)),
        "pretrain_constituents": float(counted.get("constituents", otherwise)),
        "pretrain_n_params": float(counted.get("n_params", {}).get("total", otherwise)),
    }


def _rate(done: dict[str, Any], configured: Any) -> float:
    """Peak learning rate of fine-tuning: as it was used, or as configured where that is a number."""
    found = done.get("lr", configured)
    return float(found) if isinstance(found, int | float) else np.nan


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects of a metrics.jsonl; a torn last line (a killed run) is left out.

    Raises
    ------
    UsageError
        A line before the last that is not a JSON object, named by number.
    """
    lines = path.read_text().splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if number == len(lines):
                break
            raise UsageError(f"{path}:{number}: not a JSON object ({error}); the file is damaged") from error
        found.append(entry)
    return found
