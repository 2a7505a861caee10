"""The compiled loops on tensors: outputs allocated, memory handed over as arrays, rows or jets over threads.

Shapes: S tokens, T constituents, B jets, D width, M = 2 D, H heads of E = 8 channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from jetscale.model.kernels.cpu import embedding, pooling, ragged, rowwise
from jetscale.model.kernels.cpu.jit import Ints, flat, for_all
from jetscale.model.kernels.cpu.simd import LANES
from jetscale.model.packing import PackingPlan

LAYER_NORM_EPS = 1e-5


def embed(x_TF: Tensor, pid_T: Tensor, plan: PackingPlan, vectors: Tensor, scales: Tensor) -> Tensor:
    """(S, W) sums of `vectors` (K, W), row by row times `scales` (S,): see `embedding`."""
    out = x_TF.new_empty(plan.n_tokens, vectors.shape[1])
    constituents = flat(x_TF), x_TF.shape[1], pid_T.numpy(), plan.starts_B1
    others = flat(vectors), vectors.shape[1], flat(scales), flat(out)
    for_all(embedding.forward, plan.n_jets, *constituents, *others)
    return out


def embed_backward(
    d_out: Tensor, x_TF: Tensor, pid_T: Tensor, plan: PackingPlan, scales: Tensor, n_vectors: int
) -> Tensor:
    """(K, W) gradient of the vectors of `embed`."""
    n_blocks = -(-plan.n_jets // embedding.BLOCK)
    shares = d_out.new_empty(n_blocks, n_vectors, d_out.shape[1])
    constituents = flat(x_TF), x_TF.shape[1], pid_T.numpy(), plan.starts_B1
    for_all(
        embedding.backward, n_blocks, flat(d_out), *constituents, flat(scales), d_out.shape[1], flat(shares)
    )
    return shares.sum(0)


def layer_norm(x_SD: Tensor, weight_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The normed rows, and of each row mean and 1 / standard deviation."""
    rows, dim = x_SD.shape
    normed_SD, means, over_sds = torch.empty_like(x_SD), x_SD.new_empty(rows), x_SD.new_empty(rows)
    results = (flat(normed_SD), flat(means), flat(over_sds))
    for_all(rowwise.layer_norm, rows, flat(x_SD), dim, flat(weight_D), LAYER_NORM_EPS, *results)
    return normed_SD, means, over_sds


def layer_norm_backward(
    x_SD: Tensor,
    weight_D: Tensor,
    means: Tensor,
    over_sds: Tensor,
    d_normed_SD: Tensor,
    d_residual_SD: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows, that of the residual path added, and of the weight."""
    rows, dim = x_SD.shape
    d_x_SD, d_weights = torch.empty_like(x_SD), x_SD.new_empty(-(-rows // rowwise.BLOCK), dim)
    inputs = (x_SD, weight_D, means, over_sds, d_normed_SD, d_residual_SD)
    x, weight, *others = (flat(tensor) for tensor in inputs)
    for_all(
        rowwise.layer_norm_backward, len(d_weights), x, dim, weight, *others, flat(d_x_SD), flat(d_weights)
    )
    return d_x_SD, d_weights.sum(0)


def swiglu(gate_up: Tensor, width: int) -> Tensor:
    """(S, M) silu(gate) times up, of (S, 2 M)."""
    hidden_SM = gate_up.new_empty(len(gate_up), width)
    for_all(rowwise.swiglu, len(gate_up), flat(gate_up), width, flat(hidden_SM))
    return hidden_SM


def swiglu_backward(gate_up: Tensor, d_hidden_SM: Tensor) -> tuple[Tensor, Tensor]:
    """`swiglu` again and the gradient of its input."""
    hidden_SM, d_gate_up = torch.empty_like(d_hidden_SM), torch.empty_like(gate_up)
    arrays = (flat(gate_up), hidden_SM.shape[1], flat(d_hidden_SM), flat(hidden_SM), flat(d_gate_up))
    for_all(rowwise.swiglu_backward, len(gate_up), *arrays)
    return hidden_SM, d_gate_up


def scale_backward(
    d_scaled: Tensor, scaled: Tensor, x_SD: Tensor, means: Tensor, over_sds: Tensor, d_residual_SD: Tensor
) -> Tensor:
    """(S, D) gradient of x through the factor 1 / sd(x) of `scaled`, that of the residual path added."""
    d_x_SD = d_residual_SD.clone()
    inputs = flat(d_scaled), flat(scaled), scaled.shape[1], flat(x_SD), flat(means), flat(over_sds)
    for_all(rowwise.scale_backward, len(x_SD), *inputs, x_SD.shape[1], flat(d_x_SD))
    return d_x_SD


def attention(qkv: Tensor, starts: Ints) -> tuple[Tensor, Tensor, Tensor]:
    """(S, D) attended values of qkv (S, 3 D), and what `attention_backward` needs of the softmax."""
    n_jets, heads = len(starts) - 1, qkv.shape[1] // (3 * LANES)
    out_SD = qkv.new_empty(len(qkv), heads * LANES)
    kept = [qkv.new_empty(ragged.statistics_size(len(qkv), n_jets, heads)) for _ in range(2)]
    for_all(ragged.forward, n_jets, flat(qkv), starts, heads, flat(out_SD), *map(flat, kept))
    return out_SD, kept[0], kept[1]


def attention_backward(qkv: Tensor, starts: Ints, *tensors: Tensor) -> Tensor:
    """(S, 3 D) gradient; `tensors` are the results of `attention` and the gradient of its first."""
    d_qkv = torch.empty_like(qkv)
    heads = qkv.shape[1] // (3 * LANES)
    for_all(ragged.backward, len(starts) - 1, flat(qkv), starts, heads, *map(flat, tensors), flat(d_qkv))
    return d_qkv


def pool(n_SD: Tensor, starts: Ints, query_HBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(H, B, D) means of the rows weighted by each class query (H, B, D), and what `pool_backward` needs."""
    queries = _tiles(query_HBD)
    weights, means = n_SD.new_empty(queries.shape[1], len(n_SD), LANES), torch.empty_like(queries)
    layout = (flat(n_SD), n_SD.shape[1], starts, flat(queries), queries.shape[1])
    for_all(pooling.forward, len(queries), *layout, flat(weights), flat(means))
    return _from_tiles(means, len(query_HBD)), queries, weights


def pool_backward(
    n_SD: Tensor, starts: Ints, d_mean_HBD: Tensor, queries: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the queries and of the rows."""
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
