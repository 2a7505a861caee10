"""Every setting out of its limits is refused in one line that names the key; those within are taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from jetscale.analysis.__main__ import Command as Analysis
from jetscale.analysis.plan import Command as Plan
from jetscale.analysis.rates import Command as Rates
from jetscale.analysis.settings import Approach3Settings, FitSettings
from jetscale.common.cli import check, parse
from jetscale.common.fields import Matches, OneOf, Range, expected, keys_of, plain_type, problems
from jetscale.common.usage import SettingsError, UsageError
from jetscale.composition.settings import Compare
from jetscale.download.settings import DownloadSettings
from jetscale.prepare.settings import PrepareSettings
from jetscale.simulate.settings import Settings as Simulate
from jetscale.training.settings import TrainSettings, from_config

NAN, INF = float("nan"), float("inf")
COMMANDS = (Analysis, Plan, Rates, Compare, DownloadSettings, PrepareSettings, Simulate)


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def numeric(settings: type[Any]) -> list[str]:
    return [key for key, kind in keys_of(settings).items() if plain_type(kind) in (int, float)]


@pytest.mark.parametrize("key", numeric(TrainSettings))
@pytest.mark.parametrize("value", [NAN, INF, -INF, -2, 1e300, "x", True, [1], {"a": 1}])
def test_no_number_of_a_run_takes_these(key, value) -> None:
    if (key == "finetune.clip" and value == 1e300) or (key == "pretrain.clip" and value == 1e300):
        return  # a limit that is never reached is no fault
    with pytest.raises(SettingsError, match=f"^{key}=") as refused:
        from_config(nested(key, value))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("settings", COMMANDS)
def test_no_number_of_a_command_takes_these(settings) -> None:
    for key in numeric(settings):
        for text in ("nan", "inf", "-inf", ".nan", "-2", "1e300", "x", "[1]", "{a: 1}", "true"):
            with pytest.raises(UsageError, match=f"^{key}=") as refused:
                parse(settings, [f"{key}={text}"], "prog")
            assert "\n" not in str(refused.value)


@pytest.mark.parametrize("settings", [TrainSettings, *COMMANDS])
def test_every_number_declares_its_limits(settings) -> None:
    undeclared = [
        key for key in numeric(settings) if expected(keys_of(settings)[key]) in ("a number", "a whole number")
    ]
    assert undeclared == []


@pytest.mark.parametrize("settings", [TrainSettings, *COMMANDS])
def test_the_defaults_are_within_them(settings) -> None:
    check(settings())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.dim", 1_000_000), ("model.dim", 0), ("model.depth", 0), ("model.depth", 100_000),
        ("model.head_dim", 0), ("data.max_constituents", 0), ("data.workers", -1),
        ("finetune.clip", -1), ("finetune.clip", 0), ("finetune.warmup", -1), ("finetune.steps", 10**18),
        ("finetune.steps", 1e18), ("finetune.steps", 0), ("finetune.steps", None), ("finetune.steps", 2.5),
        ("finetune.batch_size", 10**9), ("finetune.max_flops", 0), ("finetune.max_flops", -1e12),
        ("finetune.weight_decay", -0.1), ("finetune.beta1", 1.0), ("finetune.beta2", 1),
        ("pretrain.beta2", -0.1),
        ("finetune.schedule", "linear"), ("pretrain.seed", -1), ("seed", -1), ("seed", 2**32), ("seed", None),
        ("finetune.lr", {"table": 3}), ("finetune.lr", {"dim": 0}), ("finetune.lr", 0),
        ("finetune.lr", -1e-3),
        ("finetune.lr", {"base": 1e-3, "dim": 0, "power": 1}), ("finetune.lr", NAN), ("finetune.lr", INF),
        ("finetune.lr", {"base": 1e-3, "dim": 64, "power": NAN}), ("finetune.lr", {"table": {64: NAN}}),
        ("finetune.lr", {"table": {64: 1e-3, 0: 1e-3}}), ("finetune.lr", {"table": {"wide": 1e-3, 64: 1e-3}}),
        ("finetune.lr", [1e-3]), ("finetune.lr", "fast"), ("finetune.lr", None), ("finetune.lr", True),
        ("finetune.lr", {"base": 1e300, "dim": 1, "power": 10}), ("pretrain.lr", {"table": {8: 0}}),
        ("ema.fraction", 0), ("ema.fraction", 1.1), ("ema.max_window", 0), ("eval.log_points", -1),
        ("eval.jets", 0), ("eval.every", 0), ("eval.batch_size", 10**12), ("tracking.log_every", 0),
        ("checkpoint_every", 0), ("device.precision", "16-true"), ("device.precision", "64-true"),
        ("device.accelerator", "tpu"), ("device.devices", 0), ("device.strategy", "deepspeed"),
        ("device.threads", 0), ("tracking.wandb", "on"), ("data.features", "full"),
        ("data.selection", "tight"),
        ("data.qcd_labels", "5"), ("pretrain.dataset", "cms"), ("data.repeat", 3), ("ema.enabled", "maybe"),
        ("study", "../out"), ("subset", "a/b"), ("study", "x" * 101), ("study", ["a"]), ("data.dir", None),
        ("model", 3), ("finetune", [1]), ("data.dir", {"a": 1}),
    ],
)  # fmt: skip
def test_what_a_run_refuses(key, value) -> None:
    with pytest.raises(SettingsError, match=rf"^{key}\b") as refused:
        from_config(nested(key, value))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("composition", "message"),
    [
        ({"X_bb": NAN}, "weight nan"), ({"X_bb": INF}, "weight inf"), ({"X_bb": -1}, "weight -1"),
        ({"X_bb": 1e300, "X_cc": 1e300}, "weight 1e"), ({"X_bb": True}, "weight"), ({1: 2}, "1 is no text"),
        ({"a": {"weight": 1, "jet_pt": [NAN, 500]}}, "jet_pt"),
        ({"a": {"weight": 1, "jet_pt": [5, INF]}}, "jet_pt"),
        ({"a": {"weight": 1, "jet_pt": [-5, 500]}}, "jet_pt"),
        ({"a": {"weight": 1, "jet_pt": [9, 3]}}, "jet_pt"),
        ({"a": {"weight": 1, "jet_pt": 3}}, "jet_pt"), ({"a": {"weight": 1, "jet_pt": [1, 2, 3]}}, "jet_pt"),
        ({"a": {"weight": 1, "jet_sdmass": [True, 3]}}, "jet_sdmass"), ({"a": {"classes": "QCD"}}, "weight"),
        ({"a": {"weight": 1, "classes": 5}}, "classes"), ({"a": {"weight": 1, "classes": []}}, "classes"),
        ({"a": {"weight": 1, "prongs": True}}, "prongs"), ({"a": {"weight": 1, "flavours": []}}, "flavours"),
        (["QCD"], "weights by class"), (3, "weights by class"),
    ],
)  # fmt: skip
def test_what_a_composition_refuses(composition, message) -> None:
    with pytest.raises(SettingsError, match=rf"^pretrain\.composition.*{message}") as refused:
        from_config({"subset": "mine", "pretrain": {"composition": composition}})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"modl": {"dim": 8}}, "unknown key 'modl'; did you mean model.dim?"),
        ({"model": {"dm": 8}}, "unknown key 'model.dm'; did you mean model.dim"),
        ({"wandb": "offline"}, "unknown key 'wandb'; did you mean tracking.wandb?"),
        ({"finetune": {"steps": "1e1"}}, "steps=1e1: must be a whole number from 1 to 1000000000; write 10"),
        ({"finetune": {"schedule": "cosin"}}, "one of constant, cosine; did you mean cosine?"),
        ({"device": {"accelerator": "GPU"}}, "one of auto, cpu, gpu, cuda, mps; did you mean gpu?"),
    ],
)  # fmt: skip
def test_the_message_leads_to_the_right_value(content, message) -> None:
    with pytest.raises(SettingsError) as refused:
        from_config(content)
    assert message in str(refused.value)


def test_what_may_be_null_or_a_number_in_quotes() -> None:
    quoted = {"clip": None, "lr": "1e-3", "steps": "20"}
    settings = from_config({"finetune": quoted, "pretrain": {"seed": None}})
    assert (settings.finetune.clip, settings.finetune.steps, settings.pretrain.seed) == (None, 20, None)


def test_a_rate_table_of_a_phase_that_is_not_run_may_lack_the_width() -> None:
    table = {"table": {8: 1e-3}}
    assert from_config({"pretrain": {"lr": table}}).pretrain.lr == table
    with pytest.raises(SettingsError, match=r"finetune\.lr.*no rate for dim=64"):
        from_config({"finetune": {"lr": table}})


def test_settings_made_in_python_are_checked_too() -> None:
    with pytest.raises(UsageError, match=r"approach3.delta=-1: must be a number above 0"):
        check(FitSettings(approach3=Approach3Settings(delta=-1)))


@dataclass
class Group:
    """A group."""

    share: Annotated[float, Range(0, 1, without="high")] = 0.5


@dataclass
class Sample:
    """One of each."""

    count: Annotated[int | None, Range(1)] = None
    word: Annotated[str, OneOf("red", "blue", "")] = "red"
    name: Annotated[str, Matches("[a-z]+", "a name: letters only")] = "a"
    pairs: dict[str, Annotated[float, Range(0)]] = field(default_factory=dict)
    group: Group = field(default_factory=Group)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"count": 0}, "count=0: must be a whole number of at least 1, or null"),
        ({"word": "read"}, "word=read: must be one of red, blue, '' (empty); did you mean red?"),
        ({"name": "a1"}, "name=a1: cannot be a name: letters only"),
        ({"pairs": {"x": -1}}, "pairs.x=-1: must be a number of at least 0"),
        ({"pairs": 3}, "pairs=3: must be {NAME: VALUE, ...}, or pairs.NAME=VALUE"),
        ({"group": {"share": 1}}, "group.share=1: must be a number of at least 0 and below 1"),
        ({"group": 1}, "group=1: a group of keys, set one of them, for example group.share=VALUE"),
        ({"group": {"shar": 1}}, "unknown key 'group.shar'; did you mean group.share?"),
    ],
)
def test_the_words_of_a_refusal(content, message) -> None:
    assert list(problems(Sample, content)) == [message]
