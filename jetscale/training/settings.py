"""Typed settings of one run; `conf/` holds their values, an unknown key or a wrong type is an error.

Defaults here are the paper's (arXiv:2606.19781) where it gives one; budgets in ``conf/budget`` replace them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jetscale.common.cli import home
from jetscale.common.config_safety import refuse_resolvers
from jetscale.common.fields import COUNT, SEED, Matches, OneOf, Range, Replaced, problems
from jetscale.common.files import fingerprint
from jetscale.common.masking import masked_tree
from jetscale.jets.errors import JetDataError
from jetscale.jets.ordering.compositions import check_request
from jetscale.jets.settings import DataSettings
from jetscale.runs.layout import BACKBONES, SWEEPS
from jetscale.training.learning_rates import SCHEDULES, checked_rate, learning_rate

FOLDER = Matches(
    r"[A-Za-z0-9_=+\-][A-Za-z0-9._=+\-]{0,99}",
    "the name of a study or a subset, which is a folder: letters, digits and ._=-+ only, no dot at the "
    "start, at most 100 characters",
)
"""Names that become folders of a run directory's path, and cannot lead elsewhere."""


class SettingsError(ValueError):
    """A configuration that cannot be run; the message names the key, the value and what is needed."""


def folder_name(name: str) -> str:
    """`name`, which is to be one folder of a run directory's path.

    Raises
    ------
    SettingsError
        It could lead elsewhere: it begins with a dot, or holds more than letters, digits and ``._=-+``.
    """
    if not FOLDER.holds(name):
        raise SettingsError(f"{name!r} cannot be {FOLDER}")
    return name


_STEPS = Range(0, COUNT.high)
_BATCH = Range(1, 1_000_000)


@dataclass
class ModelSettings:
    """The set transformer.

    Attributes
    ----------
    dim : width, the dial: heads, feed-forward (2 dim, SwiGLU) and N follow from it
    depth : blocks
    head_dim : width of an attention head, which divides dim; below 8 for off-grid widths under 8
    """

    dim: Annotated[int, Range(1, 8_192)] = 64
    depth: Annotated[int, Range(1, 128)] = 4
    head_dim: Annotated[int, Range(1, 1_024)] = 8


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
    schedule : ``constant`` or ``cosine`` (to zero at the last step)
    weight_decay, beta1, beta2 : AdamW's
    clip : gradient norm limit, null for none (the paper names none)
    """

    steps: Annotated[int, COUNT] = 1
    max_flops: Annotated[float | None, Range(0, 1e40, without="low")] = None
    batch_size: Annotated[int, _BATCH] = 128
    lr: Annotated[Any, Replaced()] = 1e-3
    warmup: Annotated[int, _STEPS] = 0
    schedule: Annotated[str, OneOf(*SCHEDULES)] = "constant"
    weight_decay: Annotated[float, Range(0, 1_000)] = 0.01
    beta1: Annotated[float, Range(0, 1, without="high")] = 0.9
    beta2: Annotated[float, Range(0, 1, without="high")] = 0.999
    clip: Annotated[float | None, Range(0, without="low")] = None


@dataclass
class PretrainSettings(PhaseSettings):
    """Pretraining on JetClass-II.

    Attributes
    ----------
    composition : weights of classes, buckets or label globs, or ``{NAME: {weight: 1, classes: Res34P,
        prongs: [3, 4], flavours: [b], without: [e, m, tau], jet_pt: [500, 1000], jet_sdmass: [50, 200]}}``
        (windows in GeV; see docs/compositions.md); null means no pretraining (scratch)
    seed : null takes the run's seed; a number shares one pretraining between run seeds
    library : folder of finished backbones, reused where settings and data are the same
    """

    steps: Annotated[int, COUNT] = 200_000
    warmup: Annotated[int, _STEPS] = 1_000
    composition: Annotated[Any, Replaced()] = None
    seed: Annotated[int | None, SEED] = None
    library: str = f"{SWEEPS}/{BACKBONES}"


@dataclass
class FinetuneSettings(PhaseSettings):
    """Fine-tuning on JetClass; from fresh weights where there is no pretraining."""

    steps: Annotated[int, COUNT] = 600_000
    warmup: Annotated[int, _STEPS] = 5_000


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
    batch_size: Annotated[int, _BATCH] = 512
    final_all: bool = False


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

    @property
    def pretrain_seed(self) -> int:
        """The seed that pretraining runs with."""
        return self.seed if self.pretrain.seed is None else self.pretrain.seed

    def data_of(self, phase: str) -> DataSettings:
        """Data settings of a phase: JetClass-II to pretrain, JetClass to fine-tune."""
        return replace(self.data, dataset="jetclass2" if phase == "pretrain" else "jetclass")

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
        }


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
    _check(settings)
    return settings


def _check_fields(content: Mapping[Any, Any]) -> None:
    if problem := next(problems(TrainSettings, content), None):
        raise SettingsError(problem)


def _check(settings: TrainSettings) -> None:
    """Check what one field alone cannot tell."""
    phases: dict[str, PhaseSettings] = {"finetune": settings.finetune}
    if settings.pretrain.composition:
        phases["pretrain"] = settings.pretrain
    _check_composition(settings.pretrain.composition)
    if (settings.subset == "scratch") == bool(settings.pretrain.composition):
        raise SettingsError(
            f"subset={settings.subset} with pretrain.composition={settings.pretrain.composition}: the subset "
            "'scratch' has no composition and every other one needs one (choose +experiment=NAME, "
            "or set both)"
        )
    dim, head_dim = settings.model.dim, settings.model.head_dim
    if dim % head_dim:
        raise SettingsError(f"model.dim={dim} must be a positive multiple of model.head_dim={head_dim}")
    for name, phase in phases.items():
        _check_shares(name, phase, settings.device)
    for name, phase in (("pretrain", settings.pretrain), ("finetune", settings.finetune)):
        try:
            checked_rate(phase.lr)  # of a phase that is not run, too: a table may lack its width
            if name in phases:
                learning_rate(phase.lr, dim)
        except ValueError as error:
            raise SettingsError(f"{name}.lr={phase.lr}: {error}") from error
    if settings.data.dataset != DataSettings().dataset:
        raise SettingsError(
            f"data.dataset={settings.data.dataset}: the phase decides, JetClass-II to pretrain and JetClass "
            "to fine-tune; leave it out"
        )


def check_warmup(name: str, phase: PhaseSettings) -> None:
    """Raise where the warm-up of phase `name`, its steps capped, does not end within it.

    Raises
    ------
    SettingsError
    """
    if phase.warmup > phase.steps:
        raise SettingsError(
            f"{name}.warmup={phase.warmup} is longer than the phase, {name}.steps={phase.steps}"
            + (f" within max_flops={phase.max_flops:g}" if phase.max_flops else "")
            + f": the learning rate would never be reached; give {name}.warmup a smaller number of steps"
        )


def _check_shares(name: str, phase: PhaseSettings, device: DeviceSettings) -> None:
    ranks = device.devices * device.num_nodes
    if phase.batch_size % ranks:
        raise SettingsError(
            f"{name}.batch_size={phase.batch_size} cannot be shared equally by device.devices="
            f"{device.devices} x device.num_nodes={device.num_nodes}; "
            f"take a multiple of {ranks}, for example {-(-phase.batch_size // ranks) * ranks}"
        )


def _check_composition(composition: Any) -> None:
    # not typed dict[str, float]: OmegaConf 2.3 cannot fill such a field from the command line
    if composition is None:
        return
    try:
        check_request(composition)
    except JetDataError as error:
        raise SettingsError(f"pretrain.{error}") from error


def _numbers(settings: TrainSettings) -> dict[str, Any]:
    content = asdict(settings)
    for place in ("dir", "store", "workers", "dataset"):
        content["data"].pop(place, None)
    content["pretrain"].pop("library")
    if not settings.pretrain.composition:
        content["pretrain"] = None
    content["precision"] = content.pop("device")["precision"]
    for other in ("tracking", "study", "checkpoint_every", "subset", "seed"):
        content.pop(other)
    return content


def to_yaml(settings: TrainSettings) -> str:
    """The settings, every default included, as YAML; passwords are masked."""
    return OmegaConf.to_yaml(OmegaConf.create(public(settings)))


def public(settings: TrainSettings) -> dict[str, Any]:
    """The settings as plain values for others to read; passwords are masked."""
    content: dict[str, Any] = masked_tree(asdict(settings))
    return content
