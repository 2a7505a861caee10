"""Values that no setting of this name can have, given to every command as a user would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from types import UnionType
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize_config_dir

from benchmarks.faults.child import Outcome
from benchmarks.faults.flips import Tally
from jetscale.analysis import __main__ as analysis
from jetscale.analysis.plan import Command as Plan
from jetscale.common.cli import parse
from jetscale.common.config_safety import CONF
from jetscale.composition import __main__ as composition
from jetscale.launch.hydra_setup import register
from jetscale.prepare.settings import PrepareSettings
from jetscale.simulate import settings as simulate
from jetscale.training.settings import TrainSettings, from_config

WRONG = ("nan", "inf", "-inf", "1e400", "abc", "[1,2]", "{a: 1}", "''")
"""No number of any setting; 1e400 overflows to infinity."""
WRONG_INTEGER = ("1e300", "1.5", "10000000000000000000000000000000")
NEGATIVE = "-1"
NEGATIVE_MEANS_SOMETHING = {"curves.drop"}
"""-1 is the length of the warm-up."""
ZERO_MEANS_NOTHING = {
    "checkpoint_every", "data.max_constituents", "device.devices", "device.num_nodes", "device.threads",
    "draws", "eval.batch_size", "eval.every", "eval.jets", "finetune.batch_size", "finetune.clip",
    "finetune.lr", "finetune.max_flops", "finetune.steps", "flops_per_param_sample", "jets", "jets_per_file",
    "model.depth", "model.dim", "model.head_dim", "pretrain.batch_size", "pretrain.clip", "pretrain.lr",
    "pretrain.max_flops", "pretrain.steps", "tracking.log_every",
}  # fmt: skip
RATES = ("finetune.lr", "pretrain.lr")
"""Typed as anything: a number, a table or a rule."""
BAD_RATES = (
    *WRONG[:-1], "{table: 3}", "{table: {8: -1}}", "{table: {0: 1e-3}}", "{base: nan}",
    "{base: 1e-3, dim: 0, power: -0.5}", "{dim: 0}",
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A command: its settings, and what takes a ``key=value`` as it does."""

    name: str
    settings: type[Any]
    take: Callable[[str], object]


def programs() -> list[Program]:
    """Every command that has numbers among its settings."""
    register()
    found = [Program("settings of jetscale.train", TrainSettings, _train)]
    for program, settings in (
        ("jetscale.simulate", simulate.Settings),
        ("jetscale.prepare", PrepareSettings),
        ("jetscale.analysis", analysis.Command),
        ("jetscale.analysis.plan", Plan),
        ("jetscale.composition compare", composition.Compare),
    ):
        found.append(Program(f"settings of {program}", settings, partial(_parse, settings, program)))
    return found


def _train(argument: str) -> object:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return from_config(compose("train", overrides=["+experiment=qcd", "budget=smoke", argument]))


def _parse(settings: type[Any], program: str, argument: str) -> object:
    made = parse(settings, [argument], f"python -m {program}")
    if isinstance(made, simulate.Settings):
        return simulate.plan(made), simulate.n_workers(made)
    return made


def bad_arguments(settings: type[Any]) -> Iterator[tuple[str, str]]:
    """Keys and texts of values that must be refused."""
    for key, kind in _keys(settings):
        if key in RATES:
            yield from ((key, text) for text in (*BAD_RATES, NEGATIVE, "0"))
        kinds = set(get_args(kind)) if isinstance(kind, UnionType) else {kind}
        if not kinds & {int, float}:
            continue
        texts = [*WRONG] + ([*WRONG_INTEGER] if int in kinds else [])
        if type(None) in kinds:
            texts.remove("''")
        texts += [] if key in NEGATIVE_MEANS_SOMETHING else [NEGATIVE]
        texts += ["0"] if key in ZERO_MEANS_NOTHING else []
        yield from ((key, text) for text in texts)


def _keys(settings: type[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(settings)
    for field in fields(settings):
        kind = hints[field.name]
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", kind


def run(program: Program, share: float) -> Tally:
    """Give a command its bad values, every one or a `share` of them, and judge what it says."""
    tally = Tally(program.name)
    arguments = list(bad_arguments(program.settings))
    step = max(1, round(1 / share))
    for key, text in arguments[::step]:
        said = _give(program, f"{key}={text}")
        one_line = key in said.error and "\n" not in said.error
        verdict = "accepted" if not said.error else "refused" if one_line else "crashed"
        tally.add("bad values", verdict, f"{key}={text}", said)
    return tally


def _give(program: Program, argument: str) -> Outcome:
    try:
        program.take(argument)
    except Exception as error:
        return Outcome(error=f"{type(error).__name__}: {str(error).strip()}")
    return Outcome()
