"""``python -m jetscale.composition compare|show``: compositions measured, and what a store has for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from jetscale import cli
from jetscale.fields import SEED, Range, nearest

PROGRAM = "python -m jetscale.composition"


@dataclass
class Show:
    """What a store has for compositions: classes, jets, and where a single pass ends.

    Attributes
    ----------
    names : experiments with a composition, e.g. [qcd,bsm_all] (default: all)
    own : further ones as own.NAME=COMPOSITION, e.g. 'own.mine={X_bb: 1, QCD_*: 2}'
    dir : folder with JetClassII/ inside
    store : folder of packed stores; default <dir>/store
    """

    names: list[str] = field(default_factory=list)
    own: dict[str, Any] = field(default_factory=dict)
    dir: str = "data"
    store: str | None = None


@dataclass
class Compare(Show):
    """Measure the diversity of compositions and their alignment with the downstream jets.

    Writes compare.json, and the figures map and observables.

    Attributes
    ----------
    names : experiments with a composition, e.g. [qcd,bsm_all] (default: all)
    own : further ones as own.NAME=COMPOSITION, e.g. 'own.mine={X_bb: 1, QCD_*: 2}'
    downstream : classes of JetClass to align with, e.g. [H4q,Hqql,Tbqq] (default: all ten)
    jets : jets of each composition, and downstream
    draws : half-samples behind each standard error
    seed : of the jets and of the half-samples
    dir : folder with JetClass/ and JetClassII/ inside
    store : folder of packed stores; default <dir>/store
    out : folder to write to
    """

    downstream: list[str] = field(default_factory=lambda: ["*"])
    jets: Annotated[int, Range(10, 10_000_000)] = 4_000
    draws: Annotated[int, Range(2, 100_000)] = 30
    seed: Annotated[int, SEED] = 0
    out: str = "multirun/compositions"


COMMANDS = {"compare": Compare, "show": Show}


def main(argv: Sequence[str]) -> None:
    """Run the command that `argv` begins with."""
    if not argv or argv[0] not in COMMANDS:
        if argv and argv[0] in ("-h", "--help"):
            sys.stdout.write(_overview())
            return
        hint = nearest(argv[0] if argv else "", list(COMMANDS), "commands")
        raise cli.UsageError(f"{argv[0] if argv else 'nothing'!r} is no command; {hint}; see --help")
    settings = cli.parse(COMMANDS[argv[0]], argv[1:], f"{PROGRAM} {argv[0]}")
    # imported here: `--help` needs neither the jets nor scikit-learn
    from jetscale.composition.compare import compare
    from jetscale.composition.show import show
    from jetscale.jets.errors import JetDataError

    try:
        compare(settings) if isinstance(settings, Compare) else show(settings)
    except JetDataError as error:
        raise cli.UsageError(str(error)) from error


def _overview() -> str:
    lines = [f"usage: {PROGRAM} COMMAND [key=value ...]; --help after a command lists its keys"]
    lines += [f"  {name:8} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in COMMANDS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(cli.run(main, PROGRAM))
