"""What runs of one subset vary besides width and seed: runs of another *variant* are fitted apart.

A run's settings are those that decide its numbers, by dotted key, as text. A variant names the ones that take
more than one value among the runs of a subset, such as ``finetune.lr=0.04``; "" where nothing else varies.
Only settings that are the same may be averaged as seeds, whatever a folder is called or a study was joined
from. (Subset, variant) is a *group*; its name is ``scratch`` or ``scratch [finetune.lr=0.04]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jetscale.analysis.tables.loss_table import LossTable, group_name
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

Settings = dict[str, str]

REFERENCE = "scratch"
"""Subset that was not pretrained."""
SECTIONS = ("model", "data", "pretrain", "finetune", "ema", "eval", "device", "callbacks")
WHOLE = ("pretrain.composition", "pretrain.lr", "finetune.lr")
"""Settings that are one value though they may be a mapping."""
NOT_NUMBERS = (
    "model.dim", "data.dir", "data.store", "data.workers", "data.dataset", "pretrain.library",
    "eval.every", "eval.log_points", "eval.batch_size", "eval.final_all",
)  # fmt: skip
"""The grid itself, places, and when the test loss is taken: these decide no loss."""
PRETRAINING = ("pretrain.", "jets.pretrain")
UNTOLD = "not given"
BEFORE = {
    "model.arch": "transformer",
    "pretrain.dataset": "jetclass2",
    "finetune.dataset": "jetclass",
}
"""Settings that were added later, with the value of the runs that were made before and do not name them."""
JETS = "jets."
"""Prefix of fingerprints of the jets, which only finished runs tell: unknown is not another value."""
MAX_SHOWN = 60  # characters of a value


def settings_of(config: Mapping[str, Any]) -> Settings:
    """The settings in a ``config.yaml`` (or W&B config) that decide numbers; nothing in it is resolved.

    Parameters
    ----------
    config : nested or dotted; W&B's ``{"value": ...}`` around a section is taken off.
    """
    flat: dict[str, Any] = {}
    for name in SECTIONS:
        section = config.get(name)
        if isinstance(section, dict) and set(section) == {"value"}:
            section = section["value"]
        _flatten(name, section, flat)
    for key, value in config.items():  # dotted already
        if "." in key and key.partition(".")[0] in SECTIONS:
            _flatten(key, value, flat)
    kept = {key: value for key, value in flat.items() if key not in NOT_NUMBERS}
    if kept.get("pretrain.composition") in (None, {}):
        kept = {key: value for key, value in kept.items() if not key.startswith("pretrain.")}
    return {
        key: text_of(value)
        for key, value in sorted(kept.items())
        if not key.startswith("device.") or key == "device.precision"
    }


def text_of(value: Any) -> str:
    """A setting as text, the same for 1 and 1.0, and for 1e-3 whether YAML takes it for text or not."""
    if isinstance(value, str):
        text = value
        try:
            value = float(text)
        except ValueError:
            return text
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, dict):
        inner = ",".join(f"{key}:{text_of(value[key])}" for key in sorted(value, key=str))
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{','.join(map(text_of, value))}]"
    return json.dumps(value)


def with_variants(losses: LossTable) -> LossTable:
    """The table with its column ``variant``, from the settings of its runs; as it is where none are told.

    Raises
    ------
    UsageError
        Two runs of one subset, variant, size and seed: they are no seeds, and nothing tells them apart.
    """
    if not losses.settings:
        return losses
    frame = variants_named(losses)
    runs = frame.drop_duplicates("run")
    _refuse_twins(runs, losses.source)
    known = {run: losses.settings.get(run, {}) for run in runs["run"]}
    warnings = [*losses.warnings, *told(runs), *_confounded(runs, known)]
    return replace(losses, frame=frame, warnings=warnings, settings={})


def variants_named(losses: LossTable) -> pd.DataFrame:
    """Rows of the table with their ``variant``; as they are where no settings are told."""
    if not losses.settings:
        return losses.frame
    named: dict[str, str] = {}
    for _, members in losses.frame.drop_duplicates("run").groupby("subset"):
        known = {run: losses.settings.get(run, {}) for run in members["run"]}
        keys = varying(list(known.values()))
        named |= {run: _named(settings, keys) for run, settings in known.items()}
    return losses.frame.assign(variant=losses.frame["run"].map(named))


def only_varying(settings: dict[str, Settings]) -> dict[str, Settings]:
    """Settings by run, without those that are the same in all runs."""
    keys = varying(list(settings.values()))
    return {run: {key: one[key] for key in keys if key in one} for run, one in settings.items()}


def varying(settings: list[Settings]) -> list[str]:
    """Keys that take more than one value."""
    keys = sorted({key for one in settings for key in one})
    found = []
    for key in keys:
        values = {_value(one, key) for one in settings}
        if len(values - ({UNTOLD} if key.startswith(JETS) else set())) > 1:
            found.append(key)
    return found


def counterpart(name: str, names: Iterable[str], reference: str) -> str | None:
    """The group of the subset `reference` that group `name` is compared with; None where there is none.

    The group that is called `reference`; else the only one of that subset; else the one with the same
    settings, pretraining aside.
    """
    names = list(names)
    if reference in names:
        return reference if name != reference else None
    subset, variant = split_name(name)
    candidates = [other for other in names if split_name(other)[0] == reference]
    if subset == reference or not candidates:
        return None
    if len(candidates) == 1:
        return candidates[0]
    wanted = _fine_tuning(variant)
    alike = [other for other in candidates if _fine_tuning(split_name(other)[1]) == wanted]
    return alike[0] if len(alike) == 1 else None


def split_name(name: str) -> tuple[str, str]:
    """Subset and variant of a group's name."""
    subset, separator, variant = name.partition(" [")
    return (subset, variant[:-1]) if separator and name.endswith("]") else (name, "")


def without(variant: str, key: str) -> str:
    """A variant less one of its settings."""
    return ", ".join(part for part in _parts(variant) if not part.startswith(f"{key}="))


def _flatten(key: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict) and key not in WHOLE:
        for name, inner in value.items():
            _flatten(f"{key}.{name}", inner, into)
    elif value is not None or "." in key:
        into[key] = value


def _named(settings: Settings, keys: list[str]) -> str:
    return ", ".join(f"{key}={_short(_value(settings, key))}" for key in keys)


def _value(settings: Settings, key: str) -> str:
    return settings.get(key, BEFORE.get(key, UNTOLD))


def _short(text: str) -> str:
    """A value without what separates settings; a long one ends in its checksum."""
    import xxhash

    plain = text.replace(", ", ",")
    if len(plain) <= MAX_SHOWN:
        return plain
    return f"{plain[:MAX_SHOWN]}...{xxhash.xxh3_64_hexdigest(plain.encode())[:8]}"


def _parts(variant: str) -> list[str]:
    return variant.split(", ") if variant else []


def _fine_tuning(variant: str) -> list[str]:
    return [part for part in _parts(variant) if not part.startswith(PRETRAINING)]


def _refuse_twins(runs: pd.DataFrame, source: str) -> None:
    twins = runs[runs.duplicated(["subset", "variant", "n_params", "seed"], keep=False)]
    if not len(twins):
        return
    twins = twins.sort_values(["subset", "variant", "n_params", "seed", "run"])
    first = twins.iloc[0]
    same = twins[(twins[["subset", "variant", "n_params", "seed"]] == first[
        ["subset", "variant", "n_params", "seed"]
    ]).all(axis=1)]  # fmt: skip
    one, other = same["run"].iloc[:2]
    name = group_name(first["subset"], first["variant"])
    raise UsageError(
        f"{source}: runs {one} and {other} are both of {name}, N = {first['n_params']:g}, seed "
        f"{first['seed']}, and no setting tells them apart; leave one out (where=\"run != '...'\"), or read "
        "them one by one"
    )


def told(runs: pd.DataFrame) -> list[str]:
    """One sentence for each subset that is fitted in several groups."""
    found = []
    for subset, members in runs.groupby("subset"):
        variants = sorted(members["variant"].unique())
        if len(variants) > 1:
            shown = "; ".join(variants[:4]) + ("; ..." if len(variants) > 4 else "")
            found.append(
                f"runs of {subset} differ in more than width and seed: {len(variants)} variants are fitted "
                f"apart ({shown})"
            )
    return found


def _confounded(runs: pd.DataFrame, known: dict[str, Settings]) -> list[str]:
    """Settings other than pretraining in which subsets differ, and with them their losses."""
    by_subset = {
        str(subset): [known[run] for run in members["run"]] for subset, members in runs.groupby("subset")
    }
    found = []
    for key in varying([one for settings in by_subset.values() for one in settings]):
        if key.startswith(PRETRAINING):
            continue
        values = {
            subset: sorted({_value(one, key) for one in settings} - {UNTOLD} or {UNTOLD})
            for subset, settings in by_subset.items()
        }
        told = [value for value in values.values() if not (key.startswith(JETS) and value == [UNTOLD])]
        if any(value != told[0] for value in told):
            shown = ", ".join(
                f"{subset} {' and '.join(map(_short, value))}" for subset, value in values.items()
            )
            found.append(
                f"subsets differ in {key} ({shown}), so their differences are not those of the pretraining "
                "alone"
            )
    return found
