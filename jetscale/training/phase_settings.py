"""Typed settings of one phase of a run: how it trains, and on what.

Defaults are the paper's (arXiv:2606.19781) where it gives one; budgets in ``conf/budget`` replace them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from jetscale.common.fields import COUNT, SEED, OneOf, Range, Replaced
from jetscale.common.registry import Registered
from jetscale.common.usage import SettingsError
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.errors import JetDataError
from jetscale.jets.ordering.compositions import check_request
from jetscale.runs.layout import BACKBONES, SWEEPS
from jetscale.training.learning_rates import SCHEDULES, checked_rate, learning_rate

BATCH = Range(1, 1_000_000)
"""Jets in a batch."""
_STEPS = Range(0, COUNT.high)


class Phase(StrEnum):
    """The two phases of a run; the values stand in ``metrics.jsonl`` and in names of checkpoints."""

    PRETRAIN = "pretrain"
    FINETUNE = "finetune"


@dataclass
class PhaseSettings:
    """One training phase, AdamW throughout.

    Attributes
    ----------
    steps : optimiser steps
    max_flops : cap on the phase's compute C = 6 N 40 jets; steps are cut to fit (D capped per width), null
        for none
    batch_size : jets a step, over all ranks
    lr : a number, ``{table: {8: 3e-3, 16: 2e-3}}``, or ``{base: 1e-3, dim: 64, power: -0.5}`` for
        base*(d/dim)^power
    warmup : steps of linear warm-up
    schedule : ``constant`` or ``cosine`` (falls after the warm-up, to zero one step after the last)
    weight_decay, beta1, beta2 : AdamW's
    clip : gradient norm limit, null for none (the paper names none)
    """

    steps: Annotated[int, COUNT] = 1
    max_flops: Annotated[float | None, Range(0, 1e40, without="low")] = None
    batch_size: Annotated[int, BATCH] = 128
    lr: Annotated[Any, Replaced()] = 1e-3
    warmup: Annotated[int, _STEPS] = 0
    schedule: Annotated[str, OneOf(*SCHEDULES)] = "constant"
    weight_decay: Annotated[float, Range(0, 1_000)] = 0.01
    beta1: Annotated[float, Range(0, 1, without="high")] = 0.9
    beta2: Annotated[float, Range(0, 1, without="high")] = 0.999
    clip: Annotated[float | None, Range(0, without="low")] = None

    def check_rate(self, name: Phase, dim: int | None) -> None:
        """Raise where `lr` is no learning rate, or has none for the width `dim`.

        Parameters
        ----------
        name : which phase this is, for the message
        dim : width of the model; None for a phase that is not run, whose table may lack the width

        Raises
        ------
        SettingsError
        """
        try:
            checked_rate(self.lr)
            if dim is not None:
                learning_rate(self.lr, dim)
        except ValueError as error:
            raise SettingsError(f"{name}.lr={self.lr}: {error}") from error

    def check_shares(self, name: Phase, devices: int, num_nodes: int) -> None:
        """Raise where a batch cannot be divided equally among the processes of a run.

        Parameters
        ----------
        name : which phase this is, for the message
        devices, num_nodes : processes on each machine, and machines

        Raises
        ------
        SettingsError
        """
        ranks = devices * num_nodes
        if self.batch_size % ranks:
            raise SettingsError(
                f"{name}.batch_size={self.batch_size} cannot be shared equally by device.devices="
                f"{devices} x device.num_nodes={num_nodes}; "
                f"take a multiple of {ranks}, for example {-(-self.batch_size // ranks) * ranks}"
            )

    def check_warmup(self, name: Phase) -> None:
        """Raise where the warm-up does not end within the phase, whose steps may have been cut.

        Raises
        ------
        SettingsError
        """
        if self.warmup > self.steps:
            raise SettingsError(
                f"{name}.warmup={self.warmup} is longer than the phase, {name}.steps={self.steps}"
                + (f" within max_flops={self.max_flops:g}" if self.max_flops else "")
                + f": the learning rate would never be reached; give {name}.warmup a smaller number of steps"
            )


@dataclass
class PretrainSettings(PhaseSettings):
    """Pretraining.

    Attributes
    ----------
    dataset : name of the dataset, JetClass-II by default
    composition : weights of classes, buckets or label globs, or ``{NAME: {weight: 1, classes: Res34P,
        prongs: [3, 4], flavours: [b], without: [e, m, tau], jet_pt: [500, 1000], jet_sdmass: [50, 200]}}``
        (windows in GeV; see docs/compositions.md); null means no pretraining (scratch)
    seed : null takes the run's seed; a number shares one pretraining between run seeds
    library : folder of finished backbones, reused where settings and data are the same
    """

    dataset: Annotated[str, Registered(DATASETS)] = "jetclass2"
    steps: Annotated[int, COUNT] = 200_000
    warmup: Annotated[int, _STEPS] = 1_000
    composition: Annotated[Any, Replaced()] = None
    seed: Annotated[int | None, SEED] = None
    library: str = f"{SWEEPS}/{BACKBONES}"

    def check_composition(self) -> None:
        """Raise where `composition` is not one.

        Raises
        ------
        SettingsError
        """
        # not typed dict[str, float]: OmegaConf 2.3 cannot fill such a field from the command line
        if self.composition is None:
            return
        try:
            check_request(self.composition, DATASETS[self.dataset])
        except JetDataError as error:
            raise SettingsError(f"pretrain.{error}") from error


@dataclass
class FinetuneSettings(PhaseSettings):
    """Fine-tuning, and the test; from fresh weights where there is no pretraining.

    Attributes
    ----------
    dataset : name of the dataset, JetClass by default; top_tagging needs data.features=kinematics
    """

    dataset: Annotated[str, Registered(DATASETS)] = "jetclass"
    steps: Annotated[int, COUNT] = 600_000
    warmup: Annotated[int, _STEPS] = 5_000
