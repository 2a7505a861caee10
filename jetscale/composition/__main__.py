"""``python -m jetscale.composition compare|show``: compositions measured, and what a store has for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jetscale.common import cli
from jetscale.common.fields import nearest
from jetscale.common.usage import UsageError
from jetscale.composition.settings import Compare, Show

PROGRAM = "python -m jetscale.composition"


COMMANDS = {"compare": Compare, "show": Show}


def main(argv: Sequence[str]) -> None:
    """Run the command that `argv` begins with."""
    if not argv or argv[0] not in COMMANDS:
        if argv and argv[0] in ("-h", "--help"):
            sys.stdout.write(_overview())
            return
        hint = nearest(argv[0] if argv else "", list(COMMANDS), "commands")
        raise UsageError(f"{argv[0] if argv else 'nothing'!r} is no command; {hint}; see --help")
    settings = cli.parse(COMMANDS[argv[0]], argv[1:], f"{PROGRAM} {argv[0]}")
    # imported here: `--help` needs neither the jets nor scikit-learn
    from jetscale.composition.compare import compare
    from jetscale.composition.show import show
    from jetscale.jets.errors import JetDataError

    try:
        compare(settings) if isinstance(settings, Compare) else show(settings)
    except JetDataError as error:
        raise UsageError(str(error)) from error


def _overview() -> str:
    lines = [f"usage: {PROGRAM} COMMAND [key=value ...]; --help after a command lists its keys"]
    lines += [f"  {name:8} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in COMMANDS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(cli.run(main, PROGRAM))
