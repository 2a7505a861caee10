"""Progress of a phase: a bar on a terminal, a log line now and then elsewhere; nothing per step."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import lightning as L
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jetscale.training import ranks
from jetscale.training.callbacks.metrics_writer import MetricsWriter
from jetscale.training.lean_module import LeanClassifier

log = logging.getLogger(__name__)

_LINE_SECONDS = 60.0


class PhaseProgress(L.Callback):
    """Shows steps, jets/s, the newest training loss and the time left, each time a metrics line is due.

    Parameters
    ----------
    writer : knows the newest training loss and the wall time
    module : knows the step
    enabled : show a bar where stderr is a terminal; else a line in the log now and then
    """

    def __init__(self, writer: MetricsWriter, module: LeanClassifier, enabled: bool) -> None:
        self._phase = writer.outputs.phase
        self._schedule = writer.schedule
        self._module = module
        self._writer = writer
        self._bar: Progress | None = None
        self._task: Any = None
        self._bar_wanted = enabled and sys.stderr.isatty()
        self._last_line = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar on the first rank."""
        self._last_line = time.monotonic()
        if not (self._bar_wanted and ranks.is_first()):
            return
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
        )  # fmt: skip
        self._task = self._bar.add_task(
            self._phase, total=self._schedule.steps, completed=self._module.start_step, state=""
        )
        self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Refresh where a metrics line has just been written."""
        step = self._module.step
        if not self._schedule.writes_line(step) or not ranks.is_first():
            return
        state = f"loss {self._writer.train_loss:.4f}  {self._rate():,.0f} jets/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, state=state)
        elif time.monotonic() - self._last_line > _LINE_SECONDS or step == self._schedule.steps:
            self._last_line = time.monotonic()
            log.info("%s step %d/%d  %s", self._phase, step, self._schedule.steps, state)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar before the traceback."""
        self._close()

    def _rate(self) -> float:
        jets = (self._module.step - self._module.start_step) * self._module.phase.batch_size
        return jets / max(self._writer.seconds_here, 1e-9)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
