"""The whole network at small widths, on static memory: 20 launches for forward and backward at depth 4.

At width 128 and below a matrix product of a batch is too short to fill a card, and what counts is the number
of launches. So all that acts on a row stays in one kernel between two attentions (`rows_forward`,
`rows_backward`), and the gradients of all weights are one launch (`weights`).

Legend: S tokens, B jets, D width, V = F + identities + 2 inputs of a token, depth L.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import triton
from torch import Tensor

from jetscale.model.kernels.gpu.attention import (
    attend,
    attend_backward,
    attend_class,
    attend_class_backward,
)
from jetscale.model.kernels.gpu.buffers import Gradients, JetBuffers, Transformer, Weights
from jetscale.model.kernels.gpu.head import head_forward, head_parts, head_step
from jetscale.model.kernels.gpu.narrow_memory import (
    allocate,
    half_buffers,
    input_columns,
    products_of,
    single_buffers,
)
from jetscale.model.kernels.gpu.rows import BLOCK, CLASSES, LAST, NOTHING, TOKENS
from jetscale.model.kernels.gpu.rows_backward import rows_backward_kernel
from jetscale.model.kernels.gpu.rows_forward import embed_kernel, rows_kernel
from jetscale.model.kernels.gpu.weights import WeightGradients, product_parts

TILE = 16
"""Rows of a program: long tiles read the weights less often, but more programs were faster on an H200."""


class Narrow:
    """Forward and backward pass of a `SetTransformer` whose rows fit in registers: of width 128 or less.

    Parameters
    ----------
    model : sizes are taken from it
    batch_size : jets of a batch, B
    capacity : most tokens of a batch
    jets : the chunk
    dtype : of the products, bfloat16 on a card
    gradients : takes the partial sums, as many as `parts` says; None for evaluations alone, in less memory

    Attributes
    ----------
    losses_B, correct_B : (B,) float32 loss and uint8 of each jet of the last batch
    """

    @staticmethod
    def parts(model: Transformer, batch_size: int) -> dict[str, int]:
        """Partial sums of each parameter's gradient, by name."""
        products = [product for product, _, _ in products_of(model)]
        return product_parts(products, model.dim) | head_parts(batch_size)

    def __init__(
        self,
        model: Transformer,
        batch_size: int,
        capacity: int,
        jets: JetBuffers,
        dtype: torch.dtype,
        gradients: Gradients | None,
    ) -> None:
        self._dim, self._depth, self._n_pid = model.dim, len(model.blocks), model.n_pid
        self._batch_size, self._capacity, self._jets = batch_size, capacity, jets
        self._gradients = gradients
        device = jets.x.device
        arena, self._half = allocate(
            dict(half_buffers(model, batch_size, capacity, gradients is not None)), dtype, device
        )
        _, self._single = allocate(
            dict(single_buffers(model, batch_size, capacity, gradients is not None)), torch.float32, device
        )
        self.losses_B = torch.zeros(batch_size, device=device)
        self.correct_B = torch.zeros(batch_size, dtype=torch.uint8, device=device)
        self._weight_gradients: WeightGradients | None = None
        if gradients is not None:
            plan = list(products_of(model))
            self._weight_gradients = WeightGradients(
                [product for product, _, _ in plan],
                [(self._half[d_y], self._half[x][:, columns]) for _, d_y, (x, columns) in plan],
                arena, model.dim, gradients, jets, batch_size,
            )  # fmt: skip

    def up_to(self, capacity: int) -> Narrow:
        """The same network in the same memory, which only one of them may use at a time.

        Parameters
        ----------
        capacity : most tokens of a batch; at most that of this network
        """
        smaller = copy.copy(self)
        smaller._capacity = capacity
        return smaller

    def train(self, weights: Weights, k: Tensor) -> None:
        """Enqueue forward and backward pass of a batch: fills the partial sums of the gradients.

        Parameters
        ----------
        weights : of the model
        k : (1,) int32, steps begun in the chunk: one is added
        """
        assert self._gradients is not None
        assert self._weight_gradients is not None
        self._forward(weights, keep=True)
        d_x_BD, d_out_BD = self._single["d_x_classes"], self._half[f"{self._depth - 1}.d_out"]
        head_step(
            self._single["x_classes"], None, weights, self._jets, self._batch_size, self._gradients,
            self.losses_B, self.correct_B, d_x_BD, d_out_BD, k,
        )  # fmt: skip
        self._backward(weights)
        self._weight_gradients(weights)

    def evaluate(self, weights: Weights) -> None:
        """Enqueue a forward pass of a batch: fills the losses."""
        self._forward(weights, keep=False)
        head_forward(
            self._single["x_classes"], None, weights, self._jets, self._batch_size,
            self.losses_B, self.correct_B,
        )  # fmt: skip

    def _forward(self, weights: Weights, keep: bool) -> None:
        self._embed(weights, keep)
        for index in range(self._depth):
            mine, batch = self._of_block(index), (self._jets, self._batch_size)
            if index == self._depth - 1:
                attend_class(*batch, mine("q"), mine("qkv"), mine("attended"), mine("lse"))
            else:
                attend(*batch, mine("qkv"), mine("attended"), mine("lse"))
            self._rows(weights, index, keep)

    def _backward(self, weights: Weights) -> None:
        for index in reversed(range(self._depth)):
            mine, batch = self._of_block(index), (self._jets, self._batch_size)
            self._rows_backward(weights, index)
            if index == self._depth - 1:
                attend_class_backward(
                    *batch, mine("q"), mine("qkv"), mine("attended"), mine("lse"),
                    self._half["d_attended_classes"], mine("d_q"), mine("d_qkv"),
                )  # fmt: skip
            else:
                attend_backward(
                    *batch,
                    mine("qkv"),
                    mine("attended"),
                    mine("lse"),
                    self._half["d_attended"],
                    mine("d_qkv"),
                )
        self._rows_backward(weights, -1)

    def _embed(self, weights: Weights, keep: bool) -> None:
        jets, names = self._jets, ("embed.weight", "embed.bias", "pid.weight", "class_token")
        vectors = [weights.single(name) if name != "pid.weight" or self._n_pid else None for name in names]
        columns = input_columns(jets.n_features, self._n_pid)
        embed_kernel[self._grid(TOKENS.value)](
            jets.x, jets.pid, jets.side, jets.centre, jets.scale, jets.offsets, jets.first,
            *vectors, self._half.get("inputs"), self._single["x"],
            *self._start(weights, 0),
            F=jets.n_features,
            N_PID=self._n_pid,
            DETA=jets.deta_column,
            PIDS=columns.pids,
            BIASES=columns.bias,
            TOKEN=columns.token,
            COLUMNS=columns.width,
            VP=triton.next_power_of_2(columns.width),
            NEXT=self._next(-1),
            KEEP=keep,
            **self._sizes(),
        )  # fmt: skip

    def _rows(self, weights: Weights, index: int, keep: bool) -> None:
        mine, prefix = self._of_block(index), f"blocks.{index}."
        rows = self._rows_of(index)
        x = self._single["x" if rows == TOKENS.value else "x_classes"]
        rows_kernel[self._grid(rows)](
            self._jets.offsets, self._jets.first, mine("attended"), x,
            weights.compute(prefix + "out.weight"),
            weights.single(prefix + "feedforward_norm.weight"),
            weights.compute(prefix + "gate_up.weight"), weights.compute(prefix + "down.weight"),
            mine("xhat2"), mine("over_sd2"), mine("gate_up"),
            *self._start(weights, index + 1),
            ROWS=rows,
            NEXT=self._next(index),
            KEEP=keep,
            **self._sizes(),
        )  # fmt: skip

    def _rows_backward(self, weights: Weights, index: int) -> None:
        """Backward pass of the rows between the attention of block `index` and of the one after it.

        Block -1 is the embedding.
        """
        mine, after, prefix = self._of_block(index), self._of_block(index + 1), f"blocks.{index}."
        rows = self._rows_of(index)
        of_tokens = rows == TOKENS.value
        d_x = self._single["d_x" if of_tokens else "d_x_classes"]
        d_attended = self._half["d_attended" if of_tokens else "d_attended_classes"]
        of_block: list[Tensor | None] = [None] * 10
        if index >= 0:
            of_block = [
                weights.single(prefix + "feedforward_norm.weight"),
                weights.compute(prefix + "gate_up.weight"),
                weights.compute(prefix + "down.weight"),
                *(mine(name) for name in ("xhat2", "over_sd2", "gate_up", "hidden", "d_middle")),
                weights.compute(prefix + "out.weight"),
                d_attended,
            ]
        rows_backward_kernel[self._grid(rows)](
            self._jets.offsets, self._jets.first, d_x, mine("d_out"),
            after("d_qkv"), after("d_q"), self._single["d_x_classes"],
            *self._start(weights, index + 1)[:4],
            *of_block,
            ROWS=rows,
            NEXT=self._next(index),
            FEED_FORWARD=index >= 0,
            **self._sizes(),
        )  # fmt: skip

    def _start(self, weights: Weights, index: int) -> list[Tensor | None]:
        """Arguments of `rows_forward._start_block` for block `index`; None for the block after the last."""
        if index == self._depth:
            return [None] * 8
        mine, prefix = self._of_block(index), f"blocks.{index}."
        norm, qkv = weights.single(prefix + "attention_norm.weight"), weights.compute(prefix + "qkv.weight")
        names = ("xhat1", "over_sd1", "qkv", "q", "xhat_classes")
        return [norm, qkv, *(mine(name) for name in names), self._single["x_classes"]]

    def _of_block(self, index: int) -> Any:
        """Buffers of a block by name; None for those that it does not need."""
        shared = self._gradients is None and index < self._depth - 1
        prefix = f"{0 if shared else index}."
        return lambda name: self._half.get(prefix + name, self._single.get(prefix + name))

    def _next(self, index: int) -> int:
        """What comes after block `index`; block -1 is the embedding."""
        left = self._depth - 1 - index
        following: int = (NOTHING if left == 0 else LAST if left == 1 else BLOCK).value
        return following

    def _rows_of(self, index: int) -> int:
        """What the rows after the attention of block `index` are."""
        rows: int = (CLASSES if index == self._depth - 1 else TOKENS).value
        return rows

    def _grid(self, rows: int) -> tuple[int]:
        n_rows = self._capacity if rows == TOKENS.value else self._batch_size
        return (triton.cdiv(n_rows, TILE),)

    def _sizes(self) -> dict[str, int]:
        padded = max(16, triton.next_power_of_2(self._dim))
        return {
            "B": self._batch_size,
            "D": self._dim,
            "DP": padded,
            "R": TILE,
            "CHUNK": 32 if padded == 128 else min(64, max(16, triton.next_power_of_2(2 * self._dim))),
            "num_warps": {16: 1, 32: 2}.get(padded, 4),  # with `TILE` and chunks, the fastest on an H200
            "num_stages": 3,
        }
