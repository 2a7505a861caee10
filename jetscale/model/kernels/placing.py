"""Constituents put in their rows with their identity's vector added, class tokens between them; and back.

Shapes: T constituents, S = T + B tokens, D width. A table holds one vector for each identity and, as its last
row, the class token.
"""

from __future__ import annotations

import numpy as np

from jetscale.model.kernels.jit import Floats, Ints, kernel
from jetscale.model.kernels.simd import LANES, add, load, store

ZERO = np.float32(0)
BLOCK = 8  # jets whose shares in the gradient of the table are summed up together: short sums round less


@kernel
def forward(
    first_jet: int,
    last_jet: int,
    constituents: Floats,
    dim: int,
    pid: Ints,
    table: Floats,
    starts: Ints,
    tokens: Floats,
) -> None:
    """Fill the rows of jets `first_jet` to `last_jet` - 1.

    Parameters
    ----------
    constituents : (T, D), `dim` is D
    pid : (T,) row of the table for each constituent
    table : (entries + 1, D)
    starts : (B + 1,) row of each class token, then S
    tokens : (S, D) result
    """
    class_row = len(table) // dim - 1
    for jet in range(first_jet, last_jet):
        tokens[starts[jet] * dim : (starts[jet] + 1) * dim] = table[class_row * dim :]
        for row in range(starts[jet] + 1, starts[jet + 1]):
            constituent = row - jet - 1  # one class token before the constituents of each jet so far
            for column in range(0, dim, LANES):
                identity = load(table, pid[constituent] * dim + column)
                value = add(load(constituents, constituent * dim + column), identity)
                store(tokens, row * dim + column, value)


@kernel
def backward(
    first: int,
    last: int,
    d_tokens: Floats,
    dim: int,
    pid: Ints,
    starts: Ints,
    d_constituents: Floats,
    shares: Floats,
) -> None:
    """Gradients of `forward`, for blocks `first` to `last` - 1 of BLOCK jets.

    Parameters
    ----------
    d_constituents : (T, D) result
    shares : (blocks, entries + 1, D) result, share of each block in the gradient of the table
    """
    n_jets = len(starts) - 1
    entries = len(shares) // dim // -(-n_jets // BLOCK)
    for block in range(first, last):
        share = shares[block * entries * dim : (block + 1) * entries * dim]
        share[:] = ZERO
        for jet in range(block * BLOCK, min((block + 1) * BLOCK, n_jets)):
            for row in range(starts[jet], starts[jet + 1]):
                constituent = row - jet - 1
                is_class = row == starts[jet]
                entry = entries - 1 if is_class else pid[constituent]
                for column in range(0, dim, LANES):
                    d = load(d_tokens, row * dim + column)
                    at = entry * dim + column
                    store(share, at, add(load(share, at), d))
                    if not is_class:
                        store(d_constituents, constituent * dim + column, d)
