"""Matrix products with a side of 8, where MKL and oneDNN spend most of their time on anything but products.

Shapes: rows S, inputs I, outputs O; I and O multiples of 8.
"""

from __future__ import annotations

import numpy as np

from jetscale.model.kernels.jit import Floats, kernel
from jetscale.model.kernels.simd import (
    LANES,
    add_combination,
    add_outer,
    load,
    load_tile,
    splat,
    store,
    store_tile,
    zero_tile,
)

ZERO = np.float32(0)
TILE = LANES * LANES
BLOCK = 256  # rows summed up together: short sums round less


@kernel
def linear(first: int, last: int, x: Floats, n_in: int, tiles: Floats, n_out: int, out: Floats) -> None:
    """Out = x W, rows `first` to `last` - 1.

    Parameters
    ----------
    x : rows of `n_in`
    tiles : W cut into 8 x 8 tiles, those of the same columns in a row: (n_out / 8, n_in / 8, 8, 8)
    out : result, rows of `n_out`
    """
    for block in range(n_out // LANES):
        tile_row = block * (n_in // LANES) * TILE
        for row in range(first, last, 4):
            # four rows share one load of the tile; beyond the last row, the last one is done again
            row_1, row_2, row_3 = min(row + 1, last - 1), min(row + 2, last - 1), min(row + 3, last - 1)
            sum_0, sum_1, sum_2, sum_3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            for column in range(0, n_in, LANES):
                tile = load_tile(tiles, tile_row + column * LANES)
                sum_0 = add_combination(sum_0, x, row * n_in + column, tile)
                sum_1 = add_combination(sum_1, x, row_1 * n_in + column, tile)
                sum_2 = add_combination(sum_2, x, row_2 * n_in + column, tile)
                sum_3 = add_combination(sum_3, x, row_3 * n_in + column, tile)
            store(out, row * n_out + block * LANES, sum_0)
            store(out, row_1 * n_out + block * LANES, sum_1)
            store(out, row_2 * n_out + block * LANES, sum_2)
            store(out, row_3 * n_out + block * LANES, sum_3)


@kernel
def weight_gradient(
    first: int, last: int, d_out: Floats, n_out: int, x: Floats, n_in: int, rows: int, shares: Floats
) -> None:
    """Share of row blocks `first` to `last` - 1, of BLOCK rows, in d_out^T x.

    Parameters
    ----------
    d_out, x : rows of `n_out` and of `n_in`
    rows : S
    shares : result, (blocks, n_out / 8, n_in / 8, 8, 8)
    """
    tile_at = first * n_out * n_in
    for block in range(first, last):
        for at_out in range(0, n_out, LANES):
            for at_in in range(0, n_in, LANES):
                tile = zero_tile()
                for row in range(block * BLOCK, min((block + 1) * BLOCK, rows)):
                    tile = add_outer(tile, d_out, row * n_out + at_out, load(x, row * n_in + at_in))
                store_tile(shares, tile_at, tile)
                tile_at += TILE
