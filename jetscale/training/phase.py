"""One phase, pretraining or fine-tuning: built, resumed where it was, run to its last step."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from jetscale.common.files import fingerprint
from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.common.usage import SettingsError
from jetscale.jets.datamodule import JetDataModule
from jetscale.jets.evaluation import EvalSet
from jetscale.model.cost import flops_6n
from jetscale.model.network import Network
from jetscale.training import ranks
from jetscale.training.callbacks.checkpointer import Checkpointer
from jetscale.training.callbacks.metrics_writer import MetricsWriter
from jetscale.training.callbacks.preemption import Preemption
from jetscale.training.callbacks.progress import PhaseProgress
from jetscale.training.callbacks.test_evaluator import TestEvaluator
from jetscale.training.captured.choice import module_for
from jetscale.training.evaluate import TestLoss
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.outputs import Outputs, Schedule
from jetscale.training.phase_settings import PhaseSettings
from jetscale.training.placement import placement
from jetscale.training.preemption import NOTICE
from jetscale.training.settings import DeviceSettings, TrainSettings
from jetscale.training.user_additions import user_callbacks

# Warnings of Lightning that a user can do nothing about.
_HUSHED = (
    # one process a run that reads a memory map is what the measurements favour
    r"The '.*' does not have many workers",
    # about Lightning's logging, which writes none of our lines
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # Lightning 2.6 against torch 2.13
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # one process a run needs no srun
    r"The `srun` command is available",
)


@dataclass(frozen=True)
class PhaseResult:
    """What a finished phase leaves in memory.

    Attributes
    ----------
    weights, average : state dicts of the raw weights and of their moving average (None without one)
    record : jets, constituents, flops, seconds, n_params by kind, precision; for ``done.json``
    test : last test loss by kind of weights, empty for a phase without a test set
    """

    weights: dict[str, Any]
    average: dict[str, Any] | None
    record: dict[str, Any]
    test: dict[str, TestLoss]


def fit_phase(
    settings: TrainSettings,
    phase: PhaseSettings,
    model: Network,
    data: JetDataModule,
    outputs: Outputs,
    test: EvalSet | None,
    make_module: Callable[..., LeanClassifier] = module_for,
) -> PhaseResult:
    """Train `model` for `phase.steps` steps, from the newest checkpoint of the phase where there is one.

    Parameters
    ----------
    phase : of `settings`, its steps capped
    model : the network, trained in place
    data : batches of the training split, ready to be read
    outputs : where the phase writes
    test : test jets of the curve; None for a phase without a test loss
    make_module : chooses how steps are computed, see `module_for`; tests take the captured step on a CPU

    Raises
    ------
    NonFiniteLoss
        The loss became NaN or infinite.
    CheckpointError
        No checkpoint can be read, or it was made on other data, with other settings or in another precision.
    SettingsError
        A user's callback cannot be made, cannot work in this run, or ended the phase before its last step.
    Preempted
        The process was asked to stop (`jetscale.training.preemption`).
    """
    users = user_callbacks(settings.callbacks)
    schedule = _schedule(settings, phase, test)
    precision = _precision(settings.device)
    module = make_module(settings, phase, model, data, schedule, precision)
    writer = MetricsWriter(outputs, schedule)
    test_all = (
        EvalSet(settings.data, settings.dataset_of(outputs.phase))
        if test and settings.eval.final_all
        else None
    )
    tester = TestEvaluator(writer, test, test_all, settings.eval.batch_size)
    stamp = fingerprint([data.fingerprint, test.fingerprint if test else None])
    checkpointer = Checkpointer(writer, users, stamp, precision)
    checkpointer.restore(module)
    callbacks = [  # the order matters, see jetscale.training.callbacks
        writer,
        tester,
        *users.values(),
        checkpointer,
        Preemption(outputs, writer.schedule, checkpointer),
        PhaseProgress(writer, module, settings.tracking.progress),
    ]
    data.start_step = module.start_step
    trainer = _trainer(settings, outputs, callbacks)
    with warnings.catch_warnings(), NOTICE.restoring_handlers(), _unfilled_memory():
        for message in _HUSHED:
            warnings.filterwarnings("ignore", message=message)
        NOTICE.listen()  # before the first step too: Lightning would make status 1 of a ctrl-C
        with module.feeding(data, trainer.strategy.root_device) as batches, _refusals_told(settings):
            trainer.fit(module, **batches)
    _require_last_step(module, outputs, settings)
    return _result(module, writer, tester, precision)


def capped_steps(phase: PhaseSettings, n_params: int) -> PhaseSettings:
    """`phase` with its steps cut to `max_flops`, counted as C = 6 N 40 jets.

    Raises
    ------
    SettingsError
        The cap is below one step.
    """
    if phase.max_flops is None:
        return phase
    one_step = flops_6n(n_params, MEAN_CONSTITUENTS * phase.batch_size)
    affordable = int(phase.max_flops / one_step)
    if affordable < 1:
        raise SettingsError(
            f"max_flops={phase.max_flops:.15g} does not pay one step of a model with N={n_params}; "
            f"at least {math.ceil(one_step)} is needed"
        )
    return replace(phase, steps=min(phase.steps, affordable))


def _schedule(settings: TrainSettings, phase: PhaseSettings, test: EvalSet | None) -> Schedule:
    evaluations = settings.eval.evaluation_steps(phase.steps) if test else frozenset()
    return Schedule(phase.steps, settings.tracking.log_every, settings.checkpoint_every, evaluations)


def _require_last_step(module: LeanClassifier, outputs: Outputs, settings: TrainSettings) -> None:
    """Demand that a phase made all its steps: D and the names of what it leaves are those of the settings.

    Raises
    ------
    SettingsError
        It ended earlier, as Lightning does where a callback sets ``trainer.should_stop``.
    """
    made, steps = module.step, module.phase.steps
    if made == steps:
        return
    names = ", ".join(f"callbacks.{name}" for name in settings.callbacks) or "nothing that the settings name"
    raise SettingsError(
        f"{outputs.phase} ended after step {made} of {steps}, without an error, and nothing finished is "
        f"written: a loss after {made} steps would count as one after {steps}. A callback may have stopped "
        f"the Trainer ({names}); leave out the one that does, or set {outputs.phase}.steps to the steps that "
        "you want, or take a lightning.Trainer of your own (docs/training.md)"
    )


@contextmanager
def _refusals_told(settings: TrainSettings) -> Iterator[None]:
    """Have what Lightning refuses in a run with callbacks of the user say what to do.

    Raises
    ------
    SettingsError
        A callback cannot work with the Trainer of a run, for example without a logger.
    """
    try:
        yield
    except MisconfigurationException as error:
        if not settings.callbacks:
            raise
        why = str(error).splitlines()[0].rstrip(".")
        way_out = "leave the callback out, or take a lightning.Trainer of your own (docs/training.md)"
        if not settings.loggers and "logger" in why.lower():
            way_out = (
                "a logger is missing, for example 'loggers.csv={_target_: "
                "lightning.pytorch.loggers.CSVLogger}'"
            )
        named = [f"callbacks.{name}={entry['_target_']}" for name, entry in settings.callbacks.items()]
        raise SettingsError(f"{', '.join(named)}: Lightning refuses: {why}; {way_out}") from error


@contextmanager
def _unfilled_memory() -> Iterator[None]:
    """New tensors as they come; deterministic PyTorch fills them with NaN, 0.5 of 8 ms a step at width 8.

    No kernel reads what it has not written.
    """
    switch: Any = torch.utils.deterministic
    before, switch.fill_uninitialized_memory = switch.fill_uninitialized_memory, False
    try:
        yield
    finally:
        switch.fill_uninitialized_memory = before


def _precision(device: DeviceSettings) -> str:
    if device.precision != "auto":
        return device.precision
    cuda = device.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if cuda else "32-true"


def _trainer(settings: TrainSettings, outputs: Outputs, callbacks: list[L.Callback]) -> L.Trainer:
    device = settings.device
    # its tips and device lists, once a phase of every run of a sweep
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return L.Trainer(
        accelerator=device.accelerator,
        **ranks.trainer_devices(device),
        num_nodes=device.num_nodes,
        plugins=[placement()],  # else Lightning would guess, and under Slurm take over its signals
        precision=_precision(device),  # type: ignore[arg-type]  # Lightning checks the string
        max_epochs=1,  # the loader ends with the last step
        callbacks=callbacks,
        deterministic=True if not torch.cuda.is_available() else "warn",
        # where users' callbacks may write; in the current folder Lightning would load ./hpc_ckpt_*.ckpt
        default_root_dir=outputs.directory,
        logger=outputs.loggers.all or False,
        # the run directory is ours: nothing of Lightning's writes, validates or shards
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _result(
    module: LeanClassifier, writer: MetricsWriter, tester: TestEvaluator, precision: str
) -> PhaseResult:
    steps = module.phase.steps
    jets = steps * module.phase.batch_size
    counts = module.model.count_parameters()
    average = None
    if module.average is not None:
        with module.average.applied():
            average = {
                name: value.detach().cpu().clone() for name, value in module.model.state_dict().items()
            }
    record = {
        "steps": steps,
        "jets": jets,
        "constituents": writer.constituents,
        "flops": flops_6n(counts.total, MEAN_CONSTITUENTS * jets),
        "seconds": writer.seconds,
        "n_params": {**vars(counts), "total": counts.total},
        "batch_size": module.phase.batch_size,
        "lr": module.peak_rate,
        "precision": precision,
    }
    weights = {name: value.detach().cpu() for name, value in module.model.state_dict().items()}
    return PhaseResult(weights, average, record, tester.last)
