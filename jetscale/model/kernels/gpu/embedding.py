"""Tokens from the raw constituents of a batch, and the gradient of the weights that make them.

A constituent's token is W x + b + table[pid] with x = (stored half - centre) scale, a jet's class token is a
learnt vector (`jetscale.model.operations.tokens`).

Shapes: as in `buffers`; D width, R rows of a tile, V = F + identities + 2 vectors that span the tokens.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

JETS = tl.constexpr(128)  # jets whose first rows are compared with a tile's at once


@triton.jit
def tokens_in_use(OFFSETS, FIRST, B: tl.constexpr):
    """S, tokens of the present batch; later rows belong to no jet."""
    first = tl.load(FIRST)
    return tl.load(OFFSETS + first + B) - tl.load(OFFSETS + first) + B


@triton.jit
def locate_rows(OFFSETS, FIRST, rows, B: tl.constexpr):
    """Jet of each row, (R,) int32 from 0 to B - 1; B - 1 for rows that belong to no jet.

    Counts the jets that start at or before the row: B comparisons a row cost less than a table of rows.
    """
    first = tl.load(FIRST)
    base = tl.load(OFFSETS + first)
    jet = rows * 0 - 1
    for lowest in range(0, B, JETS):
        b = lowest + tl.arange(0, JETS)
        start = tl.load(OFFSETS + first + b, mask=b < B, other=0) - base + b
        before = (start[None, :] <= rows[:, None]) & (b < B)[None, :]
        jet += tl.sum(before.to(tl.int32), 1)
    return jet


@triton.jit
def constituents_of_rows(OFFSETS, FIRST, rows, B: tl.constexpr):
    """What each row of a tile is.

    Returns jet (R,) int32; whether the row is in use, (R,) bool; whether it is a class token, (R,) bool; and
    its constituent in the chunk, (R,) int64, meant only for rows in use that are no class token.
    """
    first = tl.load(FIRST)
    base = tl.load(OFFSETS + first)
    jet = locate_rows(OFFSETS, FIRST, rows, B)
    in_use = rows < tokens_in_use(OFFSETS, FIRST, B)
    start = tl.load(OFFSETS + first + jet) - base + jet
    return jet, in_use, rows == start, (base + rows - jet - 1).to(tl.int64)


@triton.jit
def feature(X, SIDE, CENTRE, SCALE, FIRST, constituent, jet, real, f, F: tl.constexpr, DETA: tl.constexpr):
    """Column f of the standardised inputs, (R,) float32; zero where `real` (R,) is false."""
    x = tl.load(X + constituent * F + f, mask=real, other=0.0).to(tl.float32)
    x = (x - tl.load(CENTRE + f)) * tl.load(SCALE + f)
    if DETA >= 0:
        side = tl.load(SIDE + tl.load(FIRST) + jet, mask=real, other=1).to(tl.float32)
        x = tl.where(f == DETA, x * side, x)
    return tl.where(real, x, 0.0)


@triton.jit
def token_rows(
    X, PID, SIDE, CENTRE, SCALE, OFFSETS, FIRST, WEIGHT, BIAS, TABLE, CLASS, rows, d,
    B: tl.constexpr, F: tl.constexpr, D: tl.constexpr, DETA: tl.constexpr, HAS_PID: tl.constexpr,
):  # fmt: skip
    """Tokens of a tile of rows, (R, padded D) float32: zero in rows not in use and in columns d >= D.

    X to FIRST are those of `JetBuffers`; WEIGHT (D, F), BIAS (D,), TABLE (identities, D), CLASS (D,) float32;
    rows (R,) int32, d = tl.arange(0, padded D). TABLE is not read without HAS_PID.
    """
    jet, in_use, is_class, constituent = constituents_of_rows(OFFSETS, FIRST, rows, B)
    real = in_use & (is_class == 0)
    wide = d < D
    x = tl.where(real[:, None], tl.load(BIAS + d, mask=wide, other=0.0)[None, :], 0.0)
    if HAS_PID:
        pid = tl.load(PID + constituent, mask=real, other=0).to(tl.int32)
        x += tl.load(TABLE + pid[:, None] * D + d[None, :], mask=real[:, None] & wide[None, :], other=0.0)
    for f in range(F):
        value = feature(X, SIDE, CENTRE, SCALE, FIRST, constituent, jet, real, f, F, DETA)
        x += value[:, None] * tl.load(WEIGHT + d * F + f, mask=wide, other=0.0)[None, :]
    token = tl.load(CLASS + d, mask=wide, other=0.0)[None, :]
    return tl.where((in_use & is_class)[:, None], token, x)
