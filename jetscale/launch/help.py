"""``python -m jetscale.train --help``: choices and every key, without the seconds that Hydra's own takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore

from jetscale.common.cli import usage
from jetscale.common.hydra_flags import flags_parser
from jetscale.launch.command_line import choices
from jetscale.training.settings import TrainSettings

PROGRAM = "python -m jetscale.train"
_CHOICES = ("experiment", "sweep", "budget", "hydra/launcher")
_PLUGINS = ("basic", "joblib")
"""Launchers of Hydra and of the extra ``launchers``; looking for plugins takes seconds, so they are named."""
_USE = """
examples:
  {program} +experiment=bsm_all model.dim=64 budget=laptop          one run
  {program} +experiment=bsm_all model.dim=256 -m seed=0,1,2,3,4     five runs
  {program} -m +sweep=paper hydra/launcher=slurm                    a grid; again: it goes on
  {program} +sweep=paper --dry                                      its plan alone

choices (files of {conf} and of --config-dir; --hydra-help shows Hydra's flags):
"""


def train_help(argv: Sequence[str], conf: Path) -> str:
    """Help text: keys, examples, choices, and what each key means.

    Names that modules register (networks, datasets) are listed with their keys. What the modules of
    ``--trust`` register, imported before, is among them, and so are the files of a ``--config-dir``.

    Parameters
    ----------
    argv : words of the command line
    conf : folder of jetscale's configuration files
    """
    given = flags_parser().parse_known_args(list(argv))[0].config_dir
    folders = [conf, Path(given)] if given else [conf]
    lines = [usage(TrainSettings, PROGRAM).rstrip(), _USE.format(program=PROGRAM, conf=conf).rstrip()]
    for group in _CHOICES:
        names = set(choices(group, folders))
        if group == "hydra/launcher":
            names |= {*_PLUGINS, *_stored(group)}
        sign = "+" if group in ("experiment", "sweep") else ""
        lines.append(f"  {sign}{group}={'|'.join(sorted(names))}")
    lines.append("\nkeys in groups:")
    for name, kind in _groups(TrainSettings):
        # inherited keys are documented in the base class
        texts = [inspect.cleandoc(one.__doc__ or "") for one in kind.__mro__ if is_dataclass(one)]
        lines += [f"  {name}", *(f"    {line}".rstrip() for text in texts for line in text.splitlines())]
    return "\n".join(lines) + "\n"


def _stored(group: str) -> list[str]:
    """Names in a group of Hydra's store of configurations, where user's modules and plugins put theirs."""
    try:
        return [name.removesuffix(".yaml") for name in ConfigStore.instance().list(group)]
    except OSError:  # nothing is stored there
        return []


def _groups(settings: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    hints = get_type_hints(settings)
    for field in fields(settings):
        kind = hints[field.name]
        if isinstance(kind, type) and is_dataclass(kind):
            yield field.name, kind
