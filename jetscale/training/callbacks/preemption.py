"""Leaves a run that was asked to stop, with a checkpoint of the step at hand."""

from __future__ import annotations

from typing import Any

import lightning as L

from jetscale.training import ranks
from jetscale.training.callbacks.checkpointer import Checkpointer
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.outputs import Outputs, Schedule
from jetscale.training.preemption import NOTICE, Preempted


class Preemption(L.Callback):
    """Looks after each step whether the process was asked to stop (`jetscale.training.preemption`).

    Parameters
    ----------
    outputs, schedule : of the phase
    checkpointer : writes the last checkpoint
    """

    def __init__(self, outputs: Outputs, schedule: Schedule, checkpointer: Checkpointer) -> None:
        self._outputs = outputs
        self._schedule = schedule
        self._checkpointer = checkpointer

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for the request to stop, in place of the handlers that Lightning has just set."""
        NOTICE.listen()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave after this step where that was asked.

        Raises
        ------
        Preempted
        """
        assert isinstance(pl_module, LeanClassifier)
        step = pl_module.step
        if not self._stops(step):
            return
        if not self._schedule.saves(step):  # else it has just been written
            self._checkpointer.save(pl_module)
        text = f"{self._outputs.phase}: asked to stop, checkpoint of step {step} written"
        raise Preempted(text, NOTICE.taken())

    def _stops(self, step: int) -> bool:
        """Whether to leave after this step; several ranks ask each other, at metrics lines alone."""
        if step == self._schedule.steps:
            return False  # finished anyway
        if ranks.world_size() == 1:
            return NOTICE.given
        return self._schedule.writes_line(step) and ranks.any_rank(NOTICE.given)
