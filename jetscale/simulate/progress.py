"""Progress of a simulation: a bar in a terminal, and a line every 30 seconds in a log."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from jetscale.simulate.chunk import Effort

QUIET_SECONDS = 30.0
"""Between two lines of a log."""


class Progress:
    """Count jets; show jets per second and the time left.

    Parameters
    ----------
    total : jets to make
    workers : number of processes, for the message
    """

    def __init__(self, total: int, workers: int) -> None:
        self.total, self.workers = total, workers
        self.effort = Effort()
        self._began = self._spoke = time.monotonic()
        console = Console(stderr=True)
        columns = (
            TextColumn("simulate"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(elapsed_when_finished=True),
        )  # fmt: skip
        self._bar = Bar(*columns, console=console) if console.is_terminal and total else None
        self._task = self._bar.add_task("jets", total=total, rate="") if self._bar else None

    def __enter__(self) -> Progress:
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.stop()
        if error is None and self.total:
            self._say()

    def advance(self, effort: Effort) -> None:
        """Add a finished chunk."""
        for name in ("jets", "events", "seconds", "init", "pythia"):
            setattr(self.effort, name, getattr(self.effort, name) + getattr(effort, name))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=effort.jets, rate=f"{self.rate:.0f} jets/s")
        elif time.monotonic() - self._spoke > QUIET_SECONDS:
            self._say()

    @property
    def rate(self) -> float:
        """Jets per second so far."""
        return self.effort.jets / max(time.monotonic() - self._began, 1e-9)

    def _say(self) -> None:
        self._spoke = time.monotonic()
        left = timedelta(seconds=round((self.total - self.effort.jets) / max(self.rate, 1e-9)))
        inside = (self.effort.pythia + self.effort.init) / max(self.effort.seconds, 1e-9)
        sys.stderr.write(
            f"simulate: {self.effort.jets:,} of {self.total:,} jets, {self.rate:.0f} jets/s with "
            f"{self.workers} workers, {inside:.0%} of the time in Pythia, {left} left\n"
        )
        sys.stderr.flush()
