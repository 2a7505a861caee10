"""What the terminal and the log show of a phase; nothing per step."""

from __future__ import annotations

import logging
import threading
from typing import Any

import lightning as L

from jetscale.common.progress import Progress, wait_for
from jetscale.training import ranks
from jetscale.training.callbacks.metrics_writer import MetricsWriter
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.phase_settings import Phase

log = logging.getLogger(__name__)

_LINE_SECONDS = 60.0
_DOING = {Phase.PRETRAIN: "pretraining", Phase.FINETUNE: "fine-tuning"}


class PhaseProgress(L.Callback):
    """Shows steps, time left, the newest training loss and jets/s, each time a metrics line is written.

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
        self._bar_wanted = enabled
        self._progress: Progress | None = None
        self._shown = writer.step
        self._first_step: threading.Timer | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin on the first rank."""
        if not ranks.is_first() or self._module.start_step >= self._schedule.steps:
            return
        self._progress = Progress(
            _DOING[self._phase], self._schedule.steps, "steps",
            say=log.info, every=_LINE_SECONDS, bar=self._bar_wanted, done=self._module.start_step,
        ).__enter__()  # fmt: skip
        self._first_step = wait_for(f"first step of {_DOING[self._phase]} (may compile kernels)", log.info)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Refresh where a metrics line has just been written."""
        if self._first_step is not None:
            self._first_step.cancel()
            self._first_step = None
        step = self._writer.step
        if self._progress is not None and step != self._shown:
            self._shown = step
            self._progress.update(step, f"loss {self._writer.train_loss:.4f}, {self._rate():,.0f} jets/s")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how it went."""
        self._close(None)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Remove the bar before the traceback."""
        self._close(exception)

    def _rate(self) -> float:
        jets = (self._writer.step - self._module.start_step) * self._module.phase.batch_size
        return jets / max(self._writer.seconds_here, 1e-9)

    def _close(self, error: BaseException | None) -> None:
        if self._first_step is not None:
            self._first_step.cancel()
        if self._progress is not None:
            self._progress.__exit__(None if error is None else type(error), error, None)
            self._progress = None
