"""Rows that are linear in what a constituent is: its features times vectors, plus its identity's vector.

The tokens are such rows, and up to a factor a row so are the first block's queries, keys and values: its norm
and its product act on tokens that a dozen or two vectors span, so both are applied to these instead
(`functions._AttendEmbedded`).

Shapes: T constituents, B jets, S = T + B rows (a class token before the constituents of each jet), F features
(filled up with zeros to a multiple of 8), W floats of a row. `vectors` is (V, W): a vector for each feature,
then one for each identity, and last the class token's.
"""

from __future__ import annotations

import numpy as np

from jetscale.common.compiled import compiled as kernel
from jetscale.model.kernels.cpu.jit import Floats, Ints
from jetscale.model.kernels.cpu.simd import (
    LANES,
    add,
    add_combination,
    add_outer,
    load,
    load_tile,
    multiply,
    splat,
    store,
    store_tile,
)

ZERO = np.float32(0)
BLOCK = 8  # jets whose shares in the gradient are summed up together: short sums round less


@kernel
def forward(
    first_jet: int,
    last_jet: int,
    features: Floats,
    n_features: int,
    pid: Ints,
    starts: Ints,
    vectors: Floats,
    width: int,
    scales: Floats,
    out: Floats,
) -> None:
    """Fill the rows of jets `first_jet` to `last_jet` - 1.

    Parameters
    ----------
    features : (T, F), `n_features` is F
    pid : (T,) identity of each constituent
    starts : (B + 1,) row of each class token, then S
    vectors : (V, W), `width` is W
    scales : (S,) factor of each row
    out : (S, W) result
    """
    class_vector = len(vectors) // width - 1
    for jet in range(first_jet, last_jet):
        for row in range(starts[jet], starts[jet + 1]):
            constituent = row - jet - 1  # one class token before the constituents of each jet so far
            is_class = row == starts[jet]
            vector = class_vector if is_class else n_features + pid[constituent]
            scale = splat(scales[row])
            for column in range(0, width, LANES):
                value = load(vectors, vector * width + column)
                if not is_class:
                    for feature in range(0, n_features, LANES):
                        tile = load_tile(vectors, feature * width + column, width)
                        value = add_combination(value, features, constituent * n_features + feature, tile)
                store(out, row * width + column, multiply(value, scale))


@kernel
def backward(
    first: int,
    last: int,
    d_out: Floats,
    features: Floats,
    n_features: int,
    pid: Ints,
    starts: Ints,
    scales: Floats,
    width: int,
    shares: Floats,
) -> None:
    """Shares of blocks of BLOCK jets in the gradient of `vectors`.

    Parameters
    ----------
    first, last : blocks `first` to `last` - 1 are computed
    d_out : (S, W) gradient of the rows of `forward`
    features, n_features, pid, starts, scales, width : as given to `forward`
    shares : (blocks, V, W) result
    """
    n_jets = len(starts) - 1
    n_vectors = len(shares) // width // -(-n_jets // BLOCK)
    for block in range(first, last):
        own = shares[block * n_vectors * width : (block + 1) * n_vectors * width]
        own[:] = ZERO
        for jet in range(block * BLOCK, min((block + 1) * BLOCK, n_jets)):
            for column in range(0, width, LANES):
                for feature in range(0, n_features, LANES):
                    tile = load_tile(own, feature * width + column, width)
                    for row in range(starts[jet] + 1, starts[jet + 1]):
                        d = multiply(load(d_out, row * width + column), splat(scales[row]))
                        at = (row - jet - 1) * n_features + feature
                        tile = add_outer(tile, features, at, d)
                    store_tile(own, feature * width + column, width, tile)
            for row in range(starts[jet], starts[jet + 1]):
                is_class = row == starts[jet]
                vector = n_vectors - 1 if is_class else n_features + pid[row - jet - 1]
                scale = splat(scales[row])
                for column in range(0, width, LANES):
                    at = vector * width + column
                    d = multiply(load(d_out, row * width + column), scale)
                    store(own, at, add(load(own, at), d))
