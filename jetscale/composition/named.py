"""Compositions by name: those of the shipped experiments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jetscale.common.usage import UsageError

WIDE = 140
"""Columns of the tables of compositions, where no terminal says."""


def shipped(conf: Path) -> dict[str, dict[str, Any]]:
    """Composition of every experiment of `conf` that has one, by name."""
    import yaml

    found = {
        path.stem: yaml.safe_load(path.read_text()) for path in sorted((conf / "experiment").glob("*.yaml"))
    }
    return {
        name: content["pretrain"]["composition"]
        for name, content in found.items()
        if (content.get("pretrain") or {}).get("composition")
    }


def choose(known: Mapping[str, Any], names: list[str], own: Mapping[str, Any]) -> dict[str, Any]:
    """Compositions to look at: `names` of the known ones (all, where none is named), and the user's own.

    Parameters
    ----------
    known : compositions of the experiments, by name
    names : of these, those to look at; empty for all
    own : the user's compositions, by name

    Raises
    ------
    UsageError
        A name that is not known, or that is given twice.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"names: no experiment {unknown[0]!r} with a composition; there are {', '.join(known)}"
        )
    twice = [name for name in own if name in known]
    if twice:
        raise UsageError(f"own.{twice[0]}: an experiment has that name; choose another")
    chosen = names or ([] if own else list(known))
    return {**{name: known[name] for name in chosen}, **own}
