"""Writes the lines of ``metrics.jsonl``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
from torch import Tensor

from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.model.cost import flops_6n
from jetscale.runs.metrics import MetricsLine
from jetscale.training import ranks
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.module import NonFiniteLoss
from jetscale.training.outputs import Outputs, Schedule


@dataclass(frozen=True)
class _Due:
    """A line of the training loss that is still to be written.

    Attributes
    ----------
    step, constituents : of the line
    losses : waits for the losses since the line before, and gives them
    """

    step: int
    constituents: int
    losses: Callable[[], Tensor]


class MetricsWriter(L.Callback):
    """Writes the mean training loss since the line before, and lines that other callbacks ask for.

    On every other step it costs one comparison, and no device is waited for. Where the module runs ahead of
    its device, a line is written when the steps up to the next line have been given to the device, which
    computes them meanwhile: on an H200, a line and what follows until the next steps took 3 ms at width 8, as
    long as 30 steps. Before
    an evaluation, a checkpoint and the end of the phase, `settle` writes what is due.

    Parameters
    ----------
    outputs, schedule : where and when

    Attributes
    ----------
    seconds_before : wall time of earlier starts of the phase
    step, train_loss : of the last line of the training loss
    constituents : constituents seen by all ranks up to the last line
    """

    def __init__(self, outputs: Outputs, schedule: Schedule) -> None:
        self.outputs = outputs
        self.schedule = schedule
        self.seconds_before = 0.0
        self.step = 0
        self.train_loss = float("nan")
        self.constituents = 0
        self._started = 0.0
        self._due: _Due | None = None

    @property
    def seconds_here(self) -> float:
        """Wall time since this start of the phase."""
        return time.monotonic() - self._started

    @property
    def seconds(self) -> float:
        """Wall time of the phase so far, over all its starts."""
        return self.seconds_before + self.seconds_here

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prepare the line of the training loss where it is due after this step."""
        assert isinstance(pl_module, LeanClassifier)
        step = pl_module.step
        if not self.schedule.writes_line(step):
            return
        losses = pl_module.window_losses(self.schedule.window_start(step))
        due = _Due(step, pl_module.count_constituents(), losses)
        self.settle(pl_module)
        self._due = due
        if not pl_module.runs_ahead or step == self.schedule.steps:
            self.settle(pl_module)

    def settle(self, module: LeanClassifier) -> None:
        """Write the line of the training loss that is due, if one is; every rank must call.

        Raises
        ------
        NonFiniteLoss
            One of its losses is NaN or infinite.
        """
        if self._due is None:
            return
        due, self._due = self._due, None
        losses = self._require_finite(module, self.schedule.window_start(due.step), due.losses())
        self.step, self.train_loss = due.step, float(losses.mean())
        self._write(module, due.step, due.constituents, "train", "raw", self.train_loss, None)

    def require_finite_losses(self, module: LeanClassifier) -> None:
        """Write the line that is due, and look at the losses of the steps since; every rank must call.

        Raises
        ------
        NonFiniteLoss
            One of them is NaN or infinite.
        """
        self.settle(module)
        since = self.schedule.window_start(module.step)
        self._require_finite(module, since, module.window_losses(since)())

    def _require_finite(self, module: LeanClassifier, since: int, losses: Tensor) -> Tensor:
        bad = (~losses.isfinite()).nonzero()
        if len(bad) == 0:
            return losses
        step, jets = since + int(bad[0]), module.phase.batch_size
        raise NonFiniteLoss(
            f"{self.outputs.phase}: the loss of step {step + 1} is {float(losses[bad[0]])}, on the jets at "
            f"positions {step * jets} to {(step + 1) * jets - 1} of the stream; "
            f"last good checkpoint: {self.outputs.checkpoints.newest() or 'none yet'}. "
            "Lower the learning rate, lengthen the warm-up or set a gradient clip; where it is the data, "
            "`python -m jetscale.prepare check=true` names a damaged store."
        )

    def write(
        self,
        module: LeanClassifier,
        split: str,
        weights: str,
        loss: float,
        accuracy: float | None,
    ) -> None:
        """Write a line of the present step, to ``metrics.jsonl``, W&B and loggers; every rank must call.

        Parameters
        ----------
        module : at the step
        split : ``test`` or ``test_all``
        weights : ``raw`` or ``ema``
        loss : mean cross-entropy, nats
        accuracy : share of jets classified right; None where it was not taken
        """
        self._write(module, module.step, module.count_constituents(), split, weights, loss, accuracy)

    def _write(
        self,
        module: LeanClassifier,
        step: int,
        constituents: int,
        split: str,
        weights: str,
        loss: float,
        accuracy: float | None,
    ) -> None:
        self.constituents = constituents
        if not ranks.is_first():
            return
        jets = step * module.phase.batch_size
        line = MetricsLine(
            phase=self.outputs.phase,
            step=step,
            jets=jets,
            constituents=constituents,
            flops=flops_6n(module.n_params, MEAN_CONSTITUENTS * jets),
            split=split,
            weights=weights,
            loss=loss,
            accuracy=accuracy,
            lr=module.rate(step - 1),
            seconds=self.seconds,
        )
        self.outputs.write(line)
