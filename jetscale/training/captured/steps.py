"""The optimiser steps of a chunk, in static memory.

Shapes: S steps of a chunk, J its jets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from jetscale.jets.datamodule import JetDataModule
from jetscale.model.kernels.gpu.buffers import Tables
from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState
from jetscale.model.kernels.gpu.step import DeviceStep
from jetscale.model.transformer import SetTransformer
from jetscale.training.captured.feed import FedChunk, tokens_of_batches
from jetscale.training.captured.graphs import GraphRunner, Work
from jetscale.training.captured.memory import ChunkMemory
from jetscale.training.captured.plan import ESTIMATED_FROM, capacities, jets_of_a_chunk

TableRow = tuple[float, float, float, float]
"""What the optimiser needs in a step, see `jetscale.model.kernels.gpu.optimiser.table_row`."""


class DeviceSteps:
    """Takes the steps of one chunk after another; nothing waits for the device.

    Parameters
    ----------
    model : sizes are taken from it
    batch_size : jets of a step
    state : weights and the optimiser's state, which the steps change
    hyper : of the optimiser
    data : the training jets, set up; none is being read meanwhile
    make : what makes the step; for tests

    Attributes
    ----------
    memory : of the present chunk
    state : as given
    """

    def __init__(
        self,
        model: SetTransformer,
        batch_size: int,
        state: FlatState,
        hyper: AdamWSettings,
        data: JetDataModule,
        make: Callable[..., DeviceStep],
    ) -> None:
        stream, device = data.stream, state.weights.params.device
        self.state = state
        n_jets = jets_of_a_chunk(batch_size, stream.max_constituents)
        self.memory = memory = ChunkMemory(data.source, n_jets, device)
        self._tables = tables = Tables.allocate(n_jets // batch_size, device)
        self._batch_size = batch_size

        def allocate(largest: int) -> Callable[[int], Work]:
            step = make(model, batch_size, largest, state, memory.buffers, tables, hyper)
            return lambda capacity: step.up_to(capacity).train

        lengths_J = stream.lengths(0, ESTIMATED_FROM * batch_size)
        self._run = GraphRunner(
            capacities(lengths_J, batch_size, stream.max_constituents),
            allocate,
            [*state.tensors(), tables.losses, tables.k, memory.buffers.first],
        )

    def __call__(self, chunk: FedChunk, rows: Sequence[TableRow]) -> Tensor:
        """Enqueue the steps of a chunk, and release it.

        Parameters
        ----------
        chunk : its jets
        rows : one for each step

        Returns
        -------
        (S,) float32 on the device, mean loss of each step; overwritten by the next chunk.
        """
        tables, n_steps = self._tables, len(rows)
        rows_S4 = torch.tensor(rows, dtype=torch.float32)
        if tables.rows_K4.device.type == "cuda":
            rows_S4 = rows_S4.pin_memory()  # else the copy would wait for the steps before
        tables.rows_K4[:n_steps].copy_(rows_S4, non_blocking=True)
        tables.k.zero_()
        with chunk.jets() as jets:
            self.memory.load(jets, self._batch_size)
        for tokens in tokens_of_batches(chunk.offsets_J1, self._batch_size):
            self._run(tokens)
        chunk.release()
        return tables.losses[:n_steps]
