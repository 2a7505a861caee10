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
from jetscale.model.kernels.gpu.buffers import Tables
from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState, table_row, with_own_memory
from jetscale.model.kernels.gpu.step import DeviceEvaluation, DeviceStep
from jetscale.model.transformer import SetTransformer
from jetscale.training.captured.capacity import ESTIMATED_FROM, capacities
from jetscale.training.captured.cuts import chunks, jets_of_a_chunk
from jetscale.training.captured.evaluation import DeviceEvaluator
from jetscale.training.captured.feed import FedChunk, Feed, tokens_of_batches
from jetscale.training.captured.graphs import GraphRunner, Work
from jetscale.training.captured.memory import ChunkMemory
from jetscale.training.evaluate import TestLoss
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.outputs import Schedule
from jetscale.training.settings import EmaSettings, PhaseSettings


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
        with Feed(data.stream, spans, device) as feed:
            yield {"train_dataloaders": feed, "val_dataloaders": []}  # none: else Lightning warns

    def on_fit_start(self) -> None:
        """Move weights and optimiser into static memory, and make the step that works on it."""
        super().on_fit_start()
        batch_size, stream = self.phase.batch_size, self._data.stream
        mixed = str(self.trainer.precision) == "bf16-mixed"
        self._flat = FlatState(self.model, self.average, torch.bfloat16 if mixed else torch.float32)
        self._flat.adopt(self._torch_optimizer)
        n_jets = jets_of_a_chunk(batch_size, stream.max_constituents)
        self._memory = ChunkMemory(self._data.source, n_jets, self.device)
        self._tables = Tables.allocate(n_jets // batch_size, self.device)
        lengths_J = stream.lengths(0, ESTIMATED_FROM * batch_size)
        tables, first = self._tables, self._memory.buffers.first
        self._train = GraphRunner(
            capacities(lengths_J, batch_size, stream.max_constituents),
            self._training_work,
            [*self._flat.tensors(), tables.losses, tables.k, first],
        )

    def _training_work(self, capacity: int) -> Work:
        """What enqueues a step on a batch of at most so many tokens."""
        assert isinstance(self.model, SetTransformer)
        step = self._make_step(
            self.model, self.phase.batch_size, capacity,
            self._flat, self._memory.buffers, self._tables, self._hyper,
        )  # fmt: skip
        return step.train

    def transfer_batch_to_device(
        self, batch: FedChunk, device: torch.device, dataloader_idx: int
    ) -> FedChunk:
        """Nothing to do: a chunk comes on the device."""
        return batch

    def training_step(  # type: ignore[override]  # its batch is what `feeding` gives
        self, batch: FedChunk, batch_idx: int
    ) -> None:
        """Enqueue the steps of a chunk; nothing waits for the device."""
        batch_size, first = self.phase.batch_size, self.step
        assert batch.start == first * batch_size
        tokens_S = tokens_of_batches(batch.offsets_J1, batch_size)
        self._fill_tables(first, len(tokens_S))
        self._memory.load(batch.take(), batch_size)
        batch.release()
        for tokens in tokens_S:
            self._train(tokens)
        place = first % len(self.window_S)  # a chunk ends where a window does
        self.window_S[place : place + len(tokens_S)] = self._tables.losses[: len(tokens_S)]
        self._flat.advance(len(tokens_S))
        self._constituents_here += batch.n_constituents
        self._steps_here += len(tokens_S)

    def _fill_tables(self, first: int, n_steps: int) -> None:
        """What the optimiser needs in each step of a chunk, made in double precision.

        Parameters
        ----------
        first : number of the chunk's first step, counted from 0
        n_steps : of the chunk
        """
        rows = []
        for step in range(first, first + n_steps):
            weight = 0.0 if self.average is None else 1 / self.average.window_at(step + 1)
            rows.append(table_row(self.rate(step), step + 1, self._hyper, weight))
        rows_S4 = torch.tensor(rows, dtype=torch.float32)
        if self.device.type == "cuda":
            rows_S4 = rows_S4.pin_memory()  # else the copy would wait for the steps before
        self._tables.rows_K4[:n_steps].copy_(rows_S4, non_blocking=True)
        self._tables.k.zero_()

    def test_losses(self, test: EvalSet, batch_size: int) -> Iterator[tuple[str, TestLoss]]:
        """See `LeanClassifier.test_losses`; the test jets stay on the device."""
        if self._evaluate is None:
            assert isinstance(self.model, SetTransformer)
            self._evaluate = DeviceEvaluator(
                self.model, self._flat.evaluated, self._memory, batch_size, self._make_evaluation
            )
        self._flat.evaluate_raw()
        yield "raw", self._evaluate(test)
        if self.average is not None:
            self._flat.evaluate_average()
            yield "ema", self._evaluate(test)

    def state(self) -> dict[str, Any]:
        """See `LeanClassifier.state`; the same as that of a run which goes step by step."""
        for group in self._torch_optimizer.param_groups:
            group["lr"] = self.rate(self.step - 1)
        state: dict[str, Any] = with_own_memory(super().state())
        return state
