"""Which runs train with the captured step, and why the others do not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from jetscale.jets.datamodule import JetDataModule
from jetscale.model.kernels.gpu import unusable
from jetscale.model.network import Network
from jetscale.model.transformer import SetTransformer
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.outputs import Schedule
from jetscale.training.phase_settings import PhaseSettings
from jetscale.training.settings import TrainSettings

if TYPE_CHECKING:
    from jetscale.training.captured.module import CapturedClassifier

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
    if on_gpu:
        reason = why_eager(settings, phase, model, precision, torch.device("cuda"))
        if reason is None:
            return captured(settings, phase, model, data, schedule)
        log.info("the steps are not captured as CUDA graphs, and take several times longer: %s", reason)
    hooks = bool(settings.callbacks)
    return LeanClassifier(model, phase, settings.ema, settings.tracking.log_every, hooks)


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
    settings: TrainSettings, phase: PhaseSettings, model: Network, precision: str, device: torch.device
) -> str | None:
    """Why the steps of a phase cannot be captured; None where they can.

    The test jets have no say in it: an evaluation takes smaller batches where its own do not fit.

    Parameters
    ----------
    settings : of the run, whose processes and callbacks decide with
    phase : of `settings`, whose batch decides with
    model : the network; its weights may be on the meta device
    precision : of the trainer
    device : where the phase is trained
    """
    processes = settings.device.devices * settings.device.num_nodes
    if processes > 1:
        return f"{processes} processes share the run"
    if settings.callbacks:
        return "the run has callbacks, which may look at each step"
    if reason := unusable(model, precision, device):
        return reason
    from jetscale.training.captured.limits import too_large  # needs Triton, which `unusable` has found

    assert isinstance(model, SetTransformer)
    return too_large(model, phase, settings.data.max_constituents)
