"""Attention of one query per head to the tokens of a jet, without making keys and values.

The class token's score with token n is q . (W_k n) = (W_k^T q) . n, and the sum of its values is
W_v (sum of weights times n): with one query per jet, W_k and W_v are applied once per jet instead of once
per token. What is left for the tokens is here: scores n . q, softmax, and the weighted mean of the n.

Eight heads lie in the lanes. Queries, means and their gradients come in tiles of 8 heads by 8 channels:
(B, G, D / 8, 8, 8) for G groups of heads, the last filled up with zeros where H is no multiple of 8.
"""

from __future__ import annotations

import math

import numpy as np

from jetscale.common.compiled import compiled as kernel
from jetscale.model.kernels.cpu.jit import Floats, Ints
from jetscale.model.kernels.cpu.simd import (
    LANES,
    add,
    add_combination,
    add_outer,
    divide,
    exp2,
    load,
    load_tile,
    maximum,
    multiply,
    multiply_add,
    splat,
    store,
    store_tile,
    subtract,
    transpose,
    zero_tile,
)

ZERO, ONE, LOWEST = np.float32(0), np.float32(1), np.float32(-3e38)
LOG2_E = np.float32(math.log2(math.e))


@kernel
def dot(n: Floats, dim: int, starts: Ints, jet: int, tiles: Floats, tile_at: int, out: Floats) -> None:
    """Multiply the tokens of one jet with 8 vectors.

    Parameters
    ----------
    n, dim : (S, D) tokens, and D
    starts : (B + 1,) first token of each jet, then S
    jet : which jet
    tiles, tile_at : tiles of vectors, and where those 8 begin
    out : (tokens of the jet, 8) result
    """
    first, last = starts[jet], starts[jet + 1]
    out[: (last - first) * LANES] = ZERO
    for column in range(0, dim, LANES):
        tile = transpose(load_tile(tiles, tile_at + column * LANES, LANES))
        for row in range(first, last):
            at = (row - first) * LANES
            store(out, at, add_combination(load(out, at), n, row * dim + column, tile))


@kernel
def forward(
    first_jet: int,
    last_jet: int,
    n: Floats,
    dim: int,
    starts: Ints,
    queries: Floats,
    groups: int,
    weights: Floats,
    means: Floats,
) -> None:
    """Weigh and average, for jets `first_jet` to `last_jet` - 1.

    Parameters
    ----------
    n : (S, D) tokens, `dim` is D
    starts : (B + 1,) first token of each jet, then S
    queries : tiles; scores are n . q
    groups : G
    weights : result, (G, S, 8) softmax of the scores over the tokens of a jet, for `backward`
    means : result, tiles: the sum of weights times n
    """
    n_tokens = starts[len(starts) - 1]
    for jet in range(first_jet, last_jet):
        first, count = starts[jet], starts[jet + 1] - starts[jet]
        for group in range(groups):
            tile_at = (jet * groups + group) * dim * LANES
            scores = weights[(group * n_tokens + first) * LANES :]
            # Scores of 8 heads, in the lanes, with each token; their place takes the weights further down.
            dot(n, dim, starts, jet, queries, tile_at, scores)
            # Softmax over the tokens; the largest score is taken away first, so that nothing overflows.
            largest = splat(LOWEST)
            for token in range(count):
                largest = maximum(largest, load(scores, token * LANES))
            sums = splat(ZERO)
            for token in range(count):
                above = subtract(load(scores, token * LANES), largest)
                weight = exp2(multiply(above, splat(LOG2_E)))
                store(scores, token * LANES, weight)
                sums = add(sums, weight)
            over_sum = divide(splat(ONE), sums)
            for token in range(count):
                store(scores, token * LANES, multiply(load(scores, token * LANES), over_sum))
            # Weighted means, 8 channels at a time.
            for column in range(0, dim, LANES):
                mean = zero_tile()
                for token in range(count):
                    channels = load(n, (first + token) * dim + column)
                    mean = add_outer(mean, scores, token * LANES, channels)
                store_tile(means, tile_at + column * LANES, LANES, mean)


@kernel
def backward(
    first_jet: int,
    last_jet: int,
    n: Floats,
    dim: int,
    starts: Ints,
    queries: Floats,
    groups: int,
    weights: Floats,
    d_means: Floats,
    d_queries: Floats,
    d_n: Floats,
) -> None:
    """Gradient of `forward`, for jets `first_jet` to `last_jet` - 1.

    With weights p of the tokens, it is that of a softmax: d score = p (d mean . n - sum over tokens of
    p (d mean . n)). Then d query sums d score times n, and d n is d score times query plus p times d mean.

    Parameters
    ----------
    first_jet, last_jet : the jets that this call computes
    n, dim, starts, queries, groups : as given to `forward`
    weights : as `forward` left them
    d_means : tiles, gradient of the means
    d_queries : tiles, overwritten with the gradient of the queries
    d_n : (S, D), to which the gradient of the tokens is added
    """
    n_tokens = starts[len(starts) - 1]
    d_scores = np.empty(np.max(np.diff(starts)) * LANES, np.float32)
    for jet in range(first_jet, last_jet):
        first, count = starts[jet], starts[jet + 1] - starts[jet]
        for group in range(groups):
            tile_at = (jet * groups + group) * dim * LANES
            own = weights[(group * n_tokens + first) * LANES :]
            # d p = d mean . n for each token, then d score = p (d p - sum over tokens of p d p).
            dot(n, dim, starts, jet, d_means, tile_at, d_scores)
            mean = splat(ZERO)
            for at in range(0, count * LANES, LANES):
                mean = multiply_add(load(own, at), load(d_scores, at), mean)
            for at in range(0, count * LANES, LANES):
                store(d_scores, at, multiply(load(own, at), subtract(load(d_scores, at), mean)))
            # Each token reaches the result twice: through its score, and as what is averaged.
            for column in range(0, dim, LANES):
                query = load_tile(queries, tile_at + column * LANES, LANES)
                d_mean = load_tile(d_means, tile_at + column * LANES, LANES)
                d_query = zero_tile()
                for token in range(count):
                    at = (first + token) * dim + column
                    d_query = add_outer(d_query, d_scores, token * LANES, load(n, at))
                    from_scores = add_combination(load(d_n, at), d_scores, token * LANES, query)
                    store(d_n, at, add_combination(from_scores, own, token * LANES, d_mean))
                store_tile(d_queries, tile_at + column * LANES, LANES, d_query)
