"""The operations of `jetscale.model.operations` on a CPU in float32, backward passes written out.

Each is one `torch.autograd.Function`: matrix products joined by the compiled loops of `ragged` and `rowwise`.

Shapes: S tokens, T constituents, B jets, D width, M = 2 D, H heads of E = 8 channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from jetscale.model.kernels import placing, pooling, ragged, rowwise
from jetscale.model.kernels.jit import Ints, flat, for_all
from jetscale.model.kernels.products import input_gradient, linear, weight_gradient
from jetscale.model.kernels.simd import LANES
from jetscale.model.operations import Operations
from jetscale.model.packing import PackingPlan

LAYER_NORM_EPS = 1e-5
SCALE = LANES**-0.5


def tokens(
    x_TF: Tensor,
    pid_T: Tensor | None,
    weight_DF: Tensor,
    bias_D: Tensor,
    table: Tensor | None,
    class_D: Tensor,
    plan: PackingPlan,
) -> Tensor:
    """As `operations.tokens`."""
    if pid_T is None or table is None:
        pid_T, table = torch.zeros(len(x_TF), dtype=torch.int64), torch.zeros_like(bias_D)[None]
    features = x_TF.contiguous(), pid_T.contiguous()
    x_SD: Tensor = _Tokens.apply(*features, weight_DF, bias_D, table, class_D, plan)  # type: ignore[no-untyped-call]
    return x_SD


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


FUSED = Operations(tokens, attend, attend_class, feed_forward)


class _Tokens(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TF: Tensor,
        pid_T: Tensor,
        weight_DF: Tensor,
        bias_D: Tensor,
        table: Tensor,
        class_D: Tensor,
        plan: PackingPlan,
    ) -> Tensor:
        lowest, highest = pid_T.aminmax()
        if lowest < 0 or highest >= len(table):
            raise IndexError(
                f"particle identities {lowest} to {highest}, the model knows 0 to {len(table) - 1}"
            )
        vectors, x_TD = torch.cat([table + bias_D, class_D[None]]), linear(x_TF, weight_DF)
        x_SD = x_TD.new_empty(plan.n_tokens, len(bias_D))
        inputs = (flat(x_TD), len(bias_D), pid_T.numpy(), flat(vectors), plan.starts_B1)
        for_all(placing.forward, plan.n_jets, *inputs, flat(x_SD))
        ctx.save_for_backward(x_TF, pid_T, weight_DF)
        ctx.starts, ctx.entries = plan.starts_B1, len(vectors)
        return x_SD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_x_SD: Tensor) -> tuple[Tensor | None, ...]:
        x_TF, pid_T, weight_DF = ctx.saved_tensors
        dim, n_blocks = len(weight_DF), -(-(len(ctx.starts) - 1) // placing.BLOCK)
        d_x_TD, shares = d_x_SD.new_empty(len(x_TF), dim), d_x_SD.new_empty(n_blocks, ctx.entries, dim)
        inputs = (flat(d_x_SD.contiguous()), dim, pid_T.numpy(), ctx.starts)
        for_all(placing.backward, n_blocks, *inputs, flat(d_x_TD), flat(shares))
        d_vectors = shares.sum(0)
        d_table, d_class_D = d_vectors[:-1], d_vectors[-1]
        d_x_TF = input_gradient(d_x_TD, weight_DF) if ctx.needs_input_grad[0] else None
        d_weight_DF = weight_gradient(d_x_TD, x_TF, weight_DF)
        return d_x_TF, None, d_weight_DF, d_table.sum(0), d_table, d_class_D, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, plan: PackingPlan
    ) -> Tensor:
        normed_SD, *statistics = _layer_norm(x_SD, norm_D)
        qkv = linear(normed_SD, qkv_weight)
        attended_SD, *kept = _attention(qkv, plan.starts_B1)
        ctx.save_for_backward(
            x_SD, norm_D, qkv_weight, out_weight, normed_SD, *statistics, qkv, attended_SD, *kept
        )
        ctx.starts = plan.starts_B1
        return linear(attended_SD, out_weight).add_(x_SD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_SD: Tensor) -> tuple[Tensor | None, ...]:
        x_SD, norm_D, qkv_weight, out_weight, normed_SD, means, over_sds, qkv, attended_SD, *kept = (
            ctx.saved_tensors
        )
        d_out_SD = d_out_SD.contiguous()
        d_attended_SD = input_gradient(d_out_SD, out_weight)
        d_qkv = _attention_backward(qkv, ctx.starts, attended_SD, *kept, d_attended_SD)
        d_qkv_weight = weight_gradient(d_qkv, normed_SD, qkv_weight)
        d_normed_SD = input_gradient(d_qkv, qkv_weight)
        d_x_SD, d_norm_D = _layer_norm_backward(x_SD, norm_D, means, over_sds, d_normed_SD, d_out_SD)
        return d_x_SD, d_norm_D, d_qkv_weight, weight_gradient(d_out_SD, attended_SD, out_weight), None


class _AttendClass(torch.autograd.Function):
    """Keys and values are never made: see `pooling`."""

    @staticmethod
    def forward(
        ctx: Any, x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, plan: PackingPlan
    ) -> Tensor:
        starts, class_rows = plan.starts_B1, plan.class_rows
        q_weight_HED, k_weight_HED, v_weight_HED = _per_head(qkv_weight)
        normed_SD, *norm_kept = _layer_norm(x_SD, norm_D)
        q_HBE = SCALE * (normed_SD[class_rows] @ q_weight_HED.mT)
        mean_HBD, *kept = _pool(normed_SD, starts, q_HBE @ k_weight_HED)
        attended_BD = (mean_HBD @ v_weight_HED.mT).transpose(0, 1).flatten(1)
        ctx.save_for_backward(
            x_SD, norm_D, qkv_weight, out_weight, class_rows, normed_SD, *norm_kept, q_HBE, mean_HBD, *kept
        )
        ctx.starts = starts
        return (attended_BD @ out_weight.T).add_(x_SD[class_rows])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BD: Tensor) -> tuple[Tensor | None, ...]:
        x_SD, norm_D, qkv_weight, out_weight, class_rows, normed_SD, *rest = ctx.saved_tensors
        means, over_sds, q_HBE, mean_HBD, *kept = rest
        q_weight_HED, k_weight_HED, v_weight_HED = _per_head(qkv_weight)
        attended_BD = (mean_HBD @ v_weight_HED.mT).transpose(0, 1).flatten(1)
        d_attended_HBE = (d_out_BD @ out_weight).view(len(d_out_BD), -1, LANES).transpose(0, 1)
        d_query_HBD, d_normed_SD = _pool_backward(normed_SD, ctx.starts, d_attended_HBE @ v_weight_HED, *kept)
        d_q_HBE = SCALE * (d_query_HBD @ k_weight_HED.mT)
        d_normed_SD[class_rows] += (d_q_HBE @ q_weight_HED).sum(0)
        d_residual_SD = torch.zeros_like(x_SD)
        d_residual_SD[class_rows] = d_out_BD
        d_x_SD, d_norm_D = _layer_norm_backward(x_SD, norm_D, means, over_sds, d_normed_SD, d_residual_SD)
        d_qkv_weight = torch.stack(
            [d_q_HBE.mT @ normed_SD[class_rows], q_HBE.mT @ d_query_HBD, d_attended_HBE.mT @ mean_HBD]
        )
        return d_x_SD, d_norm_D, d_qkv_weight.view_as(qkv_weight), d_out_BD.T @ attended_BD, None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_SD: Tensor, norm_D: Tensor, gate_up_weight: Tensor, down_weight: Tensor
    ) -> Tensor:
        normed_SD, *statistics = _layer_norm(x_SD, norm_D)
        gate_up = linear(normed_SD, gate_up_weight)
        hidden_SM = gate_up.new_empty(len(x_SD), down_weight.shape[1])
        for_all(rowwise.swiglu, len(x_SD), flat(gate_up), hidden_SM.shape[1], flat(hidden_SM))
        ctx.save_for_backward(x_SD, norm_D, gate_up_weight, down_weight, normed_SD, *statistics, gate_up)
        return linear(hidden_SM, down_weight).add_(x_SD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_SD: Tensor) -> tuple[Tensor, ...]:
        x_SD, norm_D, gate_up_weight, down_weight, normed_SD, means, over_sds, gate_up = ctx.saved_tensors
        d_out_SD = d_out_SD.contiguous()
        d_hidden_SM = input_gradient(d_out_SD, down_weight)
        hidden_SM, d_gate_up = torch.empty_like(d_hidden_SM), torch.empty_like(gate_up)
        arrays = (flat(gate_up), hidden_SM.shape[1], flat(d_hidden_SM), flat(hidden_SM), flat(d_gate_up))
        for_all(rowwise.swiglu_backward, len(x_SD), *arrays)
        d_down_weight = weight_gradient(d_out_SD, hidden_SM, down_weight)
        d_gate_up_weight = weight_gradient(d_gate_up, normed_SD, gate_up_weight)
        d_normed_SD = input_gradient(d_gate_up, gate_up_weight)
        d_x_SD, d_norm_D = _layer_norm_backward(x_SD, norm_D, means, over_sds, d_normed_SD, d_out_SD)
        return d_x_SD, d_norm_D, d_gate_up_weight, d_down_weight


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


def _attention(qkv: Tensor, starts: Ints) -> tuple[Tensor, Tensor, Tensor]:
    n_jets, heads = len(starts) - 1, qkv.shape[1] // (3 * LANES)
    out_SD = qkv.new_empty(len(qkv), heads * LANES)
    kept = [qkv.new_empty(ragged.statistics_size(len(qkv), n_jets, heads)) for _ in range(2)]
    for_all(ragged.forward, n_jets, flat(qkv), starts, heads, flat(out_SD), *map(flat, kept))
    return out_SD, kept[0], kept[1]


def _attention_backward(qkv: Tensor, starts: Ints, *tensors: Tensor) -> Tensor:
    d_qkv = torch.empty_like(qkv)
    heads = qkv.shape[1] // (3 * LANES)
    for_all(ragged.backward, len(starts) - 1, flat(qkv), starts, heads, *map(flat, tensors), flat(d_qkv))
    return d_qkv


def _per_head(qkv_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q_weight_HED, k_weight_HED, v_weight_HED = qkv_weight.view(3, -1, LANES, qkv_weight.shape[1])
    return q_weight_HED, k_weight_HED, v_weight_HED


def _pool(n_SD: Tensor, starts: Ints, query_HBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    queries = _tiles(query_HBD)
    weights, means = n_SD.new_empty(queries.shape[1], len(n_SD), LANES), torch.empty_like(queries)
    layout = (flat(n_SD), n_SD.shape[1], starts, flat(queries), queries.shape[1])
    for_all(pooling.forward, len(queries), *layout, flat(weights), flat(means))
    return _from_tiles(means, len(query_HBD)), queries, weights


def _pool_backward(
    n_SD: Tensor, starts: Ints, d_mean_HBD: Tensor, queries: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    d_queries, d_n_SD = torch.empty_like(queries), torch.zeros_like(n_SD)
    layout = (flat(n_SD), n_SD.shape[1], starts, flat(queries), queries.shape[1])
    results = (flat(d_queries), flat(d_n_SD))
    for_all(pooling.backward, len(queries), *layout, flat(weights), flat(_tiles(d_mean_HBD)), *results)
    return _from_tiles(d_queries, len(d_mean_HBD)), d_n_SD


def _tiles(x_HBD: Tensor) -> Tensor:
    """(B, G, D / 8, 8 heads, 8 channels), G groups of heads, the last filled up with zeros."""
    heads, jets, dim = x_HBD.shape
    filled = functional.pad(x_HBD, (0, 0, 0, 0, 0, -heads % LANES))
    return filled.view(-1, LANES, jets, dim // LANES, LANES).permute(2, 0, 3, 1, 4).contiguous()


def _from_tiles(tiles: Tensor, heads: int) -> Tensor:
    jets, groups, blocks = tiles.shape[:3]
    return tiles.permute(1, 3, 0, 2, 4).reshape(groups * LANES, jets, blocks * LANES)[:heads]
