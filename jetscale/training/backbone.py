"""Pretrained backbones: made once, found again by what made them, never by name."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jetscale.common.files import fingerprint, writing
from jetscale.model.network import Network
from jetscale.runs.directory import DamagedRunError, RunDirectory, holding_library
from jetscale.runs.layout import DONE, backbone_name
from jetscale.runs.metrics import line_of, read_metrics
from jetscale.runs.record import PretrainRecord
from jetscale.runs.weights_file import CheckpointError
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training import ranks
from jetscale.training.build import build, outputs_of
from jetscale.training.checkpoint import read_checkpoint, require_arch, write_weights
from jetscale.training.phase import fit_phase
from jetscale.training.phase_settings import Phase
from jetscale.training.settings import TrainSettings, to_yaml
from jetscale.training.user_additions import UserLoggers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone:
    """A finished pretraining.

    Attributes
    ----------
    directory : its directory in the library
    record : what it cost, for the ``done.json`` of the runs that start from it
    """

    directory: RunDirectory
    record: PretrainRecord

    def load_into(self, model: Network) -> None:
        """Copy the raw pretrained weights into `model`, all but the head.

        Raises
        ------
        CheckpointError
            The weights are damaged or of another network. Damaged ones are not made again without being
            asked for: other runs may have started from them, and on a GPU the new ones would differ.
        """
        try:
            state = read_checkpoint(self.directory.weights)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}; put back an undamaged copy, or remove {self.directory.path} to pretrain this "
                "backbone anew"
            ) from error
        require_arch(state, model.arch, self.directory.weights)
        model.load_backbone(state["weights"])

    def metrics(self) -> list[dict[str, Any]]:
        """Its metrics lines."""
        return read_metrics(self.directory.metrics)


def find_or_pretrain(settings: TrainSettings, wandb: WandbRun, loggers: UserLoggers) -> Backbone | None:
    """The backbone of these settings and this data: from the library, otherwise pretrained now.

    Where another process is pretraining the same one, wait for it and take its result.

    Parameters
    ----------
    settings : the run's
    wandb, loggers : of the run; they get the metrics of the pretraining, found or made

    Returns
    -------
    None for a run from scratch.
    """
    if not settings.pretrain.composition:
        return None
    phase, model, data = build(settings, Phase.PRETRAIN)
    identity = fingerprint({**settings.backbone_identity(), "data_fingerprint": data.fingerprint})
    directory = RunDirectory(_agreed_folder(settings, identity), identity)
    with ranks.first_rank_holds(directory.claim, wait=True):
        record = ranks.agreed(_done(directory))
        if record is not None:
            log.info("pretrained backbone found: %s", directory.path)
            return _told(Backbone(directory, _in(directory, record)), wandb, loggers)
        if ranks.is_first():
            directory.start(to_yaml(settings))
        outputs = outputs_of(Phase.PRETRAIN, directory, wandb, loggers)
        result = fit_phase(settings, phase, model, data, outputs, test=None)
        record = PretrainRecord(**result.record, fingerprint=identity, data=data.fingerprint)
        if ranks.is_first():
            state = {"arch": model.arch, "weights": result.weights, "average": result.average}
            write_weights(directory.weights, state, phase.steps)
            directory.finish(record)
            outputs.checkpoints.remove()
        backbone = Backbone(directory, _in(directory, ranks.agreed(record)))
        return _told(backbone, wandb, UserLoggers())


def _agreed_folder(settings: TrainSettings, identity: str) -> Path:
    """Folder of the backbone `identity` in the library, the same for all that want it, whatever their subset.

    A name holds the subset of the run that wanted it first, so two runs that call one composition differently
    choose one after the other.
    """
    library = Path(settings.pretrain.library)
    with ranks.first_rank_holds(partial(holding_library, library)):
        return ranks.agreed(_folder(library, settings, identity) if ranks.is_first() else library)


def _folder(library: Path, settings: TrainSettings, identity: str) -> Path:
    """The folder that is there, a finished one if there is; else one that is made now."""

    def named(subset: str) -> str:
        return backbone_name(subset, settings.model.dim, settings.pretrain_seed, identity)

    own = library / named(settings.subset)
    found = sorted(library.glob(named("*")), key=lambda folder: (not (folder / DONE).exists(), folder != own))
    if found:
        return found[0]
    with writing(own):
        own.mkdir()
    return own


def _told(backbone: Backbone, wandb: WandbRun, loggers: UserLoggers) -> Backbone:
    """`backbone`, whose curve W&B and `loggers` are given; not what they were told while it was made."""
    if ranks.is_first() and (wandb.active or loggers.all):
        lines = backbone.metrics()
        wandb.log_pretraining(lines)
        loggers.log(*map(line_of, lines))
    return backbone


def _in(directory: RunDirectory, record: PretrainRecord) -> PretrainRecord:
    """`record` with the folder, for the runs that start from it."""
    return replace(record, path=str(directory.path))


def _done(directory: RunDirectory) -> PretrainRecord | None:
    """What a finished pretraining left; None where it is not finished.

    Raises
    ------
    CheckpointError
        One of its files is damaged. They are not made anew unasked, see `Backbone.load_into`.
    """
    try:
        return directory.done_pretraining()
    except DamagedRunError as error:
        raise CheckpointError(
            f"{error.__cause__}; put back an undamaged copy, or remove {directory.path} to pretrain this "
            "backbone anew"
        ) from error
