"""``python -m jetscale.train --help``: choices and every key, without the seconds that Hydra's own takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from jetscale.common.cli import usage
from jetscale.training.settings import TrainSettings

PROGRAM = "python -m jetscale.train"
_CHOICES = ("experiment", "sweep", "budget", "hydra/launcher")
_USE = """
examples:
  {program} +experiment=bsm_all model.dim=64 budget=laptop          one run
  {program} +experiment=bsm_all model.dim=256 -m seed=0,1,2,3,4     five runs
  {program} -m +sweep=paper hydra/launcher=slurm                    a grid; again: it goes on
  {program} +sweep=paper --dry                                      its plan alone

choices (files of {conf}; --hydra-help tells of Hydra's own):
"""


def train_help(conf: Path) -> str:
    """Help text.

    Parameters
    ----------
    conf : folder of the configuration files
    """
    lines = [usage(TrainSettings, PROGRAM).rstrip(), _USE.format(program=PROGRAM, conf=conf).rstrip()]
    for group in _CHOICES:
        names = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        if group == "hydra/launcher":
            names = sorted({*names, "basic", "joblib"})
        sign = "+" if group in ("experiment", "sweep") else ""
        lines.append(f"  {sign}{group}={'|'.join(names)}")
    lines.append("\nkeys in groups:")
    for name, kind in _groups(TrainSettings):
        # what a phase inherits is said in its parent
        texts = [inspect.cleandoc(one.__doc__ or "") for one in kind.__mro__ if is_dataclass(one)]
        lines += [f"  {name}", *(f"    {line}".rstrip() for text in texts for line in text.splitlines())]
    return "\n".join(lines) + "\n"


def _groups(settings: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    hints = get_type_hints(settings)
    for field in fields(settings):
        kind = hints[field.name]
        if isinstance(kind, type) and is_dataclass(kind):
            yield field.name, kind
