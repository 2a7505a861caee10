"""The captured step alone, on given jets, without loader and loop: what plans and benchmarks measure.

Shapes: B jets of a batch, S steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from jetscale.jets.batch import JetBatch
from jetscale.model.kernels.gpu.buffers import JetBuffers, Tables
from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState, table_row
from jetscale.model.kernels.gpu.step import DeviceStep
from jetscale.model.transformer import SetTransformer
from jetscale.training.captured.graphs import ready
from jetscale.training.captured.plan import capacities

RATE = 1e-4


def steps_alone(model: SetTransformer, jets: JetBatch, n_steps: int) -> Callable[[], None]:
    """Make what enqueues a chunk of training steps, all on the same jets.

    Parameters
    ----------
    model : on the device where the steps are to be taken; its weights change, and move into flat memory
    jets : B of them, with the features and identities of the model, on the CPU
    n_steps : S, steps of a chunk

    Returns
    -------
    A function that enqueues S steps and does not wait for them.
    """
    device = model.class_token.device
    chunk = chunk_of(jets, n_steps, device)
    tables, state, hyper = Tables.allocate(n_steps, device), FlatState(model), AdamWSettings()
    rows = [table_row(RATE, step + 1, hyper, 0.0) for step in range(n_steps)]
    tables.rows_K4.copy_(torch.tensor(rows, dtype=torch.float32))
    lengths_B = jets.lengths_B.numpy()
    capacity = capacities(lengths_B, jets.n_jets, int(lengths_B.max())).of(int(lengths_B.sum()) + jets.n_jets)
    step = DeviceStep(model, jets.n_jets, capacity, state, chunk, tables, hyper)
    replay = ready(step.train, [*state.tensors(), tables.losses, tables.k, chunk.first])

    def enqueue() -> None:
        chunk.first.zero_()
        tables.k.zero_()
        for _ in range(n_steps):
            replay()

    return enqueue


def chunk_of(jets: JetBatch, times: int, device: torch.device) -> JetBuffers:
    """The jets of a batch several times over, as the store would hold them; inputs are not standardised.

    Parameters
    ----------
    jets : B of them
    times : how often
    device : where to
    """
    lengths_J = jets.lengths_B.repeat(times)
    n_features = jets.x_TF.shape[1]
    made = JetBuffers.allocate(
        int(lengths_J.sum()), len(lengths_J), torch.zeros(n_features), torch.ones(n_features), device,
    )  # fmt: skip
    made.x.copy_(jets.x_TF.half().repeat(times, 1))
    if jets.pid_T is not None:
        made.pid.copy_(jets.pid_T.to(torch.uint8).repeat(times))
    made.offsets[1:].copy_(lengths_J.cumsum(0))
    made.labels.copy_(jets.labels_B.repeat(times))
    return made
