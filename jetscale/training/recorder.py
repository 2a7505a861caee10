"""The one callback that looks at a running phase: metrics lines, test losses, checkpoints.

It acts only on steps that write something; every other step costs one comparison, and no device is waited
for.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from jetscale.common.files import remove_leftovers
from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.jets.evaluation import EvalSet
from jetscale.model.cost import flops_6n
from jetscale.runs.blocks import BlockLog, BlocksError, disagreement
from jetscale.runs.layout import N_BLOCKS
from jetscale.runs.metrics import MetricsError, MetricsLine, MetricsLog
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training.checkpoint import Checkpoints
from jetscale.training.evaluate import TestLoss, evaluate
from jetscale.training.module import JetClassifier, NonFiniteLoss
from jetscale.training.preemption import NOTICE, Preempted
from jetscale.training.ranks import any_rank

_WAY_OUT = (
    "put back an undamaged copy of it, or remove the folder it is in to make the run anew, to the same "
    "numbers"
)


@dataclass
class Outputs:
    """Where one phase writes; the same on every rank, used on the first alone."""

    phase: str
    metrics: MetricsLog
    blocks: BlockLog
    checkpoints: Checkpoints
    wandb: WandbRun

    def rewind(self, step: int, evaluations: frozenset[int], mark: dict[str, Any] | None = None) -> None:
        """Drop what was written beyond `step`: a run that goes on from there writes it again, the same.

        Parameters
        ----------
        evaluations : steps at which the test loss is taken
        mark : what the checkpoint of `step` remembers of the lines (`MetricsLog.mark`); None where there is
            no checkpoint, or one of an earlier version

        Raises
        ------
        MetricsError, BlocksError
            One of the `evaluations` up to `step` is missing, which no start would make again; or what is
            there is not what the checkpoint was written with.
        """
        for directory in (self.metrics.path.parent, self.checkpoints.directory):
            remove_leftovers(directory)
        self._require_whole(step, evaluations, mark)
        self.metrics.keep_until(self.phase, step)
        self.blocks.keep_until(self.phase, step)

    def _require_whole(self, step: int, evaluations: frozenset[int], mark: dict[str, Any] | None) -> None:
        lines = self.metrics.until(self.phase, step)
        sums = {key: found for key, found in self.blocks.sums(self.phase).items() if key[0] <= step}
        evaluated = {(line["step"], line["weights"]) for line in lines if line["split"] == "test"}
        due = {(evaluation, "raw") for evaluation in evaluations if evaluation <= step}
        due |= evaluated | set(sums)
        for path, found, error in (
            (self.metrics.path, evaluated, MetricsError),
            (self.blocks.path, set(sums), BlocksError),
        ):
            if missing := due - found:
                raise error(
                    f"{path} lacks the evaluation after step {min(missing)[0]}, and the checkpoint is of "
                    f"step {step}; {_WAY_OUT}"
                )
        if mark is not None and self.metrics.mark(self.phase, step) != mark:
            raise MetricsError(
                f"{self.metrics.path} is damaged: its lines up to step {step} are not those that the "
                f"checkpoint of that step was written with; {_WAY_OUT}"
            )
        if wrong := disagreement(lines, sums):
            raise BlocksError(f"{self.blocks.path} is damaged: it {wrong}; {_WAY_OUT}")


@dataclass
class Schedule:
    """The steps that write."""

    steps: int
    log_every: int
    checkpoint_every: int
    evaluations: frozenset[int]

    def writes_line(self, step: int) -> bool:
        """Whether `step` ends a window of the training loss."""
        return step % self.log_every == 0 or step == self.steps

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows `step`; the last step needs none, the phase's weights follow it."""
        return step % self.checkpoint_every == 0 and step < self.steps

    def window_start(self, step: int) -> int:
        """First step of the window that `step` (counted from 1) is in."""
        return (step - 1) // self.log_every * self.log_every


@dataclass
class Recorder(L.Callback):
    """Writes what `schedule` asks for.

    Attributes
    ----------
    outputs, schedule : where and when
    test : test jets of the curve, or None where a phase has no test loss (pretraining)
    test_all : further test jets for one evaluation at the end
    eval_batch_size : jets a forward pass
    stamp : written into every checkpoint and demanded back on resume (the data's fingerprint)
    seconds_before : wall time of earlier starts
    """

    outputs: Outputs
    schedule: Schedule
    test: EvalSet | None
    test_all: EvalSet | None
    eval_batch_size: int
    stamp: str
    seconds_before: float = 0.0
    train_loss: float = float("nan")
    constituents: int = 0
    last: dict[str, TestLoss] = field(default_factory=dict)
    _started: float = 0.0

    @property
    def seconds(self) -> float:
        """Wall time of the phase so far, over all its starts."""
        return self.seconds_before + time.monotonic() - self._started

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and listen for the request to stop."""
        self._started = time.monotonic()
        NOTICE.listen()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write what is due after this step."""
        assert isinstance(pl_module, JetClassifier)
        step = pl_module.step
        line, test, save = (
            self.schedule.writes_line(step),
            step in self.schedule.evaluations,
            self.schedule.saves(step),
        )
        stop = self._stops(trainer, step, line)
        if not (line or test or save or stop):
            return
        since = self.schedule.window_start(step)
        losses = pl_module.window_losses(since)
        self._require_finite(losses, since, pl_module.phase.batch_size)
        if line:
            self.train_loss = float(losses.mean())
            self._write(trainer, pl_module, "train", "raw", self.train_loss, None)
        if test and self.test is not None:
            self.run_test(trainer, pl_module, self.test, "test")
        if save or stop:
            self.save(trainer, pl_module)
        if stop:
            text = f"{self.outputs.phase}: asked to stop, checkpoint of step {step} written"
            raise Preempted(text, NOTICE.taken())
        if step == self.schedule.steps and self.test_all is not None:
            self.run_test(trainer, pl_module, self.test_all, "test_all")

    def _stops(self, trainer: L.Trainer, step: int, line: bool) -> bool:
        """Whether to leave after this step; several ranks ask each other, at metrics lines alone."""
        if step == self.schedule.steps:
            return False  # finished anyway
        if trainer.world_size == 1:
            return NOTICE.given
        return line and any_rank(NOTICE.given)

    def run_test(self, trainer: L.Trainer, module: JetClassifier, test: EvalSet, split: str) -> None:
        """Evaluate raw and averaged weights.

        Block losses are kept for the curve's fixed jets (`test`) alone.
        """
        for weights, context in module.evaluated_weights().items():
            batches = test.batches(self.eval_batch_size, trainer.global_rank, trainer.world_size)
            with context:
                result = evaluate(module.model, batches, module.device, str(trainer.precision))
            if not math.isfinite(result.loss):
                blocks = np.flatnonzero(~np.isfinite(result.loss_sum))[:5].tolist()
                raise NonFiniteLoss(
                    f"{self.outputs.phase}: the {split} loss ({weights} weights) after step {module.step} is "
                    f"{result.loss}, from test jets in blocks {blocks} (position modulo {N_BLOCKS}); "
                    f"last good checkpoint: {self.outputs.checkpoints.newest() or 'none yet'}. Where the "
                    "training loss is finite it is the data: `python -m jetscale.prepare check=true` names a "
                    "damaged store."
                )
            self._write(trainer, module, split, weights, result.loss, result.accuracy)
            self.last[weights] = result
            if trainer.is_global_zero and split == "test":
                self.outputs.blocks.append(
                    self.outputs.phase, module.step, weights, result.jets, result.loss_sum
                )

    def save(self, trainer: L.Trainer, module: JetClassifier) -> None:
        """Checkpoint now."""
        state = {**module.state(), "stamp": self.stamp, "seconds": self.seconds}
        if trainer.is_global_zero:
            self.outputs.metrics.sync()
            mark = self.outputs.metrics.mark(self.outputs.phase, module.step)
            self.outputs.checkpoints.save({**state, "metrics": mark}, module.step)

    def _require_finite(self, losses: Tensor, since: int, batch_size: int) -> None:
        bad = (~losses.isfinite()).nonzero()
        if len(bad) == 0:
            return
        step = since + int(bad[0])
        raise NonFiniteLoss(
            f"{self.outputs.phase}: the loss of step {step + 1} is {float(losses[bad[0]])}, on the jets at "
            f"positions {step * batch_size} to {(step + 1) * batch_size - 1} of the stream; "
            f"last good checkpoint: {self.outputs.checkpoints.newest() or 'none yet'}. "
            "Lower the learning rate, lengthen the warm-up or set a gradient clip; where it is the data, "
            "`python -m jetscale.prepare check=true` names a damaged store."
        )

    def _write(
        self,
        trainer: L.Trainer,
        module: JetClassifier,
        split: str,
        weights: str,
        loss: float,
        accuracy: float | None,
    ) -> None:
        self.constituents = module.count_constituents()
        if not trainer.is_global_zero:
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
        self.outputs.metrics.append(line)
        self.outputs.wandb.log(line)
