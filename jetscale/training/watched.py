"""How a run is called and described where it is watched: in W&B and in the user's loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jetscale.runs.layout import Place
from jetscale.runs.record import git_state
from jetscale.tracking.wandb_environment import Destination
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training import ranks
from jetscale.training.build import design
from jetscale.training.learning_rates import learning_rate
from jetscale.training.phase_settings import Phase, PhaseSettings
from jetscale.training.settings import DeviceSettings, TrainSettings, public

_LONGEST_NAME = 128
"""W&B's limit for names of runs and groups, in characters."""


def hyperparameters(settings: TrainSettings, variant: str) -> dict[str, Any]:
    """What runs are grouped by, as flat keys, and then every setting; passwords are masked.

    Parameters
    ----------
    settings : of the run
    variant : what the run varied besides subset, width and seed

    Returns
    -------
    First ``study``, ``subset``, ``seed``, ``variant``, ``dim``, ``arch``, ``gpu``, ``commit`` (of a checkout,
    with ``+`` where it has changes), and of each phase the number that its settings give: ``lr``, ``steps``
    and ``batch_size`` of fine-tuning, ``pretrain_lr`` and so on (0 steps from scratch). Then the settings,
    nested as in ``config.yaml``.
    """
    every = public(settings)
    flat = {
        "study": settings.study,
        "subset": settings.subset,
        "seed": settings.seed,
        "variant": variant,
        "dim": settings.model.dim,
        "arch": settings.model.arch,
        "gpu": _gpu(settings.device),
        **_commit(),
        **_of_phase("", settings.finetune, settings.model.dim),
    }
    pretrains = settings.pretrain.composition is not None
    flat |= (
        _of_phase("pretrain_", settings.pretrain, settings.model.dim) if pretrains else {"pretrain_steps": 0}
    )
    return {**flat, **{key: value for key, value in every.items() if key not in flat}}


def _of_phase(prefix: str, phase: PhaseSettings, dim: int) -> dict[str, Any]:
    return {
        f"{prefix}lr": learning_rate(phase.lr, dim),
        f"{prefix}steps": phase.steps,
        f"{prefix}batch_size": phase.batch_size,
    }


def _commit() -> dict[str, str]:
    state = git_state()
    return {} if state is None else {"commit": state["commit"][:12] + ("+" if state["dirty"] else "")}


def _gpu(device: DeviceSettings) -> str:
    """Type of the GPU that the run computes on; ``none`` on a CPU."""
    if device.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if device.accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "Apple"
    return "none"


def shown_name(settings: TrainSettings, variant: str) -> str:
    """What the run is called where it is shown beside others."""
    label = Place(settings.subset, settings.model.dim, settings.seed).label
    return f"{label} {variant}"[:_LONGEST_NAME] if variant else label


def wandb_of(settings: TrainSettings, directory: Path, variant: str) -> WandbRun:
    """The run in W&B, begun or gone on with; disabled on all ranks but the first.

    Parameters
    ----------
    settings : of the run
    directory : the run directory
    variant : what the run varied besides subset, width and seed
    """
    place = Place(settings.subset, settings.model.dim, settings.seed)
    group = f"{settings.study}/{place.group}"
    destination = Destination(
        project=settings.tracking.project,
        entity=settings.tracking.entity,
        group=f"{group}/{variant}"[:_LONGEST_NAME] if variant else group,
        name=shown_name(settings, variant),
        tags=(settings.study, settings.subset, f"dim={place.dim}"),
    )
    mode = settings.tracking.wandb if ranks.is_first() else "disabled"
    return WandbRun(
        mode,
        directory,
        {} if mode == "disabled" else hyperparameters(settings, variant),
        destination,
        _pretraining_steps(settings),
    )


def _pretraining_steps(settings: TrainSettings) -> int:
    """Steps of pretraining that the run makes, cut to ``pretrain.max_flops``; 0 from scratch."""
    if not settings.pretrain.composition:
        return 0
    with torch.device("meta"):  # sizes alone: no weight is drawn
        phase, _, _ = design(settings, Phase.PRETRAIN)
    return phase.steps
