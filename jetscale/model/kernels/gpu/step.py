"""One optimiser step, or one batch of an evaluation, of a set transformer on static memory.

Shapes: as in `jetscale.model.kernels.gpu.buffers`.
"""

from __future__ import annotations

from jetscale.model.kernels.gpu.buffers import JetBuffers, Tables
from jetscale.model.transformer import SetTransformer


class DeviceStep:
    """Forward, backward and update of a `SetTransformer`, for batches of up to `capacity` tokens.

    `train` and `evaluate` only enqueue kernels: they allocate nothing, wait for nothing and read nothing on the
    host, so a CUDA graph can capture them. Which batch they act on is `jets.first`, which they move on.

    Parameters
    ----------
    model : sizes are taken from it; weights are those of `state`
    batch_size : jets of a batch, B
    capacity : most tokens of a batch, constituents and a class token a jet
    state : weights and the optimiser's state
    jets : the chunk
    tables : rates of the chunk's steps; losses are written there
    hyper : AdamW's constants, clip and whether there is an average

    Attributes
    ----------
    losses_J, correct_J : (J,) float32 loss and (J,) uint8 of each jet of the chunk, written by `evaluate`
    """

    def __init__(
        self,
        model: SetTransformer,
        batch_size: int,
        capacity: int,
        state: FlatState,
        jets: JetBuffers,
        tables: Tables,
        hyper: AdamWSettings,
    ) -> None:
        raise NotImplementedError

    def at_capacity(self, capacity: int) -> DeviceStep:
        """The same step on the same memory, for batches of fewer tokens: less work, another graph.

        Parameters
        ----------
        capacity : most tokens of a batch, at most this step's
        """
        raise NotImplementedError

    def train(self) -> None:
        """Enqueue one step: forward, backward, update; moves `tables.k` on by 1 and `jets.first` by B."""
        raise NotImplementedError

    def evaluate(self) -> None:
        """Enqueue a forward pass of one batch with `state.evaluated`; moves `jets.first` on by B."""
        raise NotImplementedError
