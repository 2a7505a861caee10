"""Forward and backward pass of a wide set transformer on static memory: cuBLAS products, passes between them.

At depth 4 a step is 34 kernels and 51 products, and two kernels of the update. Backward passes are those of
`jetscale.model.kernels.cpu.functions`, in the same order. Weight gradients are products over all rows of the
capacity: rows from S on are zero in one of their two factors (`normed` of every norm, and the gradient of the
residual stream) and finite in the other, since no row is ever written with anything but results of finite
rows.

Shapes: as in `buffers`; "rows" is the capacity, D width, M = 2 D, H heads.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

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
from jetscale.model.kernels.gpu.wide_memory import Attention, Backward, FeedForward, Flow, WideMemory

CLASS_NORM_PARTS = 16  # of the norm that acts on class tokens alone


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

    Raises
    ------
    ValueError
        A tensor would have more numbers than a kernel can count.

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
        if capacity * 4 * model.dim >= 2**31:
            raise ValueError(
                f"{capacity:,} tokens of width {model.dim} in one batch, at most {2**29 // model.dim:,}: "
                "take smaller batches"
            )
        self._depth, self._width = len(model.blocks), model.dim
        self._jets, self._n_jets, self._gradients = jets, batch_size, gradients
        self._all = Rows(jets, batch_size, capacity)
        self._one_a_jet = Rows(jets, batch_size, batch_size)
        self.losses_B = torch.zeros(batch_size, device=jets.x.device)
        self.correct_B = torch.zeros(batch_size, dtype=torch.uint8, device=jets.x.device)
        keep = gradients is not None
        self._memory = WideMemory.allocate(model, capacity, batch_size, dtype, jets.x.device, keep)

    def up_to(self, capacity: int) -> Wide:
        """The same network on the first rows of the same memory, which only one of them may use at a time.

        Parameters
        ----------
        capacity : most tokens of a batch; at most that of this network
        """
        smaller = copy.copy(self)
        smaller._all = replace(self._all, n_rows=capacity)
        smaller._memory = self._memory.up_to(capacity)
        return smaller

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
        backward = self._memory.backward
        assert self._gradients is not None
        assert backward is not None
        self._forward(weights)
        classes, flow = self._memory.classes, backward.class_flow
        head_step(
            classes.ff.x, classes.branch, weights, self._jets, self._n_jets, self._gradients,
            self.losses_B, self.correct_B, flow.x, flow.half, k,
        )  # fmt: skip
        self._backward(weights, self._gradients, backward)

    def evaluate(self, weights: Weights) -> None:
        """Enqueue the forward pass of one batch.

        Parameters
        ----------
        weights : what the batch is computed with
        """
        self._forward(weights)
        classes = self._memory.classes
        head_forward(
            classes.ff.x, classes.branch, weights, self._jets, self._n_jets, self.losses_B, self.correct_B
        )

    def _forward(self, weights: Weights) -> None:
        memory, classes, last = self._memory, self._memory.classes, self._depth - 1
        of_class = classes.x, classes.normed
        embed(
            self._jets, self._n_jets, _embedding(weights), weights.single("blocks.0.attention_norm.weight"),
            memory.attention[0].x, memory.attention[0].normed, of_class if last == 0 else None,
        )  # fmt: skip
        for i in range(last):
            attention, ff, after = memory.attention[i], memory.feed_forward[i], memory.attention[i + 1]
            _linear(attention.normed, weights.compute(f"blocks.{i}.qkv.weight"), attention.projected)
            attend(self._jets, self._n_jets, attention.projected, attention.attended, attention.lse)
            self._branches(weights, i, self._all, attention.x, attention.attended, ff, memory.branch)
            norm = weights.single(f"blocks.{i + 1}.attention_norm.weight")
            next_class = of_class if i + 1 == last else None
            add_norm(self._all, ff.x, memory.branch, norm, after.x, after.normed, next_class)
        attention = memory.attention[last]
        q_weight, kv_weight = self._split(weights.compute(f"blocks.{last}.qkv.weight"))
        _linear(attention.normed, kv_weight, attention.projected)
        _linear(classes.normed, q_weight, classes.q)
        attend_class(
            self._jets, self._n_jets, classes.q, attention.projected, attention.attended, attention.lse
        )
        self._branches(
            weights, last, self._one_a_jet, classes.x, attention.attended, classes.ff, classes.branch
        )

    def _branches(
        self,
        weights: Weights,
        i: int,
        rows: Rows,
        x: Tensor,
        attended: Tensor,
        ff: FeedForward,
        branch: Tensor,
    ) -> None:
        """From a block's attention on to its last branch, left in `branch`, to be added to `ff.x`."""
        block = f"blocks.{i}."
        _linear(attended, weights.compute(block + "out.weight"), branch)
        add_norm(rows, x, branch, weights.single(block + "feedforward_norm.weight"), ff.x, ff.normed)
        _linear(ff.normed, weights.compute(block + "gate_up.weight"), ff.gate_up)
        swiglu(rows, ff.gate_up, ff.hidden)
        _linear(ff.hidden, weights.compute(block + "down.weight"), branch)

    def _backward(self, weights: Weights, gradients: Gradients, backward: Backward) -> None:
        self._last_backward(weights, gradients, backward)
        flow = backward.flow
        for i in reversed(range(self._depth - 1)):
            attention, ff, block = self._memory.attention[i], self._memory.feed_forward[i], f"blocks.{i}."
            self._feed_forward_backward(weights, gradients, i, self._all, ff, flow)
            self._out_backward(weights, gradients, i, attention, flow)
            attend_backward(
                self._jets, self._n_jets, attention.projected, attention.attended, attention.lse,
                flow.attended, flow.projected,
            )  # fmt: skip
            _weight_gradient(flow.projected, attention.normed, gradients.whole(block + "qkv.weight"))
            torch.mm(flow.projected, weights.compute(block + "qkv.weight"), out=flow.normed)
            name = block + "attention_norm.weight"
            norm_backward(
                self._all, attention.x, weights.single(name), flow.normed, flow.x, flow.half,
                gradients.parts(name),
            )  # fmt: skip
        embed_backward(self._jets, self._n_jets, flow.x, _embedding_parts(gradients))

    def _last_backward(self, weights: Weights, gradients: Gradients, backward: Backward) -> None:
        """From the gradient of the class tokens to that of all tokens before the last block."""
        i, flow, of_class = self._depth - 1, backward.flow, backward.class_flow
        attention, classes, block = self._memory.attention[i], self._memory.classes, f"blocks.{i}."
        self._feed_forward_backward(weights, gradients, i, self._one_a_jet, classes.ff, of_class)
        self._out_backward(weights, gradients, i, attention, of_class)
        d_q, d_kv = of_class.projected, backward.d_kv
        attend_class_backward(
            self._jets, self._n_jets, classes.q, attention.projected, attention.attended, attention.lse,
            of_class.attended, d_q, d_kv,
        )  # fmt: skip
        q_weight, kv_weight = self._split(weights.compute(block + "qkv.weight"))
        q_gradient, kv_gradient = self._split(gradients.whole(block + "qkv.weight"))
        _weight_gradient(d_q, classes.normed, q_gradient)
        _weight_gradient(d_kv, attention.normed, kv_gradient)
        torch.mm(d_q, q_weight, out=of_class.normed)
        torch.mm(d_kv, kv_weight, out=flow.normed)
        name = block + "attention_norm.weight"
        norm_backward(
            self._all, attention.x, weights.single(name), flow.normed, flow.x, flow.half,
            gradients.parts(name), (of_class.normed, of_class.x),
        )  # fmt: skip

    def _feed_forward_backward(
        self, weights: Weights, gradients: Gradients, i: int, rows: Rows, ff: FeedForward, flow: Flow
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
        self, weights: Weights, gradients: Gradients, i: int, attention: Attention, flow: Flow
    ) -> None:
        name = f"blocks.{i}.out.weight"
        _weight_gradient(flow.half, attention.attended, gradients.whole(name))
        torch.mm(flow.half, weights.compute(name), out=flow.attended)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of a (3 D, D) matrix that make queries, and those that make keys and values."""
        return qkv[: self._width], qkv[self._width :]


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
