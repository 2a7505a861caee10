"""``python -m jetscale.status multirun/<sweep>``: what is done, running, failed, and the time left."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.live import Live

from jetscale.common import cli
from jetscale.common.fields import Range
from jetscale.common.usage import UsageError
from jetscale.status.as_json import as_json
from jetscale.status.sweep import Sweep, Watcher
from jetscale.status.terminal import render

PROGRAM = "python -m jetscale.status"


@dataclass
class StatusSettings:
    """What is done, running and failed in a sweep, and the time left.

    The exit status is 1 where a run has failed, and 2 where there is nothing to show.

    Attributes
    ----------
    path : the sweep's folder, multirun/<study>; ``path=`` may be left out.
    watch : on a terminal, seconds from one look to the next, until every run is done or failed.
    once : show it once and end, as it is done where the output is no terminal.
    json : print one JSON object (docs/tracking.md).
    """

    path: str = ""
    watch: Annotated[float, Range(0.1, 3600)] = 2.0
    once: bool = False
    json: bool = False


def main(argv: Sequence[str]) -> int:
    """Show the status of a sweep; returns the exit status."""
    settings = cli.parse(StatusSettings, argv, PROGRAM, positional="path")
    if not settings.path:
        raise UsageError("no sweep is named; give its folder, multirun/<study>")
    watcher = Watcher(Path(settings.path))
    if settings.json:
        sweep = watcher.look()
        sys.stdout.write(json.dumps(as_json(sweep), indent=2, allow_nan=False) + "\n")
    elif settings.once or not sys.stdout.isatty():
        sweep = watcher.look()
        cli.console(160).print(render(sweep))
    else:
        sweep = _watch(watcher, settings.watch)
    return 1 if sweep.counts["failed"] else 0


def _watch(watcher: Watcher, interval: float) -> Sweep:
    """Refresh the table every `interval` seconds until every run is done or failed, or until Ctrl-C."""
    console = Console(markup=False, emoji=False)
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


if __name__ == "__main__":
    sys.exit(cli.run(main, PROGRAM))
