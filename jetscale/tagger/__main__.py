"""``python -m jetscale.tagger predict|evaluate|export``: a finished run put to use."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jetscale.common import cli
from jetscale.common.fields import nearest
from jetscale.common.imports import quick_imports
from jetscale.common.usage import UsageError
from jetscale.tagger.settings import Evaluate, Export, Predict

PROGRAM = "python -m jetscale.tagger"

Command = Predict | Evaluate | Export

COMMANDS: dict[str, type[Command]] = {"predict": Predict, "evaluate": Evaluate, "export": Export}


def main(argv: Sequence[str]) -> None:
    """Run the command that `argv` begins with."""
    if not argv or argv[0] not in COMMANDS:
        if argv and argv[0] in ("-h", "--help"):
            sys.stdout.write(_overview())
            return
        hint = nearest(argv[0] if argv else "", list(COMMANDS), "commands")
        raise UsageError(f"{argv[0] if argv else 'nothing'!r} is no command; {hint}; see --help")
    settings: Command = cli.parse(COMMANDS[argv[0]], argv[1:], f"{PROGRAM} {argv[0]}")
    if not settings.run:
        raise UsageError("no run is named; give its directory, run=DIRECTORY, one of those below multirun/")
    # imported here: `--help` needs neither torch nor the readers
    if isinstance(settings, Predict):
        with quick_imports():
            from jetscale.tagger.predict import predict
        predict(settings)
    elif isinstance(settings, Evaluate):
        with quick_imports():
            from jetscale.tagger.evaluate import evaluate
        evaluate(settings)
    else:
        with quick_imports():
            from jetscale.tagger.export import export
        export(settings)


def _overview() -> str:
    lines = [f"usage: {PROGRAM} COMMAND [key=value ...]; --help after a command lists its keys"]
    lines += [f"  {name:8} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in COMMANDS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(cli.run(main, PROGRAM))
