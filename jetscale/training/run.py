"""One run: pretrain or find the backbone, fine-tune, leave a run directory (docs/training.md)."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import torch

from jetscale.jets.evaluation import EvalSet
from jetscale.runs.blocks import BlockLog, disagreement
from jetscale.runs.directory import DamagedRunError, RunDirectory, leave_traceback
from jetscale.runs.metrics import check_final
from jetscale.runs.record import FinalLoss, PretrainRecord, RunRecord, git_state, versions
from jetscale.runs.search import to_remove
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training import ranks
from jetscale.training.backbone import find_or_pretrain
from jetscale.training.build import build, outputs_of
from jetscale.training.checkpoint import write_weights
from jetscale.training.outputs import Outputs
from jetscale.training.phase import PhaseResult, fit_phase
from jetscale.training.phase_settings import Phase
from jetscale.training.preemption import Preempted
from jetscale.training.same_jets import jets_from, same_jets
from jetscale.training.settings import TrainSettings, to_yaml
from jetscale.training.supply import check_supply
from jetscale.training.user_additions import user_loggers
from jetscale.training.watched import hyperparameters, shown_name, wandb_of

log = logging.getLogger(__name__)


def run(settings: TrainSettings, path: Path, variant: str = "") -> RunRecord:
    """Make the run in directory `path`, or go on with it, or return at once where it is done.

    Parameters
    ----------
    variant : what the run varied besides subset, width and seed, for ``done.json``
        (`jetscale.launch.hydra_setup.run_suffix`)

    Returns
    -------
    What ``done.json`` holds.

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
            log.info("%s is done already (final test loss %.4f)", path, done.final_losses["raw"])
            return done
        if ranks.is_first():
            directory.start(to_yaml(settings))
        wandb = wandb_of(settings, directory.path, variant)
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
        wandb.finish({"final": asdict(record)["final"], "n_params": record.n_params_total}, done=True)
        return record


def _train(settings: TrainSettings, directory: RunDirectory, wandb: WandbRun, variant: str) -> RunRecord:
    check_supply(settings)
    loggers = user_loggers(settings.loggers, directory.path, shown_name(settings, variant))
    if ranks.is_first() and loggers.all:
        loggers.log_settings(hyperparameters(settings, variant))
    backbone = find_or_pretrain(settings, wandb, loggers)
    phase, model, data = build(settings, Phase.FINETUNE)
    test = EvalSet(settings.data, settings.finetune.dataset, n_jets=settings.eval.jets)
    if backbone is not None:
        backbone.load_into(model)
    outputs = outputs_of(Phase.FINETUNE, directory, wandb, loggers)
    if backbone is not None and ranks.is_first():  # one file tells the whole story of a run
        own = [line for line in outputs.metrics.read() if line["phase"] == Phase.FINETUNE]
        outputs.metrics.replace([*backbone.metrics(), *own])
    result = fit_phase(settings, phase, model, data, outputs, test)
    fingerprints = {"train": data.fingerprint, "test": test.fingerprint}
    record = _record(settings, variant, result, None if backbone is None else backbone.record, fingerprints)
    if ranks.is_first():
        state = {"arch": model.arch, "weights": result.weights, "average": result.average}
        write_weights(directory.weights, state, phase.steps)
        _require_agreement(outputs, record)
        directory.finish(record)
        outputs.checkpoints.remove()
    return record


def _require_agreement(outputs: Outputs, record: RunRecord) -> None:
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
        raise DamagedRunError(
            f"{blocks.path} is damaged: it {wrong}; remove {to_remove(outputs.directory)} to make the run "
            "anew"
        )
    wrong = check_final(lines, record.final_losses)
    if wrong is not None:
        raise DamagedRunError(
            f"{metrics.path} is damaged: the run {wrong}; remove {to_remove(outputs.directory)} to make the "
            "run anew"
        )


def _record(
    settings: TrainSettings,
    variant: str,
    result: PhaseResult,
    pretrain: PretrainRecord | None,
    data: dict[str, str],
) -> RunRecord:
    return RunRecord(
        subset=settings.subset,
        dim=settings.model.dim,
        seed=settings.seed,
        variant=variant,
        **result.record,
        final={
            weights: FinalLoss(loss=test.loss, accuracy=test.accuracy, jets=int(test.jets.sum()))
            for weights, test in result.test.items()
        },
        pretrain=pretrain,
        data=data,
        jets_from=jets_from(settings),
        threads=settings.device.threads,
        versions=versions(),
        git=git_state(),
    )
