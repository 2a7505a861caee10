"""`LeanClassifier` with its steps as CUDA graphs, a chunk of them in one Lightning step.

Shapes: S steps of a chunk, J its jets, B jets of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from jetscale.jets.datamodule import JetDataModule
from jetscale.jets.evaluation import EvalSet
from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState, copied_to_host, table_row
from jetscale.model.kernels.gpu.step import DeviceEvaluation, DeviceStep
from jetscale.model.transformer import SetTransformer
from jetscale.training.captured.evaluation import DeviceEvaluator
from jetscale.training.captured.feed import FedChunk, Feed
from jetscale.training.captured.plan import chunks
from jetscale.training.captured.steps import DeviceSteps, TableRow
from jetscale.training.evaluate import TestLoss
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.outputs import Schedule
from jetscale.training.phase_settings import PhaseSettings
from jetscale.training.settings import EmaSettings


class CapturedClassifier(LeanClassifier):
    """One phase of one of our runs, on static memory.

    Weights, AdamW's state and the average are views of flat memory, so that they read and are saved as those
    of `LeanClassifier`; a checkpoint of either goes on in the other.

    Parameters
    ----------
    model, phase, ema, window : as `LeanClassifier`
    data : the training jets, set up
    schedule : the steps that write, at which chunks end
    make_step, make_evaluation : what makes the step and the forward pass; for tests
    """

    runs_ahead = True

    def __init__(
        self,
        model: SetTransformer,
        phase: PhaseSettings,
        ema: EmaSettings,
        window: int,
        data: JetDataModule,
        schedule: Schedule,
        make_step: Callable[..., DeviceStep] = DeviceStep,
        make_evaluation: Callable[..., DeviceEvaluation] = DeviceEvaluation,
    ) -> None:
        super().__init__(model, phase, ema, window)
        self._data = data
        self._schedule = schedule
        self._make_step, self._make_evaluation = make_step, make_evaluation
        self._steps: DeviceSteps | None = None
        self._evaluate: DeviceEvaluator | None = None
        self._hyper = AdamWSettings(
            beta1=phase.beta1, beta2=phase.beta2, weight_decay=phase.weight_decay, clip=phase.clip
        )

    @contextmanager
    def feeding(self, data: JetDataModule, device: torch.device) -> Iterator[dict[str, Any]]:
        """See `LeanClassifier.feeding`; the batches are chunks, and a thread gathers them."""
        batch_size = self.phase.batch_size
        cuts = chunks(self._schedule, self.start_step, batch_size, data.source.max_constituents)
        spans = [(cut.start * batch_size, cut.stop * batch_size) for cut in cuts]
        try:
            with Feed(data.stream, spans, device) as feed:
                yield {"train_dataloaders": feed, "val_dataloaders": []}  # none: else Lightning warns
        finally:
            # Free the memory now: the trainer and this module refer to each other, so they stay until Python
            # collects garbage, and another phase may begin before. Weights and average are views of what they
            # need and keep it.
            self._steps = self._evaluate = None

    def on_fit_start(self) -> None:
        """Move weights and optimiser into static memory, and make what works on it."""
        super().on_fit_start()
        assert isinstance(self.model, SetTransformer)
        mixed = str(self.trainer.precision) == "bf16-mixed"
        state = FlatState(self.model, self.average, torch.bfloat16 if mixed else torch.float32)
        state.adopt(self._torch_optimizer)
        self._steps = DeviceSteps(
            self.model, self.phase.batch_size, state, self._hyper, self._data, self._make_step
        )

    def transfer_batch_to_device(
        self, batch: FedChunk, device: torch.device, dataloader_idx: int
    ) -> FedChunk:
        """Nothing to do: a chunk comes on the device."""
        return batch

    def training_step(  # type: ignore[override]  # its batch is what `feeding` gives
        self, batch: FedChunk, batch_idx: int
    ) -> None:
        """Enqueue the steps of a chunk; nothing waits for the device."""
        assert self._steps is not None
        steps = range(batch.start // self.phase.batch_size, batch.stop // self.phase.batch_size)
        assert steps.start == self.step
        losses_S = self._steps(batch, [self._row(step) for step in steps])
        place = self.step % len(self.window_S)  # a chunk ends where a window does
        self.window_S[place : place + len(steps)] = losses_S
        self._steps.state.advance(len(steps))
        self._constituents_here += batch.n_constituents
        self._steps_here += len(steps)

    def _row(self, step: int) -> TableRow:
        """What the optimiser needs in step number `step`, counted from 0, in double precision."""
        weight = 0.0 if self.average is None else 1 / self.average.window_at(step + 1)
        return table_row(self.rate(step), step + 1, self._hyper, weight)

    def test_losses(self, test: EvalSet, batch_size: int) -> Iterator[tuple[str, TestLoss]]:
        """See `LeanClassifier.test_losses`; the test jets stay on the device."""
        assert self._steps is not None
        state = self._steps.state
        if self._evaluate is None:
            assert isinstance(self.model, SetTransformer)
            self._evaluate = DeviceEvaluator(
                self.model, state.evaluated, self._steps.memory, batch_size, self._make_evaluation
            )
        state.evaluate_raw()
        yield "raw", self._evaluate(test)
        if self.average is not None:
            state.evaluate_average()
            yield "ema", self._evaluate(test)

    def state(self) -> dict[str, Any]:
        """See `LeanClassifier.state`; the same as that of a run which goes step by step."""
        for group in self._torch_optimizer.param_groups:
            group["lr"] = self.rate(self.step - 1)
        state: dict[str, Any] = copied_to_host(super().state())
        return state
