"""Static memory of the step on a GPU: jets, tables of a chunk, and where each parameter and gradient lies.

A CUDA graph reads and writes the addresses that it was captured with, so all of this is allocated once. A
batch is the jets ``first`` to ``first + B - 1`` of the chunk that `JetBuffers` holds; no kernel is told more.

Shapes: C constituents and J jets of a chunk, B jets of a batch, S = constituents of the batch + B tokens (a
class token before the constituents of each jet), F features, K steps of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

TILE = 1_024
"""Every parameter starts at a multiple of this many numbers, so that a tile belongs to one parameter."""

RATE, CORRECTION1, ROOT_CORRECTION2, AVERAGE = range(4)
"""Columns of `Tables.rows_K4`."""


class HasParameters(Protocol):
    """A module, for `Layout`."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters and their names."""
        ...


class Transformer(HasParameters, Protocol):
    """What is read of a `jetscale.model.transformer.SetTransformer`, whose module imports `kernels`."""

    dim: int
    head_dim: int
    n_features: int
    n_pid: int
    blocks: nn.ModuleList


@dataclass(frozen=True)
class JetBuffers:
    """The jets of a chunk as the store holds them, on the device.

    Jet j has the constituents ``offsets[j]`` to ``offsets[j + 1] - 1``; it may have none (padding of a last
    batch). In a batch that starts at jet ``first``, jet b = 0 ... B - 1 has its class token in row
    ``offsets[first + b] - offsets[first] + b`` and its constituents in the rows after it.

    Attributes
    ----------
    x : (C, F) float16, inputs before standardisation
    pid : (C,) uint8 identities, zeros for a feature set without one
    offsets : (J + 1,) int32
    labels : (J,) int32 class indices
    side : (J,) int8, factor 1 or -1 of column `deta_column`
    first : (1,) int32, first jet of the present batch; the step itself moves it on
    centre, scale : (F,) float32; an input is (x - centre) scale, as in `jetscale.jets.stream`
    deta_column : the column that `side` multiplies, after standardisation; -1 for none
    """

    x: Tensor
    pid: Tensor
    offsets: Tensor
    labels: Tensor
    side: Tensor
    first: Tensor
    centre: Tensor
    scale: Tensor
    deta_column: int

    @classmethod
    def allocate(
        cls,
        constituents: int,
        jets: int,
        centre: Tensor,
        scale: Tensor,
        device: torch.device | str,
        deta_column: int = -1,
    ) -> JetBuffers:
        """Make room for a chunk; all jets are empty, all sides 1, the batch starts at jet 0.

        Parameters
        ----------
        constituents, jets : most constituents C and jets J of a chunk
        centre, scale : (F,) float32, of the feature set
        device : where to
        deta_column : see `JetBuffers`
        """
        return cls(
            x=torch.zeros(constituents, len(centre), dtype=torch.float16, device=device),
            pid=torch.zeros(constituents, dtype=torch.uint8, device=device),
            offsets=torch.zeros(jets + 1, dtype=torch.int32, device=device),
            labels=torch.zeros(jets, dtype=torch.int32, device=device),
            side=torch.ones(jets, dtype=torch.int8, device=device),
            first=torch.zeros(1, dtype=torch.int32, device=device),
            centre=centre.to(device, torch.float32),
            scale=scale.to(device, torch.float32),
            deta_column=deta_column,
        )

    @property
    def n_features(self) -> int:
        """Inputs of a constituent, F."""
        return self.x.shape[1]


@dataclass(frozen=True)
class Tables:
    """What a step of the chunk needs besides jets and weights, and what it leaves behind.

    Attributes
    ----------
    rows_K4 : (K, 4) float32, made in float64 on the host; columns `RATE`: learning rate, `CORRECTION1`:
        1 - beta1^t, `ROOT_CORRECTION2`: sqrt(1 - beta2^t), `AVERAGE`: weight 1 / window of the moving average
    losses : (K,) float32, mean loss of each step's batch, written by the step
    k : (1,) int32, the present step of the chunk; the step itself moves it on
    """

    rows_K4: Tensor
    losses: Tensor
    k: Tensor

    @classmethod
    def allocate(cls, steps: int, device: torch.device | str) -> Tables:
        """Make room for a chunk.

        Parameters
        ----------
        steps : most steps of a chunk, K
        device : where to
        """
        return cls(
            rows_K4=torch.zeros(steps, 4, device=device),
            losses=torch.zeros(steps, device=device),
            k=torch.zeros(1, dtype=torch.int32, device=device),
        )


@dataclass(frozen=True)
class Slot:
    """Where a parameter and the partial sums of its gradient lie.

    Attributes
    ----------
    name, shape, size : of the parameter
    offset : its first number in the flat weights (and in the optimiser's flat state), a multiple of `TILE`
    parts : partial sums of its gradient, P
    gradient : first number of the (P, size) partial sums in the flat gradients, a multiple of `TILE`
    """

    name: str
    shape: tuple[int, ...]
    size: int
    offset: int
    parts: int
    gradient: int


@dataclass(frozen=True)
class Layout:
    """Places of all parameters of a model; those in the flat weights do not depend on `parts`.

    Attributes
    ----------
    slots : by name, in the order of ``model.named_parameters()``
    length : numbers in the flat weights
    gradient_length : numbers in the flat gradients
    """

    slots: dict[str, Slot]
    length: int
    gradient_length: int

    @classmethod
    def of(cls, model: HasParameters, parts: Mapping[str, int] | None = None) -> Layout:
        """Lay out the parameters of a model.

        Parameters
        ----------
        model : all of its parameters are trained
        parts : partial sums of the gradient of each parameter by name; one for a name that is missing
        """
        slots: dict[str, Slot] = {}
        offset = gradient = 0
        for name, parameter in model.named_parameters():
            size, n_parts = parameter.numel(), (parts or {}).get(name, 1)
            slots[name] = Slot(name, tuple(parameter.shape), size, offset, n_parts, gradient)
            offset += _up(size)
            gradient += _up(size * n_parts)
        return cls(slots, offset, gradient)

    def gradients(self, device: torch.device | str) -> Gradients:
        """Allocate partial sums, all zero.

        Parameters
        ----------
        device : where to
        """
        return Gradients(self, torch.zeros(self.gradient_length, device=device))


@dataclass(frozen=True)
class Gradients:
    """Partial sums of all gradients; the optimiser adds each parameter's up, in order.

    Attributes
    ----------
    layout : where each parameter's lie
    flat : (layout.gradient_length,) float32
    """

    layout: Layout
    flat: Tensor

    def parts(self, name: str) -> Tensor:
        """Partial sums of one parameter's gradient, (P, size) float32, a view."""
        slot = self.layout.slots[name]
        return self.flat[slot.gradient : slot.gradient + slot.parts * slot.size].view(slot.parts, slot.size)

    def whole(self, name: str) -> Tensor:
        """The gradient of a parameter with one part, in the parameter's shape, a view."""
        slot = self.layout.slots[name]
        if slot.parts != 1:
            raise ValueError(f"the gradient of {name} is the sum of {slot.parts} parts")
        return self.parts(name).view(slot.shape)

    def summed(self, name: str) -> Tensor:
        """The gradient of a parameter, in its shape, a new tensor; to be asked for before the update."""
        return self.parts(name).sum(0).view(self.layout.slots[name].shape)


@dataclass(frozen=True)
class Weights:
    """One set of weights as a forward pass reads it.

    Attributes
    ----------
    layout : where each parameter lies
    params : (layout.length,) float32
    half : (layout.length,) the same in the dtype that products are computed in: bfloat16 on a card; where it
        is float32, `params` itself
    """

    layout: Layout
    params: Tensor
    half: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Dtype that products are computed in."""
        return self.half.dtype

    def single(self, name: str) -> Tensor:
        """A parameter in float32, in its shape, a view of `params`."""
        return self._view(self.params, name)

    def compute(self, name: str) -> Tensor:
        """A parameter in the dtype of products, in its shape, a view of `half`."""
        return self._view(self.half, name)

    def _view(self, flat: Tensor, name: str) -> Tensor:
        slot = self.layout.slots[name]
        return flat[slot.offset : slot.offset + slot.size].view(slot.shape)


def _up(size: int) -> int:
    return -(-size // TILE) * TILE
