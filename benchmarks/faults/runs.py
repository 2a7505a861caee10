"""Run directories, whole and interrupted, and the library of backbones."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hydra import compose, initialize_config_dir

from benchmarks.faults.digests import digest
from benchmarks.faults.flips import FilesKind
from benchmarks.jet_files import write_file
from jetscale.analysis.tables.sources import local
from jetscale.common.config_safety import CONF
from jetscale.jets.datasets.base import jet_file
from jetscale.jets.datasets.jetclass import JETCLASS_LABELS
from jetscale.launch.hydra_setup import register
from jetscale.simulate.output_files import Target
from jetscale.simulate.production import simulate
from jetscale.training.checkpoint import read_checkpoint
from jetscale.training.run import run
from jetscale.training.settings import TrainSettings, from_config

TINY = (
    "+experiment=qcd", "budget=smoke", "data.repeat=true", "model.dim=8", "model.depth=1",
    "pretrain.steps=6", "pretrain.batch_size=8", "finetune.steps=12", "finetune.batch_size=8",
    "checkpoint_every=3", "tracking.log_every=3", "eval.every=6", "eval.jets=100",
    "tracking.wandb=disabled", "tracking.progress=false",
)  # fmt: skip
KILLED_AT = 6
"""Step of fine-tuning at which the interrupted run is killed."""
OTHER = ("seed=1", "pretrain.seed=0")
"""A run that starts from the same backbone."""
TEST_NUMBER = 100
"""Number of a JetClass file of the test split."""


def _data(folder: Path) -> Path:
    """Random jets to fine-tune on, simulated ones to pretrain on."""
    for number, label in enumerate(JETCLASS_LABELS):
        write_file(folder, label, 0, 20 + number)
        write_file(folder, label, TEST_NUMBER, 10)
    simulate([Target(folder, jet_file("jetclass2", "QCD", 0), 60, seed=0, mpi=False)], 1, folder)
    return folder


@cache
def settings_of(*overrides: str) -> TrainSettings:
    """Settings of a run, composed once, before any child is forked: Hydra needs 3 seconds for it."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return from_config(compose("train", overrides=[*TINY, *overrides]))


def _go(folder: Path, name: str = "run", *overrides: str) -> dict[str, Any]:
    """One run in this process; returns its ``done.json``."""
    settings = settings_of(*overrides)
    data = replace(settings.data, dir=str(folder / "data"))
    pretrain = replace(settings.pretrain, library=str(folder / "backbones"))
    return run(replace(settings, data=data, pretrain=pretrain), folder / "runs" / name)


def _in_another_process(folder: Path, kill_at: int | None = None) -> None:
    """Make the run, or kill it: a process that has trained once can fork no other that trains."""
    settings_of()
    child = os.fork()
    if child == 0:
        _go(folder)
        os._exit(0)
    metrics = folder / "runs" / "run" / "metrics.jsonl"
    while kill_at is not None and not (metrics.exists() and _step(metrics) >= kill_at):
        if os.waitpid(child, os.WNOHANG)[0]:
            raise RuntimeError(f"the run ended before step {kill_at} was seen")
        time.sleep(0.001)
    if kill_at is not None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != (0 if kill_at is None else -signal.SIGKILL):
        raise RuntimeError(f"{folder}: the run ended with {status}")


def _step(metrics: Path) -> int:
    lines = [line for line in metrics.read_text().splitlines() if '"finetune"' in line and line.endswith("}")]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _finish(folder: Path) -> None:
    settings_of(*OTHER)
    _data(folder / "data")
    _in_another_process(folder)


def _interrupt(folder: Path) -> None:
    _data(folder / "data")
    _in_another_process(folder, KILLED_AT)


def _read(folder: Path) -> str:
    """Find the run done, read it as the analysis does, load its weights."""
    done = _go(folder)
    place = folder / "runs" / "run"
    losses = local.load(folder / "runs")
    weights = read_checkpoint(place / "checkpoints" / "final.pt")
    blocks = pq.read_table(place / "test_blocks.parquet").to_pandas()
    return digest(done, losses.frame, losses.warnings, weights, blocks, (place / "config.yaml").read_bytes())


def _go_on(folder: Path) -> str:
    """Go on with an interrupted run to its end."""
    done = _go(folder)
    place = folder / "runs" / "run"
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    told = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    blocks = pq.read_table(place / "test_blocks.parquet").to_pandas()
    return digest(done["final"], told, blocks, read_checkpoint(place / "checkpoints" / "final.pt"))


def _start_from_backbone(folder: Path) -> str:
    """A run of another seed, which finds the same backbone in the library."""
    done = _go(folder, "other", *OTHER)
    weights = read_checkpoint(folder / "runs" / "other" / "checkpoints" / "final.pt")
    return digest(done["final"], done["pretrain"]["jets"], weights)


KINDS = (
    FilesKind("finished run directory", 200, _finish, lambda folder: _files(folder / "runs"), _read),
    FilesKind(
        "interrupted run directory",
        50,
        _interrupt,
        lambda folder: _files(folder / "runs"),
        _go_on,
        changes=True,
    ),
    FilesKind(
        "pretrained backbone in the library",
        40,
        _finish,
        lambda folder: _files(folder / "backbones"),
        _start_from_backbone,
        changes=True,
    ),
)
