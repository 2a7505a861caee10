"""One run: pretrain or find the backbone, fine-tune, leave a run directory (docs/training.md)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from jetscale.jets.evaluation import EvalSet
from jetscale.runs.blocks import BlockLog
from jetscale.runs.directory import DamagedRunError, RunDirectory, leave_traceback
from jetscale.runs.done import check_final, disagreement
from jetscale.runs.provenance import git_state, versions
from jetscale.tracking.wandb_environment import Destination
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training import ranks
from jetscale.training.backbone import WEIGHTS, Backbone, find_or_pretrain
from jetscale.training.build import build, outputs_of
from jetscale.training.checkpoint import write_weights
from jetscale.training.outputs import Outputs
from jetscale.training.phase import PhaseResult, fit_phase
from jetscale.training.preemption import Preempted
from jetscale.training.same_jets import JETS, jets_from, same_jets
from jetscale.training.settings import Phase, TrainSettings, public, to_yaml

log = logging.getLogger(__name__)


def run(settings: TrainSettings, path: Path, variant: str = "") -> dict[str, Any]:
    """Make the run in directory `path`, or go on with it, or return at once where it is done.

    Parameters
    ----------
    variant : what the run varied besides subset, width and seed, for ``done.json``
        (`jetscale.launch.hydra_setup.run_suffix`)

    Returns
    -------
    Content of ``done.json``.

    Raises
    ------
    RunDirectoryError
        The directory belongs to a run with other settings or on other jets, or (`RunBusy`) to a live
        process, or (`DamagedRunError`) one of its files is damaged.
    Preempted
        The process was asked to stop and left a checkpoint.
    Exception
        Whatever stopped the run; its traceback is in ``failed.log`` too.
    """
    torch.set_num_threads(settings.device.threads)
    ranks.join(settings.device)
    directory = RunDirectory(path, settings.identity(), same_jets(settings))
    with ranks.first_rank_holds(directory.claim):
        done = ranks.agreed(directory.done())
        if done is not None:
            log.info("%s is done already (final test loss %.4f)", path, done["final"]["raw"]["loss"])
            return done
        if ranks.is_first():
            directory.start(to_yaml(settings))
        wandb = _wandb(settings, directory, variant)
        try:
            with ranks.losses_named():
                record = _train(settings, directory, wandb, variant)
        except Exception as error:
            if ranks.is_first():
                leave_traceback(directory.path, error)
            wandb.finish({"error": f"{type(error).__name__}: {error}"}, exit_code=1)
            raise
        except Preempted as stop:
            log.warning("%s: %s", path, stop)
            wandb.finish(exit_code=int(stop.code or 0))
            raise
        summary = {"final": record["final"], "n_params": record["n_params"]["total"]}
        wandb.finish(summary, directory.blocks)
        return record


def _train(settings: TrainSettings, directory: RunDirectory, wandb: WandbRun, variant: str) -> dict[str, Any]:
    backbone = find_or_pretrain(settings, wandb)
    phase, model, data = build(settings, Phase.FINETUNE)
    test = EvalSet(settings.data, settings.finetune.dataset, n_jets=settings.eval.jets)
    if backbone is not None:
        backbone.load_into(model)
    outputs = outputs_of(Phase.FINETUNE, directory, wandb)
    if backbone is not None and ranks.is_first():  # one file tells the whole story of a run
        own = [line for line in outputs.metrics.read() if line["phase"] == Phase.FINETUNE]
        outputs.metrics.replace([*backbone.metrics(), *own])
    result = fit_phase(settings, phase, model, data, outputs, test)
    fingerprints = {"train": data.fingerprint, "test": test.fingerprint}
    record = {"variant": variant, **_record(settings, result, backbone, fingerprints)}
    if ranks.is_first():
        state = {"arch": model.arch, "weights": result.weights, "average": result.average}
        write_weights(directory.path / WEIGHTS, state, phase.steps)
        _require_agreement(outputs, record)
        directory.finish(record)
        outputs.checkpoints.remove()
    return record


def _require_agreement(outputs: Outputs, record: dict[str, Any]) -> None:
    """Read back what is about to be sealed: test losses, their blocks and the final losses must agree.

    Raises
    ------
    DamagedRunError
        They do not: a file was changed while the run was made.
    """
    metrics, blocks = outputs.metrics, BlockLog(outputs.blocks.path)
    lines = metrics.read()
    tests = [line for line in lines if line["phase"] == outputs.phase]
    wrong = disagreement(tests, blocks.sums(outputs.phase))
    if wrong is not None:
        raise DamagedRunError(f"{blocks.path} is damaged: it {wrong}; remove its folder to make the run anew")
    wrong = check_final(lines, record)
    if wrong is not None:
        raise DamagedRunError(
            f"{metrics.path} is damaged: the run {wrong}; remove its folder to make the run anew"
        )


def _record(
    settings: TrainSettings, result: PhaseResult, backbone: Backbone | None, data: dict[str, str]
) -> dict[str, Any]:
    return {
        "subset": settings.subset,
        "dim": settings.model.dim,
        "seed": settings.seed,
        **result.record,
        "final": {
            weights: {"loss": test.loss, "accuracy": test.accuracy, "jets": int(test.jets.sum())}
            for weights, test in result.test.items()
        },
        "pretrain": None if backbone is None else {**backbone.record, "path": str(backbone.path)},
        "data": data,
        JETS: jets_from(settings),
        "threads": settings.device.threads,
        "versions": versions(),
        "git": git_state(),
    }


def _wandb(settings: TrainSettings, directory: RunDirectory, variant: str) -> WandbRun:
    dim, seed = settings.model.dim, settings.seed
    group = f"{settings.study}/{settings.subset}/dim={dim}"
    destination = Destination(
        project=settings.tracking.project,
        entity=settings.tracking.entity,
        group=f"{group}/{variant}"[:128] if variant else group,  # W&B's limit
        name=f"{settings.subset}-dim={dim}-seed={seed}",
        tags=(settings.study, settings.subset, f"dim={dim}"),
    )
    return WandbRun(
        settings.tracking.wandb if ranks.is_first() else "disabled",
        directory.path,
        {**public(settings), "variant": variant},
        destination,
        settings.pretrain.steps if settings.pretrain.composition else 0,
    )
