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

from jetscale.model.kernels import embedding, pooling, ragged, rowwise
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
    *constituents, table = _constituents(x_TF, pid_T, bias_D, table)
    x_SD: Tensor = _Tokens.apply(*constituents, weight_DF, bias_D, table, class_D, plan)  # type: ignore[no-untyped-call]
    return x_SD


def attend_embedded(
    x_TF: Tensor,
    pid_T: Tensor | None,
    weight_DF: Tensor,
    bias_D: Tensor,
    table: Tensor | None,
    class_D: Tensor,
    norm_D: Tensor,
    qkv_weight: Tensor,
    out_weight: Tensor,
    head_dim: int,
    plan: PackingPlan,
) -> Tensor:
    """As `operations.attend_embedded`."""
    assert head_dim == LANES
    *constituents, table = _constituents(x_TF, pid_T, bias_D, table)
    embedding, block = (weight_DF, bias_D, table, class_D), (norm_D, qkv_weight, out_weight)
    out_SD: Tensor = _AttendEmbedded.apply(*constituents, *embedding, *block, plan)  # type: ignore[no-untyped-call]
    return out_SD


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


FUSED = Operations(tokens, attend, attend_embedded, attend_class, feed_forward)


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
        vectors = _vectors(weight_DF, bias_D, table, class_D)
        scales = x_TF.new_ones(plan.n_tokens)
        ctx.save_for_backward(x_TF, pid_T, vectors, scales)
        ctx.plan, ctx.n_features = plan, weight_DF.shape[1]
        return _embed(x_TF, pid_T, plan, vectors, scales)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_x_SD: Tensor) -> tuple[Tensor | None, ...]:
        x_TF, pid_T, vectors, scales = ctx.saved_tensors
        d_x_SD = d_x_SD.contiguous()
        d_vectors = _embed_backward(d_x_SD, x_TF, pid_T, ctx.plan, scales, len(vectors))
        d_x_TF = None
        if ctx.needs_input_grad[0]:
            d_x_TF = _features_gradient(d_x_SD, x_TF, ctx.plan, vectors)
        return d_x_TF, None, *_of_weights(d_vectors, ctx.n_features), None


class _AttendEmbedded(torch.autograd.Function):
    """`_Tokens`, then `_Attend`, whose norm and first product act on the vectors that span the tokens.

    A token is x = sum over k of z_k v_k, z being features and a one for identity or class. Then
    W (norm (x - mean(x)) / sd(x)) = 1 / sd(x) sum over k of z_k u_k with u_k = W (norm (v_k - mean(v_k))):
    F products of 3 D a constituent instead of D, and none of them again for a gradient of x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_TF: Tensor,
        pid_T: Tensor,
        weight_DF: Tensor,
        bias_D: Tensor,
        table: Tensor,
        class_D: Tensor,
        norm_D: Tensor,
        qkv_weight: Tensor,
        out_weight: Tensor,
        plan: PackingPlan,
    ) -> Tensor:
        vectors = _vectors(weight_DF, bias_D, table, class_D)
        x_SD = _embed(x_TF, pid_T, plan, vectors, x_TF.new_ones(plan.n_tokens))
        _, means, over_sds = _layer_norm(x_SD, norm_D)
        centred = vectors - vectors.mean(1, keepdim=True)
        qkv_vectors = (centred * norm_D) @ qkv_weight.T
        qkv = _embed(x_TF, pid_T, plan, qkv_vectors, over_sds)
        attended_SD, *kept = _attention(qkv, plan.starts_B1)
        small = vectors, centred, qkv_vectors, norm_D, qkv_weight, out_weight
        ctx.save_for_backward(x_TF, pid_T, *small, x_SD, means, over_sds, qkv, attended_SD, *kept)
        ctx.plan, ctx.n_features = plan, weight_DF.shape[1]
        return linear(attended_SD, out_weight).add_(x_SD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_SD: Tensor) -> tuple[Tensor | None, ...]:
        x_TF, pid_T, vectors, centred, qkv_vectors, norm_D, qkv_weight, out_weight, *large = ctx.saved_tensors
        x_SD, means, over_sds, qkv, attended_SD, *kept = large
        d_out_SD, plan = d_out_SD.contiguous(), ctx.plan
        d_attended_SD = input_gradient(d_out_SD, out_weight)
        d_qkv = _attention_backward(qkv, plan.starts_B1, attended_SD, *kept, d_attended_SD)
        d_qkv_vectors = _embed_backward(d_qkv, x_TF, pid_T, plan, over_sds, len(vectors))
        d_x_SD = _scale_backward(d_qkv, qkv, x_SD, means, over_sds, d_out_SD)
        d_vectors = _embed_backward(d_x_SD, x_TF, pid_T, plan, torch.ones_like(over_sds), len(vectors))
        d_normed = d_qkv_vectors @ qkv_weight
        d_centred = d_normed * norm_D
        d_vectors += d_centred - d_centred.mean(1, keepdim=True)
        d_x_TF = None
        if ctx.needs_input_grad[0]:
            d_x_TF = _features_gradient(d_x_SD, x_TF, plan, vectors)
            d_x_TF += _features_gradient(over_sds[:, None] * d_qkv, x_TF, plan, qkv_vectors)
        d_norm_D, d_qkv_weight = (d_normed * centred).sum(0), d_qkv_vectors.T @ (centred * norm_D)
        d_out_weight = weight_gradient(d_out_SD, attended_SD, out_weight)
        d_embedding = _of_weights(d_vectors, ctx.n_features)
        return d_x_TF, None, *d_embedding, d_norm_D, d_qkv_weight, d_out_weight, None


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


def _constituents(
    x_TF: Tensor, pid_T: Tensor | None, bias_D: Tensor, table: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Features filled up to whole vectors, identities (0 where there are none), and their table."""
    x_TF = functional.pad(x_TF, (0, -x_TF.shape[1] % LANES)).contiguous()
    if pid_T is None or table is None:
        return x_TF, torch.zeros(len(x_TF), dtype=torch.int64), torch.zeros_like(bias_D)[None]
    lowest, highest = pid_T.aminmax()
    if lowest < 0 or highest >= len(table):
        raise IndexError(f"particle identities {lowest} to {highest}, the model knows 0 to {len(table) - 1}")
    return x_TF, pid_T.contiguous(), table


def _vectors(weight_DF: Tensor, bias_D: Tensor, table: Tensor, class_D: Tensor) -> Tensor:
    """See `embedding`."""
    of_features = functional.pad(weight_DF.T, (0, 0, 0, -weight_DF.shape[1] % LANES))
    return torch.cat([of_features, table + bias_D, class_D[None]])


def _of_weights(d_vectors: Tensor, n_features: int) -> tuple[Tensor, ...]:
    """Gradients of weight, bias, table and class token from that of `_vectors`."""
    d_table = d_vectors[n_features + -n_features % LANES : -1]
    return d_vectors[:n_features].T, d_table.sum(0), d_table, d_vectors[-1]


def _embed(x_TF: Tensor, pid_T: Tensor, plan: PackingPlan, vectors: Tensor, scales: Tensor) -> Tensor:
    out = x_TF.new_empty(plan.n_tokens, vectors.shape[1])
    constituents = flat(x_TF), x_TF.shape[1], pid_T.numpy(), plan.starts_B1
    others = flat(vectors), vectors.shape[1], flat(scales), flat(out)
    for_all(embedding.forward, plan.n_jets, *constituents, *others)
    return out


def _embed_backward(
    d_out: Tensor, x_TF: Tensor, pid_T: Tensor, plan: PackingPlan, scales: Tensor, n_vectors: int
) -> Tensor:
    n_blocks = -(-plan.n_jets // embedding.BLOCK)
    shares = d_out.new_empty(n_blocks, n_vectors, d_out.shape[1])
    constituents = flat(x_TF), x_TF.shape[1], pid_T.numpy(), plan.starts_B1
    for_all(
        embedding.backward, n_blocks, flat(d_out), *constituents, flat(scales), d_out.shape[1], flat(shares)
    )
    return shares.sum(0)


def _features_gradient(d_rows: Tensor, x_TF: Tensor, plan: PackingPlan, vectors: Tensor) -> Tensor:
    return d_rows[plan.constituent_rows] @ vectors[: x_TF.shape[1]].T


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


def _scale_backward(
    d_scaled: Tensor, scaled: Tensor, x_SD: Tensor, means: Tensor, over_sds: Tensor, d_residual_SD: Tensor
) -> Tensor:
    d_x_SD = d_residual_SD.clone()
    inputs = flat(d_scaled), flat(scaled), scaled.shape[1], flat(x_SD), flat(means), flat(over_sds)
    for_all(rowwise.scale_backward, len(x_SD), *inputs, x_SD.shape[1], flat(d_x_SD))
    return d_x_SD


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
