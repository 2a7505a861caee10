"""The test loss by the graphs of the training step, on jets that stay on the device.

Shapes: J jets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from jetscale.jets.chunks import RawChunk
from jetscale.jets.evaluation import EvalSet
from jetscale.model.kernels.gpu.buffers import Weights
from jetscale.model.kernels.gpu.step import DeviceEvaluation
from jetscale.model.transformer import SetTransformer
from jetscale.runs.layout import N_BLOCKS
from jetscale.training.captured.feed import Feed, tokens_of_batches
from jetscale.training.captured.graphs import GraphRunner, Work
from jetscale.training.captured.limits import most_jets
from jetscale.training.captured.memory import ChunkMemory
from jetscale.training.captured.plan import ESTIMATED_FROM, capacities
from jetscale.training.evaluate import TestLoss

KEPT_JETS = 1 << 17
"""Largest test set that stays on the device, 90 MB; a larger one is read from the store again each time."""

TestPart = tuple[RawChunk, npt.NDArray[np.int64]]
"""Jets on the device, and the first constituent of each, then T, on the host."""


class DeviceEvaluator:
    """Evaluates one set of weights, in the memory of the training's chunks.

    Parameters
    ----------
    model : sizes are taken from it
    weights : what is evaluated, as they are when it is called
    memory : of the present chunk, which the training fills anew after an evaluation
    batch_size : jets of a batch; fewer where `memory` has no room for them, or the kernels cannot count them
    make : what makes the forward pass; for tests
    """

    def __init__(
        self,
        model: SetTransformer,
        weights: Weights,
        memory: ChunkMemory,
        batch_size: int,
        make: Callable[..., DeviceEvaluation],
    ) -> None:
        device = memory.buffers.x.device
        self._model, self._weights, self._memory = model, weights, memory
        self._batch_size = min(batch_size, memory.n_jets, most_jets(model, memory.max_constituents))
        self._make = make
        self._loss_J = torch.zeros(memory.n_jets, device=device)
        self._correct_J = torch.zeros(memory.n_jets, dtype=torch.uint8, device=device)
        self._run: GraphRunner | None = None
        self._kept: dict[str, list[TestPart]] = {}

    def __call__(self, test: EvalSet) -> TestLoss:
        """Evaluate on a set of jets; the same as `jetscale.training.evaluate.evaluate`.

        Parameters
        ----------
        test : made of the same inputs as the jets of the training
        """
        device = self._memory.buffers.x.device
        run = self._run = self._run or self._runner(test)
        loss_J = torch.empty(test.n_jets, device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        for chunk, offsets_J1 in self._parts(test):
            self._memory.load(chunk, self._batch_size)
            for tokens in tokens_of_batches(offsets_J1, self._batch_size):
                run(tokens)
            loss_J[chunk.start : chunk.start + chunk.n_jets] = self._loss_J[: chunk.n_jets]
            correct += self._correct_J[: chunk.n_jets].sum()
        block_J = np.arange(test.n_jets) % N_BLOCKS
        jets = np.bincount(block_J, minlength=N_BLOCKS)
        loss_sum = np.zeros(N_BLOCKS)
        loss_sum += np.bincount(block_J, weights=loss_J.double().cpu().numpy(), minlength=N_BLOCKS)
        return TestLoss(jets, loss_sum, int(correct))

    def _runner(self, test: EvalSet) -> GraphRunner:
        """Graphs for the first set that is evaluated, and with it for all: they are of one dataset."""
        model, weights, buffers, size = self._model, self._weights, self._memory.buffers, self._batch_size
        evaluation, of_jets = self._make, (self._loss_J, self._correct_J)
        lengths_J = test.stream.lengths(0, min(test.n_jets, ESTIMATED_FROM * size))

        def allocate(largest: int) -> Callable[[int], Work]:  # without `self`, which holds the runner
            passes = evaluation(model, size, largest, weights, buffers, *of_jets)
            return lambda capacity: passes.up_to(capacity).evaluate

        limits = capacities(lengths_J, size, test.stream.max_constituents)
        return GraphRunner(limits, allocate, [buffers.first, *of_jets])

    def _parts(self, test: EvalSet) -> Iterator[TestPart]:
        if test.fingerprint in self._kept:
            yield from self._kept[test.fingerprint]
            return
        parts: list[TestPart] = []
        most = self._memory.n_jets // self._batch_size * self._batch_size
        edges = [*range(0, test.n_jets, most), test.n_jets]
        device = self._memory.buffers.x.device
        with Feed(test.stream, list(pairwise(edges)), device) as feed:
            for fed in feed:
                with fed.jets() as chunk:
                    if test.n_jets <= KEPT_JETS:
                        parts.append((chunk.copied(device), fed.offsets_J1))
                    yield chunk, fed.offsets_J1
                fed.release()
        if parts:
            self._kept[test.fingerprint] = parts
