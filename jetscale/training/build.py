"""The parts of one phase, made from the settings."""

from __future__ import annotations

import torch

from jetscale.common.usage import SettingsError
from jetscale.jets.datamodule import JetDataModule
from jetscale.jets.features import N_PID
from jetscale.model import NETWORKS
from jetscale.model.network import Network, build_network
from jetscale.runs.blocks import BlockLog
from jetscale.runs.directory import RunDirectory
from jetscale.runs.metrics import MetricsLog
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training.budgets import lack_told
from jetscale.training.checkpoint import Checkpoints
from jetscale.training.outputs import Outputs
from jetscale.training.phase import capped_steps
from jetscale.training.phase_settings import Phase, PhaseSettings
from jetscale.training.seeds import seed_for
from jetscale.training.settings import ModelSettings, TrainSettings
from jetscale.training.user_additions import UserLoggers


def build(settings: TrainSettings, name: Phase) -> tuple[PhaseSettings, Network, JetDataModule]:
    """Make the parts of a phase: its settings with steps capped, a fresh network, and data ready to be read.

    Initial weights and data order come from the seed and the phase alone, so that runs of one seed differ in
    nothing but what they were pretrained on: same head, same jets in the same order.

    Parameters
    ----------
    settings : the run's
    name : which phase

    Raises
    ------
    JetsRunOut
        The phase needs more jets than there are.
    """
    seed = settings.pretrain_seed if name == Phase.PRETRAIN else settings.seed
    torch.manual_seed(seed_for(seed, f"{name} weights"))
    phase, model, data = design(settings, name)
    data.prepare_data()
    with lack_told(name):
        data.setup()
    return phase, model, data


Sizes = dict[Phase, tuple[PhaseSettings, int]]
"""By phase its settings, with steps capped, and N."""


def check_design(settings: TrainSettings) -> Sizes:
    """Design both phases, sizes alone: what cannot be built is found before the first one is trained.

    Raises
    ------
    SettingsError, JetDataError, UsageError
        A network that cannot be made in this size or has no such option, or whose fine-tuning cannot take
        the weights of its pretraining; a cap below one step, a warm-up longer than its phase, or a
        composition that selects nothing.
    """
    sizes: Sizes = {}
    models: list[Network] = []
    with torch.device("meta"):
        for name in settings.phases:
            phase, model, _ = design(settings, name)
            sizes[name] = phase, model.count_parameters().total
            models.append(model)
    _check_backbone(models[0], models[-1])
    return sizes


def _check_backbone(pretrained: Network, model: Network) -> None:
    """Demand that `model` can take the weights of `pretrained`, both of them on the meta device.

    A network with a way of its own to load a backbone may look at numbers, which there are none of yet.
    """
    if type(model).load_backbone is not Network.load_backbone:
        return
    try:
        model.load_backbone(pretrained.backbone_state())
    except ValueError as error:
        raise SettingsError(
            f"model.arch={model.arch}: the network of the fine-tuning cannot take the weights of its "
            f"pretraining: {error}; only what is called head may depend on the classes"
        ) from error


def design(settings: TrainSettings, name: Phase) -> tuple[PhaseSettings, Network, JetDataModule]:
    """Make the same parts before any data is looked at.

    Parameters
    ----------
    settings, name : as in `build`; weights are drawn from torch's generator in its present state

    Raises
    ------
    SettingsError, JetDataError, UsageError
        See `check_design`.
    """
    pretrain = name == Phase.PRETRAIN
    phase: PhaseSettings = settings.pretrain if pretrain else settings.finetune
    data = JetDataModule(
        settings.data,
        settings.dataset_of(name),
        composition=settings.pretrain.composition if pretrain else None,
        batch_size=phase.batch_size,
        n_steps=phase.steps,
        seed=seed_for(settings.pretrain_seed if pretrain else settings.seed, f"{name} order"),
        evaluation_jets=settings.eval.jets,
        evaluation_batch_size=settings.eval.batch_size,
    )
    model = _network(settings.model, data)
    try:
        phase = capped_steps(phase, model.count_parameters().total)
    except SettingsError as error:
        raise SettingsError(f"{name}.{error}") from error
    phase.check_warmup(name)
    data.n_steps = phase.steps
    return phase, model, data


def _network(settings: ModelSettings, data: JetDataModule) -> Network:
    chosen, usual = vars(settings), vars(ModelSettings())
    for key in chosen.keys() - {"arch", "dim"} - set(NETWORKS[settings.arch].options):
        if chosen[key] != usual[key]:
            raise SettingsError(
                f"model.{key}={chosen[key]}: the network model.arch={settings.arch} has no such option; "
                "leave it out"
            )
    n_pid = N_PID if data.has_pid else 0
    try:
        return build_network(settings.arch, settings.dim, data.n_classes, data.n_features, n_pid, chosen)
    except ValueError as error:
        raise SettingsError(f"model.arch={settings.arch} with model.dim={settings.dim}: {error}") from error


def outputs_of(
    name: Phase, directory: RunDirectory, wandb: WandbRun, loggers: UserLoggers | None = None
) -> Outputs:
    """Where the phase writes.

    Parameters
    ----------
    name : which phase
    directory : the run directory, or that of the backbone in its library
    wandb, loggers : of the run, which both phases write to
    """
    return Outputs(
        phase=name,
        metrics=MetricsLog(directory.metrics),
        blocks=BlockLog(directory.blocks),
        checkpoints=Checkpoints(directory.checkpoints, name, directory.identity),
        wandb=wandb,
        loggers=loggers or UserLoggers(),
    )
