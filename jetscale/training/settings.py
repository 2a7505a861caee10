"""Typed settings of one run; `conf/` holds their values, an unknown key or a wrong type is an error.

Defaults here are the paper's (arXiv:2606.19781) where it gives one; budgets in ``conf/budget`` replace them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jetscale.common.cli import home
from jetscale.common.config_safety import ConfigFileError, leaves, refuse_resolvers, require_trusted_targets
from jetscale.common.fields import COUNT, SEED, Matches, OneOf, Range, Replaced, problems
from jetscale.common.files import fingerprint
from jetscale.common.masking import masked_tree
from jetscale.common.registry import Registered
from jetscale.common.usage import SettingsError
from jetscale.jets.settings import DataSettings
from jetscale.model import DEFAULT, NETWORKS
from jetscale.runs.layout import BACKBONES, NOT_RUNS
from jetscale.training.phase_settings import (
    BATCH,
    FinetuneSettings,
    Phase,
    PhaseSettings,
    PretrainSettings,
)

_TAKEN = sorted({*NOT_RUNS, BACKBONES})
FOLDER = Matches(
    rf"(?!(?:{'|'.join(_TAKEN)})$)[A-Za-z0-9_=+\-][A-Za-z0-9._=+\-]{{0,99}}",
    "the name of a study or a subset, which is a folder: letters, digits and ._=-+ only, no dot at the "
    f"start, at most 100 characters, and none of {', '.join(_TAKEN)}",
)
"""Names that become folders of a run directory's path, cannot lead elsewhere, and hide no run."""


def folder_name(name: str) -> str:
    """`name`, which is to be one folder of a run directory's path.

    Raises
    ------
    SettingsError
        It could lead elsewhere (it begins with a dot, or holds more than letters, digits and ``._=-+``), or
        is the name of a folder in which no run is looked for.
    """
    if not FOLDER.holds(name):
        raise SettingsError(f"{name!r} cannot be {FOLDER}")
    return name


@dataclass
class ModelSettings:
    """The network.

    Attributes
    ----------
    arch : kind of network: ``transformer`` (the paper's set transformer), ``deepsets`` (Particle Flow
        Network, arXiv:1810.05165), ``particlenet`` (ParticleNet-Lite, arXiv:1902.08570), or one of your own
        that ``--trust MODULE`` registers
    dim : width, the one dial of the size: all layers and N follow from it
    depth : blocks of a transformer
    head_dim : width of a transformer's attention head, which divides dim; below 8 for widths under 8
    """

    arch: Annotated[str, Registered(NETWORKS)] = DEFAULT
    dim: Annotated[int, Range(1, 8_192)] = 64
    depth: Annotated[int, Range(1, 128)] = 4
    head_dim: Annotated[int, Range(1, 1_024)] = 8

    def check(self) -> None:
        """Raise where the width does not divide into heads.

        Raises
        ------
        SettingsError
        """
        if self.arch == DEFAULT and self.dim % self.head_dim:
            raise SettingsError(
                f"model.dim={self.dim} must be a positive multiple of model.head_dim={self.head_dim}"
            )


@dataclass
class EmaSettings:
    """Moving average of the weights, evaluated beside the raw ones.

    Measured: 10 % and at most 33 steps at batch 32 halve the scatter of a constant-rate run.

    Attributes
    ----------
    enabled : keep and evaluate the average
    fraction : averaging window as a share of the steps so far
    max_window : its longest, in steps
    """

    enabled: bool = False
    fraction: Annotated[float, Range(0, 1, without="low")] = 0.1
    max_window: Annotated[int, COUNT] = 1_000


@dataclass
class EvalSettings:
    """Test loss along training.

    Attributes
    ----------
    jets : test jets at each evaluation, the same ones for every run
    every : steps between evaluations
    log_points : further evaluations at log-spaced steps
    batch_size : jets a forward pass
    final_all : at the end, evaluate once more on the whole test set (split ``test_all`` in the metrics)
    """

    jets: Annotated[int, COUNT] = 100_000
    every: Annotated[int, COUNT] = 5_000
    log_points: Annotated[int, Range(0, 10_000)] = 30
    batch_size: Annotated[int, BATCH] = 512
    final_all: bool = False

    def evaluation_steps(self, steps: int) -> frozenset[int]:
        """Steps after which the test loss is taken in a phase of `steps` steps.

        Multiples of `every`, `log_points` log-spaced ones from step 10 on, and the last step.
        """
        chosen = {*range(self.every, steps + 1, self.every), steps}
        if self.log_points > 1:
            first = min(10, steps)
            ratio = steps / first
            chosen |= {
                round(first * ratio ** (number / (self.log_points - 1))) for number in range(self.log_points)
            }
        return frozenset(chosen)


@dataclass
class TrackingSettings:
    """What is written while training.

    Attributes
    ----------
    log_every : steps between lines of the training loss (its mean since the line before)
    wandb : ``auto`` (``WANDB_MODE``; without it online with a key, else offline), ``online``, ``offline`` or
        ``disabled``
    project, entity : W&B destination; null takes ``WANDB_PROJECT`` (else ``jetscale``) and ``WANDB_ENTITY``
    progress : show a progress bar on a terminal
    """

    log_every: Annotated[int, COUNT] = 100
    wandb: Annotated[str, OneOf("auto", "online", "offline", "disabled")] = "auto"
    project: str | None = None
    entity: str | None = None
    progress: bool = True


@dataclass
class DeviceSettings:
    """Where the run computes.

    Attributes
    ----------
    accelerator, devices, num_nodes, strategy : Lightning's; one device a run is best for grids of small
        models
    precision : ``auto`` is bf16-mixed on CUDA and 32-true elsewhere
    threads : CPU threads of torch; 1 keeps results independent of the number of cores
    """

    accelerator: Annotated[str, OneOf("auto", "cpu", "gpu", "cuda", "mps")] = "auto"
    devices: Annotated[int, Range(1, 1_024)] = 1
    num_nodes: Annotated[int, Range(1, 100_000)] = 1
    strategy: Annotated[str, OneOf("auto", "ddp")] = "auto"
    precision: Annotated[str, OneOf("auto", "32-true", "bf16-mixed")] = "auto"
    threads: Annotated[int, Range(1, 1_024)] = 1


@dataclass
class TrainSettings:
    """One run: pretrain (unless scratch), then fine-tune.

    Attributes
    ----------
    study : name of the sweep; runs land in ``multirun/<study>``
    subset : name of the pretraining composition
    seed : run seed; 0 is a seed
    checkpoint_every : steps between checkpoints, what a kill costs at most
    callbacks : Lightning callbacks by a name of your choice, ``{mine: {_target_: my_lab.GradNorm, every:
        10}}``, with ``--trust my_lab`` on the command line; they belong to what identifies the run, since a
        callback may change its numbers (docs/training.md)
    loggers : Lightning loggers by a name of your choice, which receive every metrics line; they belong to no
        run's identity
    """

    study: Annotated[str, FOLDER] = "paper"
    subset: Annotated[str, FOLDER] = "scratch"
    seed: Annotated[int, SEED] = 0
    checkpoint_every: Annotated[int, COUNT] = 2_000
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)
    callbacks: Annotated[Any, Replaced()] = field(default_factory=dict)
    loggers: Annotated[Any, Replaced()] = field(default_factory=dict)

    @property
    def pretrain_seed(self) -> int:
        """The seed that pretraining runs with."""
        return self.seed if self.pretrain.seed is None else self.pretrain.seed

    @property
    def phases(self) -> dict[Phase, PhaseSettings]:
        """The phases that this run has, in the order in which they run."""
        pretrain: dict[Phase, PhaseSettings] = (
            {Phase.PRETRAIN: self.pretrain} if self.pretrain.composition else {}
        )
        return {**pretrain, Phase.FINETUNE: self.finetune}

    def dataset_of(self, phase: Phase) -> str:
        """Name of the dataset of a phase."""
        return self.pretrain.dataset if phase == Phase.PRETRAIN else self.finetune.dataset

    def identity(self) -> str:
        """Fingerprint of all that decides the run's numbers; a finished run is reused only on equality.

        Left out: where things are, who watches, and how often a checkpoint is written.
        """
        return fingerprint({**_numbers(self), "subset": self.subset, "seed": self.seed})

    def backbone_identity(self) -> dict[str, Any]:
        """The part of the settings that decides the pretrained weights."""
        kept = _numbers(self)
        pretrain = {key: kept["pretrain"][key] for key in kept["pretrain"] if key != "seed"}
        return {
            "model": kept["model"],
            "data": kept["data"],
            "pretrain": pretrain,
            "ema": kept["ema"],
            "precision": kept["precision"],
            "seed": self.pretrain_seed,
            **({"callbacks": kept["callbacks"]} if "callbacks" in kept else {}),
        }

    def check(self) -> None:
        """Raise where the values cannot go together, which one key alone cannot tell.

        Raises
        ------
        SettingsError
        """
        self.pretrain.check_composition()
        if (self.subset == "scratch") == bool(self.pretrain.composition):
            raise SettingsError(
                f"subset={self.subset} with pretrain.composition={self.pretrain.composition}: the subset "
                "'scratch' has no composition and every other one needs one (choose +experiment=NAME, "
                "or set both)"
            )
        self.model.check()
        for name, phase in self.phases.items():
            phase.check_shares(name, self.device.devices, self.device.num_nodes)
        self.pretrain.check_rate(Phase.PRETRAIN, self.model.dim if self.pretrain.composition else None)
        self.finetune.check_rate(Phase.FINETUNE, self.model.dim)
        check_additions("callbacks", self.callbacks)
        check_additions("loggers", self.loggers)


def _require_mapping(key: str, named: Any) -> None:
    if not isinstance(named, Mapping):
        raise SettingsError(f"{key}={named}: must be {{NAME: {{_target_: my_lab.MyClass}}}}")


def check_additions(key: str, named: Any) -> None:
    """Raise where `named`, the value of `key`, is no mapping of names to ``_target_`` mappings that may run.

    Parameters
    ----------
    key : ``callbacks`` or ``loggers``
    named : what was given for it

    Raises
    ------
    SettingsError
        It has another form, or a ``_target_`` is neither Lightning's and harmless nor trusted by ``--trust``,
        or a number is NaN or infinite, which no fingerprint of a run can hold.
    """
    _require_mapping(key, named)
    for name, entry in named.items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("_target_"), str):
            raise SettingsError(
                f"{key}.{name}={entry}: must be a mapping with _target_, the class that is called, for "
                f"example {key}.{name}={{_target_: my_lab.MyClass}}"
            )
    try:
        require_trusted_targets(named, key)
    except ConfigFileError as error:
        raise SettingsError(str(error)) from error
    for keys, value in leaves(named):
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(
                f"{key}.{'.'.join(keys)}={value}: must be a finite number, or a text in quotes"
            )


def from_config(config: DictConfig | Mapping[str, Any]) -> TrainSettings:
    """Check a composed configuration against the types, the limits of every key, and itself.

    Raises
    ------
    SettingsError
        Unknown key, wrong type, a value out of its limits, or values that cannot go together.
    """
    plain = OmegaConf.to_container(config, resolve=False) if isinstance(config, DictConfig) else config
    assert isinstance(plain, Mapping)
    refuse_resolvers(plain, "the settings")
    _check_fields(plain)
    for key in ("callbacks", "loggers"):
        _require_mapping(key, plain.get(key, {}))  # OmegaConf cannot merge a list with the empty mapping
    try:
        # plain first: to a node that is typed already Hydra may have added keys (+foo=1)
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainSettings), plain))
    except OmegaConfBaseException as error:
        raise SettingsError(" ".join(str(error).split())) from error
    assert isinstance(settings, TrainSettings)
    _check_fields(asdict(settings))  # what was interpolated, too
    settings.data.dir = home(settings.data.dir)
    settings.pretrain.library = home(settings.pretrain.library)
    if settings.data.store is not None:
        settings.data.store = home(settings.data.store)
    settings.check()
    return settings


def _check_fields(content: Mapping[Any, Any]) -> None:
    if problem := next(problems(TrainSettings, content), None):
        raise SettingsError(problem)


def _numbers(settings: TrainSettings) -> dict[str, Any]:
    content = asdict(settings)
    if settings.model.arch == DEFAULT:  # runs made before there was a choice keep their fingerprint
        content["model"].pop("arch")
    for place in ("dir", "store", "workers"):
        content["data"].pop(place)
    for phase, default in (("pretrain", PretrainSettings.dataset), ("finetune", FinetuneSettings.dataset)):
        if content[phase]["dataset"] == default:  # so that runs from before there was a choice stay done
            content[phase].pop("dataset")
    content["pretrain"].pop("library")
    if not settings.pretrain.composition:
        content["pretrain"] = None
    content["precision"] = content.pop("device")["precision"]
    for other in ("tracking", "loggers", "study", "checkpoint_every", "subset", "seed"):
        content.pop(other)
    if not content["callbacks"]:
        content.pop("callbacks")  # runs from before there were any keep their identity
    return content


def to_yaml(settings: TrainSettings) -> str:
    """The settings, every default included, as YAML; passwords are masked."""
    return OmegaConf.to_yaml(OmegaConf.create(public(settings)))


def public(settings: TrainSettings) -> dict[str, Any]:
    """The settings as plain values for others to read; passwords are masked."""
    content: dict[str, Any] = masked_tree(asdict(settings))
    return content
