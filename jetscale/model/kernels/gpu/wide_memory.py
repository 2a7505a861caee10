"""Memory of a wide network: what its products and the passes between them read and write.

Shapes: as in `buffers`; "rows" is the capacity, D width, M = 2 D, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from jetscale.model.kernels.gpu import HEAD_DIM
from jetscale.model.kernels.gpu.buffers import Transformer


@dataclass(frozen=True)
class Attention:
    """What the attention branch of a block reads and makes.

    x (rows, D) float32, normed (rows, D); projected (rows, 3 D), or (rows, 2 D) without queries in the last
    block; attended (rows, D) and lse (H, rows) float32, or (B, D) and (B, H) in the last block.
    """

    x: Tensor
    normed: Tensor
    projected: Tensor
    attended: Tensor
    lse: Tensor


@dataclass(frozen=True)
class FeedForward:
    """What the feed-forward branch of a block reads and makes, on all rows or on the B class tokens.

    x (rows, D) float32, normed (rows, D), gate_up (rows, 2 M), hidden (rows, M).
    """

    x: Tensor
    normed: Tensor
    gate_up: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Flow:
    """Gradients on their way back, used by one block after the other; rows as in `FeedForward`.

    x (rows, D) float32 of the residual stream and half (rows, D) the same in the products' dtype; normed and
    attended (rows, D), hidden (rows, M), gate_up (rows, 2 M), projected (rows, 3 D).
    """

    x: Tensor
    half: Tensor
    normed: Tensor
    attended: Tensor
    hidden: Tensor
    gate_up: Tensor
    projected: Tensor


@dataclass(frozen=True)
class Classes:
    """The class tokens in the last block, one row a jet: x (B, D) float32; normed, q and branch (B, D)."""

    ff: FeedForward
    x: Tensor
    normed: Tensor
    q: Tensor
    branch: Tensor


@dataclass(frozen=True)
class Backward:
    """What a backward pass needs besides: flow of all tokens, d_kv (rows, 2 D), and flow of the class tokens.

    d_kv is the gradient of the last block's keys and values.
    """

    flow: Flow
    d_kv: Tensor
    class_flow: Flow


Part = TypeVar("Part", Attention, FeedForward, Flow)


@dataclass(frozen=True)
class WideMemory:
    """Memory of one batch.

    Attributes
    ----------
    attention, feed_forward : of each block; the last has no feed-forward branch on all rows
    branch : (rows, D), what a block adds to the residual stream
    classes : of the class tokens in the last block
    backward : None where there is no backward pass
    """

    attention: list[Attention]
    feed_forward: list[FeedForward]
    branch: Tensor
    classes: Classes
    backward: Backward | None

    @classmethod
    def allocate(
        cls,
        model: Transformer,
        rows: int,
        n_jets: int,
        dtype: torch.dtype,
        device: torch.device,
        keep: bool,
    ) -> WideMemory:
        """Make all tensors, of zeros.

        Parameters
        ----------
        model : sizes are taken from it
        rows, n_jets : most tokens of a batch, and its jets B
        dtype : that products are computed in
        device : where to
        keep : for a backward pass too; else all blocks share their memory
        """
        width, n_heads = model.dim, model.dim // HEAD_DIM
        single, half = (partial(torch.zeros, dtype=one, device=device) for one in (torch.float32, dtype))

        def feed_forward(x: Tensor, rows: int) -> FeedForward:
            return FeedForward(x, half(rows, width), half(rows, 4 * width), half(rows, 2 * width))

        def flow(rows: int, projections: int) -> Flow:
            columns = (1, 1, 1, 2, 4, projections)
            return Flow(single(rows, width), *(half(rows, n * width) for n in columns))

        inner = len(model.blocks) - 1
        if keep:
            attentions = [
                Attention(
                    single(rows, width), half(rows, width), half(rows, 3 * width), half(rows, width),
                    single(n_heads, rows),
                )
                for _ in range(inner)
            ]  # fmt: skip
            feed_forwards = [feed_forward(single(rows, width), rows) for _ in range(inner)]
            x, normed, kv = single(rows, width), half(rows, width), half(rows, 2 * width)
        else:
            # nothing is needed once the next has been made of it, so two take turns
            ff = feed_forward(single(rows, width), rows)
            x, normed, kv = ff.x, ff.normed, _start(ff.gate_up, 2 * width)
            projected, attended = _start(ff.gate_up, 3 * width), _start(ff.hidden, width)
            attentions = [Attention(x, normed, projected, attended, single(n_heads, rows))] * inner
            feed_forwards = [ff] * inner
        attentions.append(Attention(x, normed, kv, half(n_jets, width), single(n_jets, n_heads)))
        normed_q_branch = (half(n_jets, width) for _ in range(3))
        return cls(
            attention=attentions,
            feed_forward=feed_forwards,
            branch=half(rows, width),
            classes=Classes(
                feed_forward(single(n_jets, width), n_jets), single(n_jets, width), *normed_q_branch
            ),
            backward=Backward(flow(rows, 3), half(rows, 2 * width), flow(n_jets, 1)) if keep else None,
        )

    def up_to(self, rows: int) -> WideMemory:
        """The first rows of the same memory.

        Parameters
        ----------
        rows : at most those that there are, at least as many as jets
        """
        backward = self.backward
        if backward is not None:
            backward = replace(backward, flow=_first(rows, backward.flow), d_kv=backward.d_kv[:rows])
        return replace(
            self,
            attention=[_first(rows, part) for part in self.attention],
            feed_forward=[_first(rows, part) for part in self.feed_forward],
            branch=self.branch[:rows],
            backward=backward,
        )


def _start(tensor: Tensor, columns: int) -> Tensor:
    """As many rows of fewer columns, in the same memory."""
    rows = len(tensor)
    return tensor.view(-1)[: rows * columns].view(rows, columns)


def _first(rows: int, part: Part) -> Part:
    """The first rows of all tensors; those with one row a jet have fewer, and stay whole."""
    cut = {}
    for field in fields(part):
        tensor: Tensor = getattr(part, field.name)
        cut[field.name] = tensor[:, :rows] if field.name == "lse" else tensor[:rows]
    return replace(part, **cut)
