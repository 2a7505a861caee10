"""Takes the test loss."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import numpy as np

from jetscale.jets.evaluation import EvalSet
from jetscale.runs.layout import N_BLOCKS
from jetscale.training import ranks
from jetscale.training.callbacks.metrics_writer import MetricsWriter
from jetscale.training.evaluate import TestLoss
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.module import NonFiniteLoss


class TestEvaluator(L.Callback):
    """Evaluates raw and averaged weights on fixed test jets, at the steps that the schedule names.

    Parameters
    ----------
    writer : writes the lines
    test : test jets of the curve; None where a phase has no test loss (pretraining)
    test_all : further test jets for one evaluation after the last step; None for none
    batch_size : jets in one forward pass

    Attributes
    ----------
    last : the newest evaluation by kind of weights
    """

    __test__ = False  # not a pytest class

    def __init__(
        self, writer: MetricsWriter, test: EvalSet | None, test_all: EvalSet | None, batch_size: int
    ) -> None:
        self.last: dict[str, TestLoss] = {}
        self._writer = writer
        self._test = test
        self._test_all = test_all
        self._batch_size = batch_size

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate where it is due after this step."""
        assert isinstance(pl_module, LeanClassifier)
        schedule = self._writer.schedule
        if self._test is None or pl_module.step not in schedule.evaluations:
            return
        self._writer.require_finite_losses(pl_module)
        self._evaluate(pl_module, self._test, "test")
        if self._test_all is not None and pl_module.step == schedule.steps:
            self._evaluate(pl_module, self._test_all, "test_all")

    def _evaluate(self, module: LeanClassifier, test: EvalSet, split: str) -> None:
        """Evaluate on one set; block losses are kept for the curve's fixed jets (``test``) alone."""
        for weights, result in module.test_losses(test, self._batch_size):
            self._require_finite(result, module.step, split, weights)
            self._writer.write(module, split, weights, result.loss, result.accuracy)
            self.last[weights] = result
            if ranks.is_first() and split == "test":
                outputs = self._writer.outputs
                outputs.blocks.append(outputs.phase, module.step, weights, result.jets, result.loss_sum)

    def _require_finite(self, result: TestLoss, step: int, split: str, weights: str) -> None:
        if math.isfinite(result.loss):
            return
        outputs = self._writer.outputs
        blocks = np.flatnonzero(~np.isfinite(result.loss_sum))[:5].tolist()
        raise NonFiniteLoss(
            f"{outputs.phase}: the {split} loss ({weights} weights) after step {step} is "
            f"{result.loss}, from test jets in blocks {blocks} (position modulo {N_BLOCKS}); "
            f"last good checkpoint: {outputs.checkpoints.newest() or 'none yet'}. Where the "
            "training loss is finite it is the data: `python -m jetscale.prepare check=true` names a "
            "damaged store."
        )
