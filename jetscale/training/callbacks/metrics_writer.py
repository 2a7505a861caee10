"""Writes the lines of ``metrics.jsonl``."""

from __future__ import annotations

import time
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


class MetricsWriter(L.Callback):
    """Writes the mean training loss since the line before, and lines that other callbacks ask for.

    On every other step it costs one comparison, and no device is waited for.

    Parameters
    ----------
    outputs, schedule : where and when

    Attributes
    ----------
    seconds_before : wall time of earlier starts of the phase
    train_loss : the training loss of the last line
    constituents : constituents seen by all ranks up to the last line
    """

    def __init__(self, outputs: Outputs, schedule: Schedule) -> None:
        self.outputs = outputs
        self.schedule = schedule
        self.seconds_before = 0.0
        self.train_loss = float("nan")
        self.constituents = 0
        self._started = 0.0

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
        """Write the line of the training loss where it is due after this step."""
        assert isinstance(pl_module, LeanClassifier)
        if self.schedule.writes_line(pl_module.step):
            self.train_loss = float(self.finite_losses(pl_module).mean())
            self.write(pl_module, "train", "raw", self.train_loss, None)

    def finite_losses(self, module: LeanClassifier) -> Tensor:
        """Losses of the steps since the last line, (steps,) float64 on the CPU; every rank must call.

        Raises
        ------
        NonFiniteLoss
            One of them is NaN or infinite.
        """
        since = self.schedule.window_start(module.step)
        losses = module.window_losses(since)
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
        """Write one line, to ``metrics.jsonl``, W&B and the user's loggers; every rank must call.

        Parameters
        ----------
        split : ``train``, ``test`` or ``test_all``
        weights : ``raw`` or ``ema``
        loss : mean cross-entropy, nats
        accuracy : share of jets classified right; None where it was not taken
        """
        self.constituents = module.count_constituents()
        if not ranks.is_first():
            return
        jets = module.step * module.phase.batch_size
        line = MetricsLine(
            phase=self.outputs.phase,
            step=module.step,
            jets=jets,
            constituents=self.constituents,
            flops=flops_6n(module.n_params, MEAN_CONSTITUENTS * jets),
            split=split,
            weights=weights,
            loss=loss,
            accuracy=accuracy,
            lr=module.rate(module.step - 1),
            seconds=self.seconds,
        )
        self.outputs.write(line)
