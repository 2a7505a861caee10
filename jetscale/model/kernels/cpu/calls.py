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
    """Sum up the vectors of each row and scale it, see `embedding`.

    Parameters
    ----------
    x_TF : (T, F) features, F a multiple of 8
    pid_T : (T,) int64 identities
    plan : layout of the batch
    vectors : (V, W) one for each feature, then one for each identity, last the class token's
    scales : (S,) factor of each row

    Returns
    -------
    (S, W) rows.
    """
    out = x_TF.new_empty(plan.n_tokens, vectors.shape[1])
    constituents = flat(x_TF), x_TF.shape[1], pid_T.numpy(), plan.starts_B1
    others = flat(vectors), vectors.shape[1], flat(scales), flat(out)
    for_all(embedding.forward, plan.n_jets, *constituents, *others)
    return out


def embed_backward(
    d_out: Tensor, x_TF: Tensor, pid_T: Tensor, plan: PackingPlan, scales: Tensor, n_vectors: int
) -> Tensor:
    """Gradient of the vectors of `embed`.

    Parameters
    ----------
    d_out : (S, W) gradient of the rows
    x_TF, pid_T, plan, scales : as given to `embed`
    n_vectors : V

    Returns
    -------
    (V, W) gradient; the shares of the blocks of jets are added in order.
    """
    n_blocks = -(-plan.n_jets // embedding.BLOCK)
    shares = d_out.new_empty(n_blocks, n_vectors, d_out.shape[1])
    constituents = flat(x_TF), x_TF.shape[1], pid_T.numpy(), plan.starts_B1
    for_all(
        embedding.backward, n_blocks, flat(d_out), *constituents, flat(scales), d_out.shape[1], flat(shares)
    )
    return shares.sum(0)


def layer_norm(x_SD: Tensor, weight_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Norm each row: (x - mean) / sd weight, with sd = sqrt(variance + 1e-5).

    Parameters
    ----------
    x_SD, weight_D : (S, D) rows and (D,) scale

    Returns
    -------
    (S, D) normed rows, (S,) mean of each, (S,) 1 / sd of each.
    """
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
    """Gradient of `layer_norm`.

    Parameters
    ----------
    x_SD, weight_D : as given to `layer_norm`
    means, over_sds : (S,) as it returned them
    d_normed_SD : (S, D) gradient of the normed rows
    d_residual_SD : (S, D) gradient that reaches x on the path around the norm

    Returns
    -------
    (S, D) gradient of x, that of the residual path added; (D,) gradient of the weight.
    """
    rows, dim = x_SD.shape
    d_x_SD, d_weights = torch.empty_like(x_SD), x_SD.new_empty(-(-rows // rowwise.BLOCK), dim)
    inputs = (x_SD, weight_D, means, over_sds, d_normed_SD, d_residual_SD)
    x, weight, *others = (flat(tensor) for tensor in inputs)
    for_all(
        rowwise.layer_norm_backward, len(d_weights), x, dim, weight, *others, flat(d_x_SD), flat(d_weights)
    )
    return d_x_SD, d_weights.sum(0)


def swiglu(gate_up: Tensor, width: int) -> Tensor:
    """Multiply silu(gate) and up.

    Parameters
    ----------
    gate_up : (S, 2 M) gate, then up
    width : M

    Returns
    -------
    (S, M).
    """
    hidden_SM = gate_up.new_empty(len(gate_up), width)
    for_all(rowwise.swiglu, len(gate_up), flat(gate_up), width, flat(hidden_SM))
    return hidden_SM


def swiglu_backward(gate_up: Tensor, d_hidden_SM: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `swiglu`.

    Parameters
    ----------
    gate_up : (S, 2 M) as given to `swiglu`
    d_hidden_SM : (S, M) gradient of its result

    Returns
    -------
    (S, M) the result once more, which therefore need not be kept; (S, 2 M) gradient of `gate_up`.
    """
    hidden_SM, d_gate_up = torch.empty_like(d_hidden_SM), torch.empty_like(gate_up)
    arrays = (flat(gate_up), hidden_SM.shape[1], flat(d_hidden_SM), flat(hidden_SM), flat(d_gate_up))
    for_all(rowwise.swiglu_backward, len(gate_up), *arrays)
    return hidden_SM, d_gate_up


def scale_backward(
    d_scaled: Tensor, scaled: Tensor, x_SD: Tensor, means: Tensor, over_sds: Tensor, d_residual_SD: Tensor
) -> Tensor:
    """Gradient of x through the factor 1 / sd(x) of something that was computed from its normed rows.

    Parameters
    ----------
    d_scaled, scaled : (S, W) gradient of the scaled rows, and the rows
    x_SD, means, over_sds : (S, D), (S,), (S,) input and statistics of the norm
    d_residual_SD : (S, D) gradient that reaches x on other paths

    Returns
    -------
    (S, D) sum of both gradients.
    """
    d_x_SD = d_residual_SD.clone()
    inputs = flat(d_scaled), flat(scaled), scaled.shape[1], flat(x_SD), flat(means), flat(over_sds)
    for_all(rowwise.scale_backward, len(x_SD), *inputs, x_SD.shape[1], flat(d_x_SD))
    return d_x_SD


def attention(qkv: Tensor, starts: Ints) -> tuple[Tensor, Tensor, Tensor]:
    """Attend from every token to all tokens of its jet.

    Parameters
    ----------
    qkv : (S, 3 D) queries, keys and values
    starts : (B + 1,) first row of each jet, then S

    Returns
    -------
    (S, D) attended values; for `attention_backward`, largest score and 1 / (sum of weights) of each query.
    """
    n_jets, heads = len(starts) - 1, qkv.shape[1] // (3 * LANES)
    out_SD = qkv.new_empty(len(qkv), heads * LANES)
    kept = [qkv.new_empty(ragged.statistics_size(len(qkv), n_jets, heads)) for _ in range(2)]
    for_all(ragged.forward, n_jets, flat(qkv), starts, heads, flat(out_SD), *map(flat, kept))
    return out_SD, kept[0], kept[1]


def attention_backward(qkv: Tensor, starts: Ints, *tensors: Tensor) -> Tensor:
    """Gradient of `attention`.

    Parameters
    ----------
    qkv, starts : as given to `attention`
    tensors : its three results, then the (S, D) gradient of the first

    Returns
    -------
    (S, 3 D) gradient of `qkv`.
    """
    d_qkv = torch.empty_like(qkv)
    heads = qkv.shape[1] // (3 * LANES)
    for_all(ragged.backward, len(starts) - 1, flat(qkv), starts, heads, *map(flat, tensors), flat(d_qkv))
    return d_qkv


def pool(n_SD: Tensor, starts: Ints, query_HBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average the tokens of each jet, weighted by its class queries, see `pooling`.

    Parameters
    ----------
    n_SD : (S, D) normed tokens
    starts : (B + 1,) first row of each jet, then S
    query_HBD : (H, B, D) the query of each head and jet, already multiplied by the key weights

    Returns
    -------
    (H, B, D) weighted means; tiles of the queries and weights of the tokens, for `pool_backward`.
    """
    queries = _tiles(query_HBD)
    weights, means = n_SD.new_empty(queries.shape[1], len(n_SD), LANES), torch.empty_like(queries)
    layout = (flat(n_SD), n_SD.shape[1], starts, flat(queries), queries.shape[1])
    for_all(pooling.forward, len(queries), *layout, flat(weights), flat(means))
    return _from_tiles(means, len(query_HBD)), queries, weights


def pool_backward(
    n_SD: Tensor, starts: Ints, d_mean_HBD: Tensor, queries: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of `pool`.

    Parameters
    ----------
    n_SD, starts : as given to `pool`
    d_mean_HBD : (H, B, D) gradient of the means
    queries, weights : as `pool` returned them

    Returns
    -------
    (H, B, D) gradient of the queries; (S, D) gradient of the tokens.
    """
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
