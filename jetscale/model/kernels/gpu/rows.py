"""What the row kernels of a narrow network share: pieces that act on a tile of rows held in registers.

A row tile is (R, DP) float32: R rows of the residual stream, the width D padded to DP, a power of two from
16 on; padded columns are zero. Weights stream past it in chunks of outputs.

Legend: R rows of a tile, D width, DP padded width, N outputs of a product.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from jetscale.model.kernels.gpu.embedding import EPSILON

TOKENS = tl.constexpr(0)
"""Rows are the tokens of the batch."""
CLASSES = tl.constexpr(1)
"""Rows are the class tokens of the batch, one a jet."""

NOTHING = tl.constexpr(0)
"""No block follows (or, backward, none has been done): the head does."""
BLOCK = tl.constexpr(1)
"""A block follows that makes queries, keys and values of every token."""
LAST = tl.constexpr(2)
"""The last block follows: keys and values of every token, queries of class tokens alone."""


@triton.jit
def normed(x, d, D: tl.constexpr):
    """(x - mean) / sd of each row, zero in padded columns, and 1 / sd; arXiv:1607.06450."""
    centred = tl.where((d < D)[None, :], x - (tl.sum(x, 1) / D)[:, None], 0.0)
    over_sd = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / D + EPSILON)
    return centred * over_sd[:, None], over_sd


@triton.jit
def norm_backward(d_normed, XHAT, OVER_SD, norm, rows, used, d, D: tl.constexpr):
    """Gradient of x from that of xhat n: (g - mean g - xhat mean(g xhat)) / sd with g = n d_normed."""
    mask = used[:, None] & (d < D)[None, :]
    xhat = tl.load(XHAT + rows[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
    over_sd = tl.load(OVER_SD + rows, mask=used, other=0.0)
    g = d_normed * norm[None, :]
    mean_g = (tl.sum(g, 1) / D)[:, None]
    mean_gx = (tl.sum(g * xhat, 1) / D)[:, None]
    return tl.where(mask, over_sd[:, None] * (g - mean_g - xhat * mean_gx), 0.0)


@triton.jit
def times_transposed(x, WEIGHT, n, real_n, d, D: tl.constexpr):
    """Product x W^T for the outputs n of a weight (N, D): (R, DP) times (D, chunk), float32."""
    mask = (d < D)[:, None] & real_n[None, :]
    weight = tl.load(WEIGHT + n[None, :] * D + d[:, None], mask=mask, other=0.0)
    return tl.dot(x, weight, input_precision="ieee")


@triton.jit
def add_times(total, y, WEIGHT, n, real_n, d, D: tl.constexpr):
    """Sum total + y W for the outputs n of a weight (N, D): (R, chunk) times (chunk, D), float32."""
    mask = real_n[:, None] & (d < D)[None, :]
    weight = tl.load(WEIGHT + n[:, None] * D + d[None, :], mask=mask, other=0.0)
    return tl.dot(y, weight, total, input_precision="ieee")
