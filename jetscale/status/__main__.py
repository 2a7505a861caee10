"""``python -m jetscale.status multirun/<sweep>``: what is done, running, failed, and the time left."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.live import Live

from jetscale.common import cli
from jetscale.common.fields import Range, take
from jetscale.common.usage import UsageError
from jetscale.status.as_json import as_json
from jetscale.status.sweep import Sweep, Watcher
from jetscale.status.terminal import render

_INTERVAL = 2.0
_EXIT = "exit status: 0, or 1 where a run has failed, or 2 where there is nothing to show"


def main(argv: Sequence[str] | None = None) -> int:
    """Show the status; returns the exit status."""
    arguments = _parser().parse_args(argv)
    watcher = Watcher(arguments.path)
    try:
        if arguments.json:
            sweep = watcher.look()
            sys.stdout.write(json.dumps(as_json(sweep), indent=2, allow_nan=False) + "\n")
        elif arguments.once or not sys.stdout.isatty():
            sweep = watcher.look()
            cli.console(160).print(render(sweep))
        else:
            sweep = _watch(watcher, arguments.watch)
    except UsageError as error:
        sys.stderr.write(f"jetscale.status: {error}\n")
        return 2
    return 1 if sweep.counts["failed"] else 0


def _watch(watcher: Watcher, interval: float) -> Sweep:
    """Refresh until every run is done or failed, or ctrl-C."""
    console = Console()
    sweep = watcher.look()
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        try:
            while True:
                live.update(render(sweep, console.height), refresh=True)
                if sweep.over:
                    break
                time.sleep(interval)
                sweep = watcher.look()
        except KeyboardInterrupt:
            pass  # the last table stays on the terminal
    return sweep


def _parser() -> argparse.ArgumentParser:
    parser = cli.OptionParser("python -m jetscale.status", description=__doc__, epilog=_EXIT)
    parser.add_argument("path", type=Path, metavar="PATH", help="the sweep's folder, multirun/<study>")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print one JSON object (docs/tracking.md)")
    shown.add_argument("--once", action="store_true", help="print once; what is done where no terminal is")
    shown.add_argument(
        "--watch", type=_seconds, default=_INTERVAL, metavar="SECONDS",
        help=f"on a terminal, look again every so many seconds until all is over (default {_INTERVAL:g})",
    )  # fmt: skip
    return parser


def _seconds(text: str) -> float:
    try:
        seconds: float = take("--watch", Annotated[float, Range(0.1, 3600)], text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return seconds


if __name__ == "__main__":
    sys.exit(main())
