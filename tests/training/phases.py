"""Whole phases for the tests of the captured step: trained by one step or another, killed, compared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: it comes with CUDA builds of torch")

from jetscale.jets.evaluation import EvalSet
from jetscale.jets.settings import DataSettings
from jetscale.runs.directory import RunDirectory
from jetscale.tracking.wandb_environment import Destination
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training.build import build, outputs_of
from jetscale.training.captured import choice
from jetscale.training.captured.module import CapturedClassifier
from jetscale.training.checkpoint import Checkpoints
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.outputs import Outputs
from jetscale.training.phase import PhaseResult, fit_phase
from jetscale.training.phase_settings import FinetuneSettings, Phase
from jetscale.training.settings import (
    EmaSettings,
    EvalSettings,
    ModelSettings,
    TrackingSettings,
    TrainSettings,
)
from tests.runs import metrics_of
from tests.training.oracle import OracleEvaluation, OracleStep

RATE = 2.0**-10
"""A learning rate that float32 holds exactly."""


def settings_of(jets: Path, steps: int = 30, **finetune: Any) -> TrainSettings:
    """Steps that write, save and evaluate, and do not coincide; 100 test jets are no multiple of a batch."""
    settings = TrainSettings(
        model=ModelSettings(dim=8),
        data=DataSettings(dir=str(jets), repeat=True, max_constituents=40, undo_deta_flip=True),
        finetune=FinetuneSettings(**{"steps": steps, "batch_size": 8, "warmup": 0, "lr": RATE, **finetune}),
        eval=EvalSettings(jets=100, every=11, log_points=3, batch_size=8, final_all=True),
        ema=EmaSettings(enabled=True, fraction=0.5, max_window=8),  # windows from 1 to 8 steps
        tracking=TrackingSettings(log_every=5, progress=False),
        checkpoint_every=7,
    )
    settings.device.accelerator = "cpu"
    return settings


@dataclass
class Made:
    """A phase that was trained."""

    folder: Path
    result: PhaseResult
    checkpoints: dict[int, dict[str, Any]]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return metrics_of(self.folder)

    @property
    def blocks(self) -> Any:
        return pq.read_table(self.folder / "test_blocks.parquet")


def with_oracle(settings: TrainSettings, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
    return CapturedClassifier(
        model, phase, settings.ema, settings.tracking.log_every, data, schedule, OracleStep, OracleEvaluation
    )


def with_kernels(settings: TrainSettings, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
    return choice.captured(settings, phase, model, data, schedule)


def outputs_in(folder: Path) -> Outputs:
    folder.mkdir(exist_ok=True)
    silent = WandbRun("disabled", folder, {}, Destination(None, None, "", "", ()))
    return outputs_of(Phase.FINETUNE, RunDirectory(folder, "x"), silent)


def trained(
    settings: TrainSettings,
    folder: Path,
    make: Callable[..., LeanClassifier] | None = None,
    tested: bool = True,
) -> Made:
    """Train a phase, or go on with it, by the eager step or by `make`; `tested`: with a test set."""
    phase, network, data = build(settings, Phase.FINETUNE)
    outputs = outputs_in(folder)
    kept: dict[int, dict[str, Any]] = {}

    class Noted(Checkpoints):
        def save(self, state: dict[str, Any], step: int) -> None:
            super().save(state, step)
            kept[step] = self.load() or {}

    outputs.checkpoints = Noted(outputs.checkpoints.directory, outputs.checkpoints.phase)
    test = EvalSet(settings.data, "jetclass", n_jets=settings.eval.jets) if tested else None
    more = {} if make is None else {"make_module": make}
    result = fit_phase(settings, phase, network, data, outputs, test, **more)
    return Made(folder, result, kept)


def same_bits(one: Any, two: Any, path: str = "") -> None:
    """Assert that two state dicts hold the same, tensors to the last bit."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype, path
        assert torch.equal(one, two), path
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            same_bits(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), path
        for number, pair in enumerate(zip(one, two, strict=True)):
            same_bits(*pair, path=f"{path}[{number}]")
    else:
        assert one == two, path


def same(one: Made, two: Made) -> None:
    assert one.lines == two.lines
    assert one.blocks.equals(two.blocks)
    same_bits(one.result.weights, two.result.weights)
    same_bits(one.result.average, two.result.average)
    assert one.result.record | {"seconds": 0} == two.result.record | {"seconds": 0}


def same_checkpoints(one: Made, two: Made) -> None:
    assert one.checkpoints.keys() == two.checkpoints.keys()
    for step, state in one.checkpoints.items():
        # `metrics` is a checksum with `seconds` in it, and PyTorch's loader, which the captured step has none
        # of, draws a number at its start
        for key in state.keys() - {"seconds", "metrics", "generators"}:
            same_bits(state[key], two.checkpoints[step][key], f"step {step}: {key}")


class Killed(Exception):
    pass


def killing(make: Callable[..., LeanClassifier] | None, step: int) -> Callable[..., LeanClassifier]:
    """As `make`, but the process dies in the Lightning step that would go beyond `step`."""

    def made(*arguments: Any) -> LeanClassifier:
        module = (make or choice.module_for)(*arguments)
        take = module.training_step

        def step_or_die(batch: Any, batch_idx: int) -> None:
            take(batch, batch_idx)
            if module.step > step:
                raise Killed

        module.training_step = step_or_die  # type: ignore[method-assign]  # of this module alone
        return module

    return made


def feeding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jetscale feed"]
