"""Plan a sweep before it starts: runs, jets, operations, disk space, and time on this device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from jetscale.common.files import DamagedFile, fingerprint
from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.common.usage import UsageError
from jetscale.jets.source import JetSource
from jetscale.launch.jobs import Job
from jetscale.launch.probe import Step, seconds_per_step, step_of
from jetscale.model.cost import flops_6n
from jetscale.runs.layout import N_BLOCKS, SWEEP_PLAN
from jetscale.runs.sealed import read_json, write_json_sealed
from jetscale.training.build import design
from jetscale.training.phase_settings import Phase
from jetscale.training.settings import TrainSettings
from jetscale.training.supply import check_found, needs_of

FORWARD_SHARE = 1 / 3
"""Share of a training step's operations that is in the forward pass: the cost of evaluating a jet."""
_BYTES_PER_BLOCK_ROW = 9.5
"""Measured: 60 evaluations of 1,000 random block losses (zstd)."""
_BYTES_PER_LINE = 270
"""Measured: `metrics.jsonl`."""

Report = Callable[[int, int], None]
"""Called with the number of measurements done and of all to do."""


@dataclass(frozen=True)
class PhasePlan:
    """One phase of one run.

    Attributes
    ----------
    settings, name : the run's settings and ``pretrain`` or ``finetune``
    source : the jets that it trains on
    n_params : N
    steps : optimiser steps, capped
    evaluations : times that the test loss is taken
    step : what a step is on this machine
    kind : phases of one kind take the same time a step
    """

    settings: TrainSettings
    name: Phase
    source: JetSource
    n_params: int
    steps: int
    batch_size: int
    evaluations: int
    step: Step
    kind: str

    @property
    def jets(self) -> int:
        """Jets seen."""
        return self.steps * self.batch_size

    @property
    def flops(self) -> float:
        """The paper's C = 6 N 40 jets."""
        return flops_6n(self.n_params, MEAN_CONSTITUENTS * self.jets)

    @property
    def step_equivalents(self) -> float:
        """Steps, evaluations counted as the steps that take as long."""
        evaluated = self.evaluations * self.settings.eval.jets * _weights(self.settings)
        return self.steps + FORWARD_SHARE * evaluated / self.batch_size

    @property
    def kept_bytes(self) -> float:
        """Weights, block losses and metrics that stay on disk."""
        rows = self.evaluations * min(self.settings.eval.jets, N_BLOCKS) * _weights(self.settings)
        lines = self.steps / self.settings.tracking.log_every + self.evaluations * _weights(self.settings)
        weights = 4 * self.n_params * _weights(self.settings)
        return weights + _BYTES_PER_BLOCK_ROW * rows + _BYTES_PER_LINE * lines

    @property
    def checkpoint_bytes(self) -> float:
        """Two checkpoints of weights, their average and AdamW's two moments, while the phase runs."""
        return 2 * 4 * self.n_params * (2 + _weights(self.settings))


@dataclass(frozen=True)
class RunPlan:
    """One run: its job, its fine-tuning, and the pretraining it starts from (None for scratch)."""

    job: Job
    finetune: PhasePlan
    pretrain: PhasePlan | None

    @property
    def phases(self) -> list[PhasePlan]:
        """Its phases, in their order."""
        return [phase for phase in (self.pretrain, self.finetune) if phase is not None]

    @property
    def backbone(self) -> str | None:
        """Pretrainings of one name are one pretraining."""
        return None if self.pretrain is None else fingerprint(self.job.settings.backbone_identity())


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes
    ----------
    runs : all its runs
    done : directories of those that are finished already
    step_seconds : by kind of phase, measured here; empty where nobody measured
    device : where it was measured, and of runs that several processes share, what
    """

    runs: Sequence[RunPlan]
    done: frozenset[Path]
    step_seconds: dict[str, float]
    device: str

    @cached_property
    def phases(self) -> list[PhasePlan]:
        """Every phase that has to be run once for the whole sweep: a shared pretraining counts once."""
        pretrainings = {run.backbone: run.pretrain for run in self.runs if run.pretrain is not None}
        return [*pretrainings.values(), *(run.finetune for run in self.runs)]

    @cached_property
    def to_do(self) -> Plan:
        """The part that is not finished."""
        return replace(self, runs=[run for run in self.runs if run.job.path not in self.done])

    def seconds(self, phases: Iterable[PhasePlan]) -> float:
        """Expected time of phases one after the other on the measured device."""
        return sum(self.step_seconds[phase.kind] * phase.step_equivalents for phase in phases)

    def check_jets(self) -> None:
        """Compare the jets that the unfinished runs need with those that are here now, before the first run.

        Raises
        ------
        JetDataError
            See `jetscale.training.supply.check_found`.
        """
        check_found(
            need
            for run in self.to_do.runs
            for need in needs_of(
                run.job.settings, {phase.name: (phase.source, phase.jets) for phase in run.phases}
            )
        )

    def write(self, sweep: Path) -> None:
        """Write ``plan.json`` for `jetscale.status`; runs of an earlier plan of this study are kept in it.

        Raises
        ------
        UsageError
            The earlier plan is damaged.
        """
        path = sweep / SWEEP_PLAN
        try:
            earlier = read_json(path)[0]["runs"] if path.exists() else []
        except (DamagedFile, KeyError) as error:
            raise UsageError(f"{error}; remove {path}: this command writes it anew") from error
        planned = [_entry(run, sweep) for run in self.runs]
        entries = {entry["directory"]: entry for entry in (*earlier, *planned)}
        write_json_sealed(path, {"runs": list(entries.values())})


def _entry(run: RunPlan, sweep: Path) -> dict[str, Any]:
    phases = {phase.name: phase for phase in run.phases}
    settings = run.job.settings
    return {
        "directory": str(run.job.path.relative_to(sweep)),
        "subset": settings.subset,
        "dim": settings.model.dim,
        "seed": settings.seed,
        "n_params": run.finetune.n_params,
        "steps": {name: phase.steps for name, phase in phases.items()},
        "jets": sum(phase.jets for phase in phases.values()),
        "flops": sum(phase.flops for phase in phases.values()),
    }


def plan_sweep(jobs: Sequence[Job], report: Report | None = None) -> Plan:
    """Plan a sweep.

    Parameters
    ----------
    jobs : the runs of the sweep, at least one
    report : told of progress while the time of a step is measured for every kind of phase; with None
        nothing is measured

    Raises
    ------
    RunDirectoryError
        A directory holds a finished run with other settings.
    """
    runs = [_run_plan(job) for job in jobs]
    done = frozenset(run.job.path for run in runs if run.job.directory.done() is not None)
    plan = Plan(runs, done, {}, _measured_on([phase for run in runs for phase in run.phases]))
    if report is None:
        return plan
    kinds = {phase.kind: phase for phase in plan.to_do.phases}
    measured = {}
    for number, (kind, phase) in enumerate(kinds.items()):
        report(number, len(kinds))
        _, model, _ = design(phase.settings, phase.name)
        measured[kind] = seconds_per_step(model, phase.step)
    report(len(kinds), len(kinds))
    return replace(plan, step_seconds=measured)


def _measured_on(phases: Sequence[PhasePlan]) -> str:
    devices = " and ".join(dict.fromkeys(_device_name(phase.step) for phase in phases))
    if all(_processes(phase.settings) == 1 for phase in phases):
        return devices
    return (
        f"{devices} (where several processes share a run: one of them alone, with its part of a batch and "
        "without the exchange of gradients)"
    )


def _device_name(step: Step) -> str:
    if step.device == "cuda":
        return torch.cuda.get_device_name()
    return "one CPU thread" if step.threads == 1 else f"{step.threads} CPU threads"


def _processes(settings: TrainSettings) -> int:
    return settings.device.devices * settings.device.num_nodes


def _run_plan(job: Job) -> RunPlan:
    settings = job.settings
    pretrain = _phase_plan(settings, Phase.PRETRAIN) if settings.pretrain.composition else None
    return RunPlan(job, _phase_plan(settings, Phase.FINETUNE), pretrain)


def _phase_plan(settings: TrainSettings, name: Phase) -> PhasePlan:
    with torch.device("meta"):  # sizes alone: no weight is drawn
        phase, model, data = design(settings, name)
    evaluated = settings.eval.evaluation_steps(phase.steps)
    step = step_of(settings, phase, model)
    return PhasePlan(
        settings=settings,
        name=name,
        source=data.source,
        n_params=model.count_parameters().total,
        steps=phase.steps,
        batch_size=phase.batch_size,
        evaluations=len(evaluated) if name is Phase.FINETUNE else 0,
        step=step,
        # Not the number of classes, since the head sees one token a jet: on a CPU steps with 10 and with 188
        # classes took the same time at widths 8 and 64, within the scatter of 3 to 8%.
        kind=fingerprint([vars(settings.model), data.n_features, vars(step)]),
    )


def _weights(settings: TrainSettings) -> int:
    """Sets of weights that are evaluated and kept: raw, and their average."""
    return 2 if settings.ema.enabled else 1
