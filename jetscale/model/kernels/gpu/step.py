"""One optimiser step, or one batch of an evaluation, of a set transformer on static memory.

Both only enqueue kernels: they allocate nothing, wait for nothing and read nothing on the host, so a CUDA
graph can capture them. Which batch they act on is `JetBuffers.first`, which they move on.

Shapes: as in `jetscale.model.kernels.gpu.buffers`.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

import copy

import torch
import triton
import triton.language as tl
from torch import Tensor

from jetscale.model.kernels.gpu.buffers import JetBuffers, Layout, Tables, Transformer, Weights
from jetscale.model.kernels.gpu.narrow import Narrow
from jetscale.model.kernels.gpu.optimiser import JETS_AT_ONCE, AdamWSettings, FlatState, Update
from jetscale.model.kernels.gpu.wide import Wide

WIDEST = 128
"""Largest width of `Narrow`: a tile of rows and a block's weights fit on one multiprocessor."""


class DeviceStep:
    """Forward, backward and update for batches of up to `capacity` tokens.

    Parameters
    ----------
    model : sizes are taken from it; weights are those of `state`
    batch_size : jets of a batch, B
    capacity : most tokens of a batch, constituents and a class token a jet
    state : weights and the optimiser's state; products are computed in the dtype of its `half`
    jets : the chunk
    tables : rates of the chunk's steps; losses are written there
    hyper : AdamW's constants, and the limit of the gradient's norm
    """

    def __init__(
        self,
        model: Transformer,
        batch_size: int,
        capacity: int,
        state: FlatState,
        jets: JetBuffers,
        tables: Tables,
        hyper: AdamWSettings,
    ) -> None:
        kind = _kind(model)
        self.gradients = Layout.of(model, kind.parts(model, batch_size)).gradients(jets.x.device)
        self._network = kind(model, batch_size, capacity, jets, state.weights.dtype, self.gradients)
        self._weights, self._k = state.weights, tables.k
        self._update = Update(state, self.gradients, hyper, tables, jets.first, self._network.losses_B)

    def up_to(self, capacity: int) -> DeviceStep:
        """The same step in the same memory: of the two, one may be at work at a time.

        Parameters
        ----------
        capacity : most tokens of a batch; at most that of this step
        """
        smaller = copy.copy(self)
        smaller._network = self._network.up_to(capacity)
        return smaller

    @torch.no_grad()
    def train(self) -> None:
        """Enqueue one step: forward, backward, update; moves `tables.k` on by 1 and `jets.first` by B."""
        self._network.train(self._weights, self._k)
        self._update()


class DeviceEvaluation:
    """Forward pass of batches of up to `capacity` tokens.

    Parameters
    ----------
    model, batch_size, capacity : see `DeviceStep`
    weights : what to evaluate
    jets : as many whole batches as there are; the last is filled up with jets of no constituents
    losses_J, correct_J : (J,) float32, takes the loss of each jet, and (J,) uint8, takes 1 where its largest
        logit is its class's; evaluations of several capacities may share them
    """

    def __init__(
        self,
        model: Transformer,
        batch_size: int,
        capacity: int,
        weights: Weights,
        jets: JetBuffers,
        losses_J: Tensor,
        correct_J: Tensor,
    ) -> None:
        self._network = _kind(model)(model, batch_size, capacity, jets, weights.dtype, None)
        self._weights, self._jets = weights, jets
        self._losses_J, self._correct_J = losses_J, correct_J

    def up_to(self, capacity: int) -> DeviceEvaluation:
        """The same forward pass in the same memory; parameters as for `DeviceStep.up_to`."""
        smaller = copy.copy(self)
        smaller._network = self._network.up_to(capacity)
        return smaller

    @torch.no_grad()
    def evaluate(self) -> None:
        """Enqueue the forward pass of one batch; moves `jets.first` on by B."""
        network = self._network
        network.evaluate(self._weights)
        n_jets = len(network.losses_B)
        _record[(1,)](
            network.losses_B, network.correct_B, self._losses_J, self._correct_J, self._jets.first,
            n_jets, BLOCK=min(JETS_AT_ONCE, triton.next_power_of_2(n_jets)),
        )  # fmt: skip


def _kind(model: Transformer) -> type[Narrow] | type[Wide]:
    return Narrow if model.dim <= WIDEST else Wide


@triton.jit
def _record(LOSS, CORRECT, LOSSES, ALL_CORRECT, FIRST, n_jets, BLOCK: tl.constexpr):
    """Copy the losses of a batch to where the jets are in the chunk, and go on to the next batch."""
    first = tl.load(FIRST)
    for low in range(0, n_jets, BLOCK):
        b = low + tl.arange(0, BLOCK)
        tl.store(LOSSES + first + b, tl.load(LOSS + b, mask=b < n_jets), mask=b < n_jets)
        tl.store(ALL_CORRECT + first + b, tl.load(CORRECT + b, mask=b < n_jets), mask=b < n_jets)
    tl.debug_barrier()  # every thread has read where the batch begins
    tl.store(FIRST, first + n_jets)
