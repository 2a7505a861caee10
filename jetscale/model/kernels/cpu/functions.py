"""The operations of `jetscale.model.operations` on a CPU in float32, backward passes written out.

Each is one `torch.autograd.Function`: matrix products joined by the compiled loops of `ragged` and `rowwise`.

Shapes: S tokens, T constituents, B jets, D width, M = 2 D, H heads of E = 8 channels.
"""

# torch gives `Function.apply` no types
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from jetscale.model.kernels.cpu.calls import (
    attention,
    attention_backward,
    embed,
    embed_backward,
    layer_norm,
    layer_norm_backward,
    pool,
    pool_backward,
    scale_backward,
    swiglu,
    swiglu_backward,
)
from jetscale.model.kernels.cpu.products import input_gradient, linear, weight_gradient
from jetscale.model.kernels.cpu.simd import LANES
from jetscale.model.operations import Operations
from jetscale.model.packing import PackingPlan

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
    x_SD: Tensor = _Tokens.apply(*constituents, weight_DF, bias_D, table, class_D, plan)
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
    out_SD: Tensor = _AttendEmbedded.apply(*constituents, *embedding, *block, plan)
    return out_SD


def attend(
    x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, head_dim: int, plan: PackingPlan
) -> Tensor:
    """As `operations.attend`."""
    assert head_dim == LANES
    out_SD: Tensor = _Attend.apply(x_SD, norm_D, qkv_weight, out_weight, plan)
    return out_SD


def attend_class(
    x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, head_dim: int, plan: PackingPlan
) -> Tensor:
    """As `operations.attend_class`."""
    assert head_dim == LANES
    out_BD: Tensor = _AttendClass.apply(x_SD, norm_D, qkv_weight, out_weight, plan)
    return out_BD


def feed_forward(x_SD: Tensor, norm_D: Tensor, gate_up_weight: Tensor, down_weight: Tensor) -> Tensor:
    """As `operations.feed_forward`."""
    out_SD: Tensor = _FeedForward.apply(x_SD, norm_D, gate_up_weight, down_weight)
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
        return embed(x_TF, pid_T, plan, vectors, scales)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_x_SD: Tensor) -> tuple[Tensor | None, ...]:
        x_TF, pid_T, vectors, scales = ctx.saved_tensors
        d_x_SD = d_x_SD.contiguous()
        d_vectors = embed_backward(d_x_SD, x_TF, pid_T, ctx.plan, scales, len(vectors))
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
        x_SD = embed(x_TF, pid_T, plan, vectors, x_TF.new_ones(plan.n_tokens))
        _, means, over_sds = layer_norm(x_SD, norm_D)
        centred = vectors - vectors.mean(1, keepdim=True)
        qkv_vectors = (centred * norm_D) @ qkv_weight.T
        qkv = embed(x_TF, pid_T, plan, qkv_vectors, over_sds)
        attended_SD, *kept = attention(qkv, plan.starts_B1)
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
        d_qkv = attention_backward(qkv, plan.starts_B1, attended_SD, *kept, d_attended_SD)
        d_qkv_vectors = embed_backward(d_qkv, x_TF, pid_T, plan, over_sds, len(vectors))
        d_x_SD = scale_backward(d_qkv, qkv, x_SD, means, over_sds, d_out_SD)
        d_vectors = embed_backward(d_x_SD, x_TF, pid_T, plan, torch.ones_like(over_sds), len(vectors))
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
        normed_SD, *statistics = layer_norm(x_SD, norm_D)
        qkv = linear(normed_SD, qkv_weight)
        attended_SD, *kept = attention(qkv, plan.starts_B1)
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
        d_qkv = attention_backward(qkv, ctx.starts, attended_SD, *kept, d_attended_SD)
        d_qkv_weight = weight_gradient(d_qkv, normed_SD, qkv_weight)
        d_normed_SD = input_gradient(d_qkv, qkv_weight)
        d_x_SD, d_norm_D = layer_norm_backward(x_SD, norm_D, means, over_sds, d_normed_SD, d_out_SD)
        return d_x_SD, d_norm_D, d_qkv_weight, weight_gradient(d_out_SD, attended_SD, out_weight), None


class _AttendClass(torch.autograd.Function):
    """Keys and values are never made: see `pooling`."""

    @staticmethod
    def forward(
        ctx: Any, x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, plan: PackingPlan
    ) -> Tensor:
        starts, class_rows = plan.starts_B1, plan.class_rows
        q_weight_HED, k_weight_HED, v_weight_HED = _per_head(qkv_weight)
        normed_SD, *norm_kept = layer_norm(x_SD, norm_D)
        q_HBE = SCALE * (normed_SD[class_rows] @ q_weight_HED.mT)
        mean_HBD, *kept = pool(normed_SD, starts, q_HBE @ k_weight_HED)
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
        d_query_HBD, d_normed_SD = pool_backward(normed_SD, ctx.starts, d_attended_HBE @ v_weight_HED, *kept)
        d_q_HBE = SCALE * (d_query_HBD @ k_weight_HED.mT)
        d_normed_SD[class_rows] += (d_q_HBE @ q_weight_HED).sum(0)
        d_residual_SD = torch.zeros_like(x_SD)
        d_residual_SD[class_rows] = d_out_BD
        d_x_SD, d_norm_D = layer_norm_backward(x_SD, norm_D, means, over_sds, d_normed_SD, d_residual_SD)
        d_qkv_weight = torch.stack(
            [d_q_HBE.mT @ normed_SD[class_rows], q_HBE.mT @ d_query_HBD, d_attended_HBE.mT @ mean_HBD]
        )
        return d_x_SD, d_norm_D, d_qkv_weight.view_as(qkv_weight), d_out_BD.T @ attended_BD, None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_SD: Tensor, norm_D: Tensor, gate_up_weight: Tensor, down_weight: Tensor
    ) -> Tensor:
        normed_SD, *statistics = layer_norm(x_SD, norm_D)
        gate_up = linear(normed_SD, gate_up_weight)
        hidden_SM = swiglu(gate_up, down_weight.shape[1])
        ctx.save_for_backward(x_SD, norm_D, gate_up_weight, down_weight, normed_SD, *statistics, gate_up)
        return linear(hidden_SM, down_weight).add_(x_SD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_SD: Tensor) -> tuple[Tensor, ...]:
        x_SD, norm_D, gate_up_weight, down_weight, normed_SD, means, over_sds, gate_up = ctx.saved_tensors
        d_out_SD = d_out_SD.contiguous()
        hidden_SM, d_gate_up = swiglu_backward(gate_up, input_gradient(d_out_SD, down_weight))
        d_down_weight = weight_gradient(d_out_SD, hidden_SM, down_weight)
        d_gate_up_weight = weight_gradient(d_gate_up, normed_SD, gate_up_weight)
        d_normed_SD = input_gradient(d_gate_up, gate_up_weight)
        d_x_SD, d_norm_D = layer_norm_backward(x_SD, norm_D, means, over_sds, d_normed_SD, d_out_SD)
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


def _features_gradient(d_rows: Tensor, x_TF: Tensor, plan: PackingPlan, vectors: Tensor) -> Tensor:
    return d_rows[plan.constituent_rows] @ vectors[: x_TF.shape[1]].T


def _per_head(qkv_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q_weight_HED, k_weight_HED, v_weight_HED = qkv_weight.view(3, -1, LANES, qkv_weight.shape[1])
    return q_weight_HED, k_weight_HED, v_weight_HED
