"""Matrix products with a short side, where MKL and oneDNN spend most of their time on anything but products.

Shapes: rows S, inputs I, outputs O; I and O multiples of 8.
"""

from __future__ import annotations

import numpy as np

from jetscale.common.compiled import compiled as kernel
from jetscale.model.kernels.cpu.jit import Floats
from jetscale.model.kernels.cpu.simd import (
    LANES,
    add_combination,
    add_outer,
    load,
    load_tile,
    splat,
    store,
    store_tile,
    transpose,
    zero_tile,
)

ZERO = np.float32(0)
BLOCK = 256  # rows summed up together: short sums round less


@kernel
def linear(first: int, last: int, x: Floats, n_in: int, weight: Floats, n_out: int, out: Floats) -> None:
    """Compute x W^T.

    Parameters
    ----------
    first, last : rows `first` to `last` - 1 are computed
    x, n_in : (S, I), and I
    weight, n_out : (O, I), and O
    out : (S, O) result
    """
    transposed = np.empty(len(weight), np.float32)
    for column in range(0, n_in, LANES):
        for at_out in range(0, n_out, LANES):
            block = transpose(load_tile(weight, at_out * n_in + column, n_in))
            store_tile(transposed, column * n_out + at_out, n_out, block)
    multiply(first, last, x, n_in, transposed, n_out, out)


@kernel
def multiply(first: int, last: int, x: Floats, n_in: int, matrix: Floats, n_out: int, out: Floats) -> None:
    """Compute x M.

    Parameters
    ----------
    first, last : rows `first` to `last` - 1 are computed
    x, n_in : (S, I), and I
    matrix, n_out : (I, O), and O
    out : (S, O) result
    """
    for at_out in range(0, n_out, LANES):
        for row in range(first, last, 4):
            # four rows share one load of the tile; beyond the last row, the last one is done again
            row_1, row_2, row_3 = min(row + 1, last - 1), min(row + 2, last - 1), min(row + 3, last - 1)
            sum_0, sum_1, sum_2, sum_3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            for column in range(0, n_in, LANES):
                tile = load_tile(matrix, column * n_out + at_out, n_out)
                sum_0 = add_combination(sum_0, x, row * n_in + column, tile)
                sum_1 = add_combination(sum_1, x, row_1 * n_in + column, tile)
                sum_2 = add_combination(sum_2, x, row_2 * n_in + column, tile)
                sum_3 = add_combination(sum_3, x, row_3 * n_in + column, tile)
            store(out, row * n_out + at_out, sum_0)
            store(out, row_1 * n_out + at_out, sum_1)
            store(out, row_2 * n_out + at_out, sum_2)
            store(out, row_3 * n_out + at_out, sum_3)


@kernel
def weight_gradient(
    first: int, last: int, d_out: Floats, n_out: int, x: Floats, n_in: int, rows: int, shares: Floats
) -> None:
    """Compute the shares of blocks of BLOCK rows in d_out^T x.

    Parameters
    ----------
    first, last : blocks `first` to `last` - 1 are computed
    d_out, n_out : (S, O), and O
    x, n_in : (S, I), and I
    rows : S
    shares : (blocks, O, I) result
    """
    for block in range(first, last):
        for at_out in range(0, n_out, LANES):
            for at_in in range(0, n_in, LANES):
                tile = zero_tile()
                for row in range(block * BLOCK, min((block + 1) * BLOCK, rows)):
                    tile = add_outer(tile, d_out, row * n_out + at_out, load(x, row * n_in + at_in))
                store_tile(shares, (block * n_out + at_out) * n_in + at_in, n_in, tile)
