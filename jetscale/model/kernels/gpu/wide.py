"""Forward and backward pass of a wide set transformer on static memory: cuBLAS products, passes between them.

Backward passes are those of `jetscale.model.kernels.cpu.functions`, in the same order. Weight gradients are
products over all rows of the capacity: rows from S on are zero in one of their two factors (`normed` of every
norm, and the gradient of the residual stream) and finite in the other, since no row is ever written with
anything but results of finite rows.

Shapes: as in `buffers`; "rows" is the capacity, D width, M = 2 D, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jetscale.model.kernels.gpu import HEAD_DIM
from jetscale.model.kernels.gpu.attention import (
    attend,
    attend_backward,
    attend_class,
    attend_class_backward,
)
from jetscale.model.kernels.gpu.buffers import Gradients, JetBuffers, Transformer, Weights
from jetscale.model.kernels.gpu.embedding import EMBEDDING_PARTS, Embedding, embed, embed_backward
from jetscale.model.kernels.gpu.head import head_forward, head_parts, head_step
from jetscale.model.kernels.gpu.pointwise import (
    NORM_PARTS,
    Rows,
    add_norm,
    norm_backward,
    swiglu,
    swiglu_backward,
)

CLASS_NORM_PARTS = 16  # of the norm that acts on class tokens alone


@dataclass(frozen=True)
class _Attention:
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
class _FeedForward:
    """What the feed-forward branch of a block reads and makes, on all rows or on the B class tokens.

    x (rows, D) float32, normed (rows, D), gate_up (rows, 2 M), hidden (rows, M).
    """

    x: Tensor
    normed: Tensor
    gate_up: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class _Flow:
    """Gradients on their way back, used by one block after the other; rows as in `_FeedForward`.

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


class Wide:
    """Memory of one batch, and the launches that act on it.

    Parameters
    ----------
    model : sizes are taken from it
    batch_size : jets of a batch, B
    capacity : most tokens of a batch
    jets : the chunk
    dtype : that products are computed in
    gradients : where `train` leaves partial sums; None for `evaluate` alone, in less memory

    Attributes
    ----------
    losses_B, correct_B : (B,) float32 loss and (B,) uint8 of each jet of the last batch
    """

    def __init__(
        self,
        model: Transformer,
        batch_size: int,
        capacity: int,
        jets: JetBuffers,
        dtype: torch.dtype,
        gradients: Gradients | None,
    ) -> None:
        self._depth, self._width = len(model.blocks), model.dim
        self._jets, self._n_jets, self._dtype, self._gradients = jets, batch_size, dtype, gradients
        self._all = Rows(jets, batch_size, capacity)
        self._one_a_jet = Rows(jets, batch_size, batch_size)
        self.losses_B = self._float(batch_size)
        self.correct_B = torch.zeros(batch_size, dtype=torch.uint8, device=jets.x.device)
        self._allocate(capacity, batch_size, keep=gradients is not None)

    @staticmethod
    def parts(model: Transformer, batch_size: int) -> dict[str, int]:
        """Partial sums that `train` leaves of each parameter's gradient; one where a name is missing.

        Parameters
        ----------
        model, batch_size : see `Wide`
        """
        embedding = ("embed.weight", "embed.bias", "class_token", *(["pid.weight"] if model.n_pid else []))
        parts = dict.fromkeys(embedding, EMBEDDING_PARTS)
        for i in range(len(model.blocks)):
            parts[f"blocks.{i}.attention_norm.weight"] = NORM_PARTS
            parts[f"blocks.{i}.feedforward_norm.weight"] = NORM_PARTS
        parts[f"blocks.{len(model.blocks) - 1}.feedforward_norm.weight"] = CLASS_NORM_PARTS
        return parts | head_parts(batch_size)

    def train(self, weights: Weights, k: Tensor) -> None:
        """Enqueue forward and backward pass of one batch.

        Parameters
        ----------
        weights : what the batch is computed with
        k : (1,) int32 steps begun in the chunk, which goes up by 1
        """
        assert self._gradients is not None
        self._forward(weights)
        flow = self._class_flow
        head_step(
            self._class_ff.x, self._class_branch, weights, self._jets, self._n_jets, self._gradients,
            self.losses_B, self.correct_B, flow.x, flow.half, k,
        )  # fmt: skip
        self._backward(weights, self._gradients)

    def evaluate(self, weights: Weights) -> None:
        """Enqueue the forward pass of one batch.

        Parameters
        ----------
        weights : what the batch is computed with
        """
        self._forward(weights)
        head_forward(
            self._class_ff.x, self._class_branch, weights, self._jets, self._n_jets,
            self.losses_B, self.correct_B,
        )  # fmt: skip

    def _forward(self, weights: Weights) -> None:
        first, last = self._attention[0], self._depth - 1
        of_class = (self._class_x, self._class_normed)
        embed(
            self._jets, self._n_jets, _embedding(weights), weights.single("blocks.0.attention_norm.weight"),
            first.x, first.normed, of_class if last == 0 else None,
        )  # fmt: skip
        for i in range(last):
            memory, ff, after = self._attention[i], self._feed_forward[i], self._attention[i + 1]
            _linear(memory.normed, weights.compute(f"blocks.{i}.qkv.weight"), memory.projected)
            attend(self._jets, self._n_jets, memory.projected, memory.attended, memory.lse)
            self._branches(weights, i, self._all, memory.x, memory.attended, ff, self._branch)
            norm = weights.single(f"blocks.{i + 1}.attention_norm.weight")
            next_class = of_class if i + 1 == last else None
            add_norm(self._all, ff.x, self._branch, norm, after.x, after.normed, next_class)
        memory = self._attention[last]
        q_weight, kv_weight = self._split(weights.compute(f"blocks.{last}.qkv.weight"))
        _linear(memory.normed, kv_weight, memory.projected)
        _linear(self._class_normed, q_weight, self._q)
        attend_class(self._jets, self._n_jets, self._q, memory.projected, memory.attended, memory.lse)
        self._branches(
            weights, last, self._one_a_jet, self._class_x, memory.attended, self._class_ff, self._class_branch
        )

    def _branches(
        self,
        weights: Weights,
        i: int,
        rows: Rows,
        x: Tensor,
        attended: Tensor,
        ff: _FeedForward,
        branch: Tensor,
    ) -> None:
        """From a block's attention on to its last branch, left in `branch`, to be added to `ff.x`."""
        block = f"blocks.{i}."
        _linear(attended, weights.compute(block + "out.weight"), branch)
        add_norm(rows, x, branch, weights.single(block + "feedforward_norm.weight"), ff.x, ff.normed)
        _linear(ff.normed, weights.compute(block + "gate_up.weight"), ff.gate_up)
        swiglu(rows, ff.gate_up, ff.hidden)
        _linear(ff.hidden, weights.compute(block + "down.weight"), branch)

    def _backward(self, weights: Weights, gradients: Gradients) -> None:
        self._last_backward(weights, gradients)
        flow = self._flow
        for i in reversed(range(self._depth - 1)):
            memory, block = self._attention[i], f"blocks.{i}."
            self._feed_forward_backward(weights, gradients, i, self._all, self._feed_forward[i], flow)
            self._out_backward(weights, gradients, i, memory, flow)
            attend_backward(
                self._jets, self._n_jets, memory.projected, memory.attended, memory.lse, flow.attended,
                flow.projected,
            )  # fmt: skip
            _weight_gradient(flow.projected, memory.normed, gradients.whole(block + "qkv.weight"))
            torch.mm(flow.projected, weights.compute(block + "qkv.weight"), out=flow.normed)
            name = block + "attention_norm.weight"
            norm_backward(
                self._all, memory.x, weights.single(name), flow.normed, flow.x, flow.half,
                gradients.parts(name),
            )  # fmt: skip
        embed_backward(self._jets, self._n_jets, flow.x, _embedding_parts(gradients))

    def _last_backward(self, weights: Weights, gradients: Gradients) -> None:
        """From the gradient of the class tokens to that of all tokens before the last block."""
        i, flow, of_class = self._depth - 1, self._flow, self._class_flow
        memory, block = self._attention[i], f"blocks.{i}."
        self._feed_forward_backward(weights, gradients, i, self._one_a_jet, self._class_ff, of_class)
        self._out_backward(weights, gradients, i, memory, of_class)
        d_q, d_kv = of_class.projected, self._d_kv
        attend_class_backward(
            self._jets, self._n_jets, self._q, memory.projected, memory.attended, memory.lse,
            of_class.attended, d_q, d_kv,
        )  # fmt: skip
        q_weight, kv_weight = self._split(weights.compute(block + "qkv.weight"))
        q_gradient, kv_gradient = self._split(gradients.whole(block + "qkv.weight"))
        _weight_gradient(d_q, self._class_normed, q_gradient)
        _weight_gradient(d_kv, memory.normed, kv_gradient)
        torch.mm(d_q, q_weight, out=of_class.normed)
        torch.mm(d_kv, kv_weight, out=flow.normed)
        name = block + "attention_norm.weight"
        norm_backward(
            self._all, memory.x, weights.single(name), flow.normed, flow.x, flow.half, gradients.parts(name),
            (of_class.normed, of_class.x),
        )  # fmt: skip

    def _feed_forward_backward(
        self, weights: Weights, gradients: Gradients, i: int, rows: Rows, ff: _FeedForward, flow: _Flow
    ) -> None:
        block = f"blocks.{i}."
        _weight_gradient(flow.half, ff.hidden, gradients.whole(block + "down.weight"))
        torch.mm(flow.half, weights.compute(block + "down.weight"), out=flow.hidden)
        swiglu_backward(rows, ff.gate_up, flow.hidden, flow.gate_up)
        _weight_gradient(flow.gate_up, ff.normed, gradients.whole(block + "gate_up.weight"))
        torch.mm(flow.gate_up, weights.compute(block + "gate_up.weight"), out=flow.normed)
        name = block + "feedforward_norm.weight"
        norm_backward(rows, ff.x, weights.single(name), flow.normed, flow.x, flow.half, gradients.parts(name))

    def _out_backward(
        self, weights: Weights, gradients: Gradients, i: int, memory: _Attention, flow: _Flow
    ) -> None:
        name = f"blocks.{i}.out.weight"
        _weight_gradient(flow.half, memory.attended, gradients.whole(name))
        torch.mm(flow.half, weights.compute(name), out=flow.attended)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of a (3 D, D) matrix that make queries, and those that make keys and values."""
        return qkv[: self._width], qkv[self._width :]

    def _allocate(self, rows: int, n_jets: int, keep: bool) -> None:
        """Make all tensors; blocks share theirs unless `keep`, for a backward pass, is true."""
        width, n_heads, inner = self._width, self._width // HEAD_DIM, self._depth - 1
        x, normed = self._float(rows, width), self._half(rows, width)
        self._attention: list[_Attention] = []
        self._feed_forward: list[_FeedForward] = []
        for i in range(inner):
            if i == 0 or keep:
                attention = _Attention(
                    x,
                    normed,
                    self._half(rows, 3 * width),
                    self._half(rows, width),
                    self._float(n_heads, rows),
                )
                middle = self._float(rows, width) if keep else x
                feed_forward = self._feed_forward_memory(middle, self._half(rows, width))
                x, normed = (self._float(rows, width), self._half(rows, width)) if keep else (x, normed)
            self._attention.append(attention)
            self._feed_forward.append(feed_forward)
        kv = self._half(rows, 2 * width)
        class_attended, class_lse = self._half(n_jets, width), self._float(n_jets, n_heads)
        self._attention.append(_Attention(x, normed, kv, class_attended, class_lse))
        self._branch, self._class_branch = self._half(rows, width), self._half(n_jets, width)
        self._class_x, self._class_normed = self._float(n_jets, width), self._half(n_jets, width)
        self._q = self._half(n_jets, width)
        self._class_ff = self._feed_forward_memory(self._float(n_jets, width), self._half(n_jets, width))
        if keep:
            self._flow, self._class_flow = self._flow_memory(rows, 3), self._flow_memory(n_jets, 1)
            self._d_kv = self._half(rows, 2 * width)

    def _feed_forward_memory(self, x: Tensor, normed: Tensor) -> _FeedForward:
        rows, width = x.shape
        return _FeedForward(x, normed, self._half(rows, 4 * width), self._half(rows, 2 * width))

    def _flow_memory(self, rows: int, projections: int) -> _Flow:
        columns = (1, 1, 1, 2, 4, projections)
        halves = (self._half(rows, n * self._width) for n in columns)
        return _Flow(self._float(rows, self._width), *halves)

    def _float(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self._jets.x.device)

    def _half(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self._dtype, device=self._jets.x.device)


def _embedding(weights: Weights) -> Embedding:
    table = weights.single("pid.weight") if "pid.weight" in weights.layout.slots else None
    names = "embed.weight", "embed.bias", "class_token"
    weight, bias, class_token = (weights.single(name) for name in names)
    return Embedding(weight, bias, table, class_token)


def _embedding_parts(gradients: Gradients) -> Embedding:
    table = gradients.parts("pid.weight") if "pid.weight" in gradients.layout.slots else None
    names = "embed.weight", "embed.bias", "class_token"
    weight, bias, class_token = (gradients.parts(name) for name in names)
    return Embedding(weight, bias, table, class_token)


def _linear(x: Tensor, weight: Tensor, out: Tensor) -> None:
    """Out = x weight^T; x (rows, I), weight (O, I), out (rows, O)."""
    torch.mm(x, weight.t(), out=out)


def _weight_gradient(d_y: Tensor, x: Tensor, out: Tensor) -> None:
    """Out = d_y^T x in float32; d_y (rows, O), x (rows, I), out (O, I)."""
    if d_y.dtype == out.dtype:
        torch.mm(d_y.t(), x, out=out)
    elif d_y.is_cuda:
        torch.ops.aten.mm.dtype_out(d_y.t(), x, out.dtype, out=out)
    else:  # PyTorch has no product of bfloat16 into float32 on a CPU
        torch.mm(d_y.t().float(), x.float(), out=out)
