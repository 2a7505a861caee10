"""The operations of `jetscale.model.operations` on a CPU in float32, backward passes written out.

Each is one `torch.autograd.Function`: matrix products joined by the compiled loops of `ragged` and `rowwise`.

Shapes: S tokens, T constituents, B jets, D width, M = 2 D; heads have 8 channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from jetscale.model.kernels import ragged, rowwise
from jetscale.model.kernels.jit import Ints, flat, for_all
from jetscale.model.kernels.products import input_gradient, linear, weight_gradient
from jetscale.model.kernels.simd import LANES
from jetscale.model.operations import Operations
from jetscale.model.packing import PackingPlan

LAYER_NORM_EPS = 1e-5


def look_up(index_T: Tensor, table: Tensor) -> Tensor:
    """As `operations.look_up`; the backward is one product, an eighth of the time of PyTorch's."""
    rows_TD: Tensor = _LookUp.apply(index_T, table)  # type: ignore[no-untyped-call]
    return rows_TD


def attend(
    x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, head_dim: int, plan: PackingPlan
) -> Tensor:
    """As `operations.attend`."""
    assert head_dim == LANES
    out_SD: Tensor = _Attend.apply(x_SD, norm_D, qkv_weight, out_weight, plan)  # type: ignore[no-untyped-call]
    return out_SD


def attend_class(
    x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, head_dim: int, plan: PackingPlan
) -> Tensor:
    """As `operations.attend_class`."""
    assert head_dim == LANES
    out_BD: Tensor = _AttendClass.apply(x_SD, norm_D, qkv_weight, out_weight, plan)  # type: ignore[no-untyped-call]
    return out_BD


def feed_forward(x_SD: Tensor, norm_D: Tensor, gate_up_weight: Tensor, down_weight: Tensor) -> Tensor:
    """As `operations.feed_forward`."""
    out_SD: Tensor = _FeedForward.apply(x_SD, norm_D, gate_up_weight, down_weight)  # type: ignore[no-untyped-call]
    return out_SD


FUSED = Operations(look_up, attend, attend_class, feed_forward)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, index_T: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(index_T)
        ctx.entries = len(table)
        return functional.embedding(index_T, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_rows_TD: Tensor) -> tuple[None, Tensor]:
        (index_T,) = ctx.saved_tensors
        return None, functional.one_hot(index_T, ctx.entries).to(d_rows_TD.dtype).T @ d_rows_TD


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, plan: PackingPlan
    ) -> Tensor:
        dim, starts = x_SD.shape[1], plan.starts_B1
        normed_SD, *norm_kept = _layer_norm(x_SD, norm_D)
        qkv = linear(normed_SD, qkv_weight)
        attended_SD, *kept = _attention(qkv, starts, qkv, starts, dim, dim)
        ctx.save_for_backward(
            x_SD, norm_D, qkv_weight, out_weight, normed_SD, *norm_kept, qkv, attended_SD, *kept
        )
        ctx.starts = starts
        return linear(attended_SD, out_weight).add_(x_SD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_SD: Tensor) -> tuple[Tensor | None, ...]:
        x_SD, norm_D, qkv_weight, out_weight, normed_SD, means, over_sds, qkv, attended_SD, *kept = (
            ctx.saved_tensors
        )
        d_out_SD = d_out_SD.contiguous()
        dim, starts = x_SD.shape[1], ctx.starts
        d_qkv = torch.empty_like(qkv)
        d_attended_SD = input_gradient(d_out_SD, out_weight)
        _attention_backward(
            qkv, starts, qkv, starts, dim, dim, attended_SD, *kept, d_attended_SD, d_qkv, d_qkv
        )
        d_normed_SD = input_gradient(d_qkv, qkv_weight)
        d_x_SD, d_norm_D = _layer_norm_backward(x_SD, norm_D, means, over_sds, d_normed_SD, d_out_SD)
        d_qkv_weight = weight_gradient(d_qkv, normed_SD)
        return d_x_SD, d_norm_D, d_qkv_weight, weight_gradient(d_out_SD, attended_SD), None


class _AttendClass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, plan: PackingPlan
    ) -> Tensor:
        dim, starts, class_rows = x_SD.shape[1], plan.starts_B1, plan.class_rows
        q_starts = np.arange(plan.n_jets + 1)
        normed_SD, *norm_kept = _layer_norm(x_SD, norm_D)
        q_BD = linear(normed_SD[class_rows], qkv_weight[:dim])
        kv = linear(normed_SD, qkv_weight[dim:])
        attended_BD, *kept = _attention(q_BD, q_starts, kv, starts, 0, dim)
        ctx.save_for_backward(
            x_SD,
            norm_D,
            qkv_weight,
            out_weight,
            class_rows,
            normed_SD,
            *norm_kept,
            q_BD,
            kv,
            attended_BD,
            *kept,
        )
        ctx.starts = (q_starts, starts)
        return linear(attended_BD, out_weight).add_(x_SD[class_rows])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BD: Tensor) -> tuple[Tensor | None, ...]:
        x_SD, norm_D, qkv_weight, out_weight, class_rows, normed_SD, means, over_sds, q_BD, kv, *rest = (
            ctx.saved_tensors
        )
        attended_BD, *kept = rest
        d_out_BD = d_out_BD.contiguous()
        dim, (q_starts, starts) = x_SD.shape[1], ctx.starts
        d_q_BD, d_kv = torch.empty_like(q_BD), torch.empty_like(kv)
        d_attended_BD = input_gradient(d_out_BD, out_weight)
        _attention_backward(
            q_BD, q_starts, kv, starts, 0, dim, attended_BD, *kept, d_attended_BD, d_q_BD, d_kv
        )
        d_normed_SD = input_gradient(d_kv, qkv_weight[dim:])
        d_normed_SD[class_rows] += input_gradient(d_q_BD, qkv_weight[:dim])
        d_residual_SD = torch.zeros_like(x_SD)
        d_residual_SD[class_rows] = d_out_BD
        d_x_SD, d_norm_D = _layer_norm_backward(x_SD, norm_D, means, over_sds, d_normed_SD, d_residual_SD)
        d_qkv_weight = torch.cat(
            [weight_gradient(d_q_BD, normed_SD[class_rows]), weight_gradient(d_kv, normed_SD)]
        )
        return d_x_SD, d_norm_D, d_qkv_weight, weight_gradient(d_out_BD, attended_BD), None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_SD: Tensor, norm_D: Tensor, gate_up_weight: Tensor, down_weight: Tensor
    ) -> Tensor:
        normed_SD, *norm_kept = _layer_norm(x_SD, norm_D)
        gate_up = linear(normed_SD, gate_up_weight)
        hidden_SM = gate_up.new_empty(len(x_SD), down_weight.shape[1])
        for_all(rowwise.swiglu, len(x_SD), flat(gate_up), hidden_SM.shape[1], flat(hidden_SM))
        ctx.save_for_backward(
            x_SD, norm_D, gate_up_weight, down_weight, normed_SD, *norm_kept, gate_up, hidden_SM
        )
        return linear(hidden_SM, down_weight).add_(x_SD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_SD: Tensor) -> tuple[Tensor, ...]:
        x_SD, norm_D, gate_up_weight, down_weight, normed_SD, means, over_sds, gate_up, hidden_SM = (
            ctx.saved_tensors
        )
        d_out_SD = d_out_SD.contiguous()
        d_hidden_SM = input_gradient(d_out_SD, down_weight)
        d_gate_up = torch.empty_like(gate_up)
        arrays = (flat(gate_up), hidden_SM.shape[1], flat(d_hidden_SM), flat(d_gate_up))
        for_all(rowwise.swiglu_backward, len(x_SD), *arrays)
        d_normed_SD = input_gradient(d_gate_up, gate_up_weight)
        d_x_SD, d_norm_D = _layer_norm_backward(x_SD, norm_D, means, over_sds, d_normed_SD, d_out_SD)
        d_gate_up_weight = weight_gradient(d_gate_up, normed_SD)
        return d_x_SD, d_norm_D, d_gate_up_weight, weight_gradient(d_out_SD, hidden_SM)


def _layer_norm(x_SD: Tensor, weight_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, dim = x_SD.shape
    normed_SD, means, over_sds = torch.empty_like(x_SD), x_SD.new_empty(rows), x_SD.new_empty(rows)
    results = (flat(normed_SD), flat(means), flat(over_sds))
    for_all(rowwise.layer_norm, rows, flat(x_SD), dim, flat(weight_D), LAYER_NORM_EPS, *results)
    return normed_SD, means, over_sds


def _layer_norm_backward(
    x_SD: Tensor,
    weight_D: Tensor,
    means: Tensor,
    over_sds: Tensor,
    d_normed_SD: Tensor,
    d_residual_SD: Tensor,
) -> tuple[Tensor, Tensor]:
    rows, dim = x_SD.shape
    d_x_SD, d_weights = torch.empty_like(x_SD), x_SD.new_empty(-(-rows // rowwise.BLOCK), dim)
    inputs = (x_SD, weight_D, means, over_sds, d_normed_SD, d_residual_SD)
    x, weight, *others = (flat(tensor) for tensor in inputs)
    for_all(
        rowwise.layer_norm_backward, len(d_weights), x, dim, weight, *others, flat(d_x_SD), flat(d_weights)
    )
    return d_x_SD, d_weights.sum(0)


def _attention(
    q: Tensor, q_starts: Ints, kv: Tensor, kv_starts: Ints, k_column: int, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    n_jets, heads = len(q_starts) - 1, dim // LANES
    out = q.new_empty(len(q), dim)
    kept = [q.new_empty(ragged.statistics_size(len(q), n_jets, heads)) for _ in range(2)]
    layout = (flat(q), q.shape[1], q_starts, flat(kv), kv.shape[1], kv_starts, k_column, heads)
    for_all(ragged.forward, n_jets, *layout, flat(out), *map(flat, kept))
    return out, kept[0], kept[1]


def _attention_backward(
    q: Tensor, q_starts: Ints, kv: Tensor, kv_starts: Ints, k_column: int, dim: int, *tensors: Tensor
) -> None:
    layout = (flat(q), q.shape[1], q_starts, flat(kv), kv.shape[1], kv_starts, k_column, dim // LANES)
    for_all(ragged.backward, len(q_starts) - 1, *layout, *map(flat, tensors))
