"""Which runs train with the captured step, and why the others do not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from jetscale.jets.datamodule import JetDataModule
from jetscale.model.kernels.gpu import unusable
from jetscale.model.network import Network
from jetscale.model.transformer import SetTransformer
from jetscale.training import ranks
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.outputs import Schedule
from jetscale.training.phase_settings import PhaseSettings
from jetscale.training.settings import TrainSettings

if TYPE_CHECKING:
    from jetscale.training.captured.module import CapturedClassifier

MOST_NUMBERS = 1 << 31
"""Of the largest activation, 4 D for each token: kernels count in 32 bits."""

log = logging.getLogger(__name__)


def module_for(
    settings: TrainSettings,
    phase: PhaseSettings,
    model: Network,
    data: JetDataModule,
    schedule: Schedule,
    precision: str,
) -> LeanClassifier:
    """The module that trains a phase: `CapturedClassifier` where it applies, else `LeanClassifier`.

    On a GPU one line of the log says why a phase goes step by step.

    Parameters
    ----------
    settings : of the run
    phase : of `settings`, its steps capped
    model, data : the network, and the jets it is trained on
    schedule : the steps that write
    precision : of the trainer
    """
    on_gpu = settings.device.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    callbacks = bool(settings.callbacks)
    if on_gpu:
        largest = max(phase.batch_size, settings.eval.batch_size if schedule.evaluations else 0)
        tokens = largest * (data.source.max_constituents + 1)
        reason = why_eager(model, precision, callbacks, tokens, torch.device("cuda"))
        if reason is None:
            return captured(settings, phase, model, data, schedule)
        log.info("the steps are not captured as CUDA graphs, and take several times longer: %s", reason)
    return LeanClassifier(model, phase, settings.ema, settings.tracking.log_every, hooks=callbacks)


def captured(
    settings: TrainSettings,
    phase: PhaseSettings,
    model: Network,
    data: JetDataModule,
    schedule: Schedule,
) -> CapturedClassifier:
    """The module whose steps are captured; parameters as for `module_for`. Needs Triton."""
    from jetscale.training.captured.module import CapturedClassifier

    assert isinstance(model, SetTransformer)
    return CapturedClassifier(model, phase, settings.ema, settings.tracking.log_every, data, schedule)


def why_eager(
    model: Network, precision: str, callbacks: bool, tokens: int, device: torch.device
) -> str | None:
    """Why the steps of a phase cannot be captured; None where they can.

    Parameters
    ----------
    model : the network
    precision : of the trainer
    callbacks : whether the run has callbacks of the user, which may look at gradients and at every step
    tokens : most of a batch, were all its jets as long as they may be
    device : where the phase is trained
    """
    if ranks.world_size() > 1:
        return f"{ranks.world_size()} processes share the run"
    if callbacks:
        return "the run has callbacks, which may look at each step"
    if tokens * 4 * model.dim >= MOST_NUMBERS:
        return f"a batch can have {tokens:,} tokens of width {model.dim}, too many for the kernels' indices"
    return unusable(model, precision, device)
