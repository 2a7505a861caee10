"""Tokens from the raw constituents of a batch, and the gradient of the weights that make them.

A constituent's token is W x + b + table[pid] with x = (stored half - centre) scale, a jet's class token is a
learnt vector (`jetscale.model.operations.tokens`).

Shapes: as in `buffers`; D width, R rows of a tile, V = F + identities + 2 vectors that span the tokens.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from jetscale.model.kernels.gpu.buffers import JetBuffers

EMBEDDING_PARTS = 64
"""Partial sums of the gradients of the weights that make tokens."""

EPSILON = tl.constexpr(1e-5)  # of torch.nn.LayerNorm
JETS = tl.constexpr(128)  # jets whose first rows are compared with a tile's at once


@dataclass(frozen=True)
class Embedding:
    """The weights that make tokens, or what belongs to each of them.

    Attributes
    ----------
    weight, bias : (D, F) and (D,) float32
    table : (identities, D) float32 vectors of the identities; None without
    class_token : (D,) float32
    """

    weight: Tensor
    bias: Tensor
    table: Tensor | None
    class_token: Tensor


def embed(
    jets: JetBuffers,
    n_jets: int,
    weights: Embedding,
    norm_weight: Tensor,
    x: Tensor,
    normed: Tensor,
    of_class: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Make the tokens of a batch, and norm them for the first block.

    Parameters
    ----------
    jets, n_jets : the chunk, and jets of a batch B
    weights : see `Embedding`
    norm_weight : (D,) float32 scale of the first block's norm
    x : (rows, D) float32 tokens, written to in rows below S
    normed : (rows, D), written to, zero in rows from S on
    of_class : (B, D) float32 and (B, D), written to: the class tokens' rows of `x` and of `normed`
    """
    n_rows, width = x.shape
    padded = triton.next_power_of_2(width)
    tile = max(1, 4_096 // padded)
    table = weights.bias if weights.table is None else weights.table
    class_x, class_normed = of_class or (x, normed)
    _embed[(triton.cdiv(n_rows, tile),)](
        jets.x, jets.pid, jets.side, jets.centre, jets.scale, jets.offsets, jets.first,
        weights.weight, weights.bias, table, weights.class_token, norm_weight,
        x, normed, class_x, class_normed, n_rows,
        B=n_jets, F=jets.n_features, D=width, DETA=jets.deta_column, HAS_PID=weights.table is not None,
        CLASS=of_class is not None, WIDTH=padded, ROWS=tile, num_warps=4,
    )  # fmt: skip


def embed_backward(jets: JetBuffers, n_jets: int, d_x: Tensor, parts: Embedding) -> None:
    """Gradient of the weights that make tokens.

    Parameters
    ----------
    jets, n_jets : as `embed` took them
    d_x : (rows, D) float32 gradient of the tokens
    parts : (P, size) float32 partial sums of the gradient of each weight, written to
    """
    n_rows, width = d_x.shape
    n_identities = 0 if parts.table is None else parts.table.shape[1] // width
    n_vectors = jets.n_features + n_identities + 2
    columns = min(128, max(16, int(triton.next_power_of_2(width))))
    table = parts.bias if parts.table is None else parts.table
    _embed_backward[(len(parts.bias), triton.cdiv(width, columns))](
        jets.x, jets.pid, jets.side, jets.centre, jets.scale, jets.offsets, jets.first, d_x,
        parts.weight, parts.bias, table, parts.class_token, n_rows,
        B=n_jets, F=jets.n_features, D=width, DETA=jets.deta_column, IDENTITIES=n_identities,
        VECTORS=max(16, int(triton.next_power_of_2(n_vectors))), COLUMNS=columns, ROWS=32, num_warps=4,
    )  # fmt: skip


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


@triton.jit
def normalised(x, wide, D: tl.constexpr):
    """(x - mean) / sd of each row, and 1 / sd; x (R, padded D) float32 is zero where `wide` is false."""
    mean = tl.sum(x, 1) / D
    centred = tl.where(wide[None, :], x - mean[:, None], 0.0)
    over_sd = tl.rsqrt(tl.sum(centred * centred, 1) / D + EPSILON)
    return centred * over_sd[:, None], over_sd


@triton.jit
def _embed(
    X, PID, SIDE, CENTRE, SCALE, OFFSETS, FIRST, WEIGHT, BIAS, TABLE, CLASS_TOKEN, NORM,
    TOKENS, NORMED, CLASS_TOKENS, CLASS_NORMED, n_rows,
    B: tl.constexpr, F: tl.constexpr, D: tl.constexpr, DETA: tl.constexpr, HAS_PID: tl.constexpr,
    CLASS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    wide = d < D
    tokens = token_rows(
        X, PID, SIDE, CENTRE, SCALE, OFFSETS, FIRST, WEIGHT, BIAS, TABLE, CLASS_TOKEN, row, d,
        B, F, D, DETA, HAS_PID,
    )  # fmt: skip
    scaled, _ = normalised(tokens, wide, D)
    normed = scaled * tl.load(NORM + d, mask=wide, other=0.0)[None, :]  # zero where tokens are
    jet, in_use, is_class, _ = constituents_of_rows(OFFSETS, FIRST, row, B)
    at = row[:, None] * D + d[None, :]
    tl.store(TOKENS + at, tokens, mask=in_use[:, None] & wide[None, :])
    tl.store(NORMED + at, normed.to(NORMED.dtype.element_ty), mask=(row < n_rows)[:, None] & wide[None, :])
    if CLASS:
        at_class = jet[:, None] * D + d[None, :]
        class_mask = (in_use & is_class)[:, None] & wide[None, :]
        tl.store(CLASS_TOKENS + at_class, tokens, mask=class_mask)
        tl.store(CLASS_NORMED + at_class, normed.to(CLASS_NORMED.dtype.element_ty), mask=class_mask)


@triton.jit
def _embed_backward(
    X, PID, SIDE, CENTRE, SCALE, OFFSETS, FIRST, D_TOKENS, D_WEIGHT, D_BIAS, D_TABLE, D_CLASS, n_rows,
    B: tl.constexpr, F: tl.constexpr, D: tl.constexpr, DETA: tl.constexpr, IDENTITIES: tl.constexpr,
    VECTORS: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A token is z V, V being the weights one above the other: dV = z^T dx, one product for all of them.

    Columns of z (R, V): F features, a one for the row's identity, a one for a constituent (the bias), a one
    for a class token.
    """
    program = tl.program_id(0)
    v = tl.arange(0, VECTORS)
    d = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_feature = v < F
    centre = tl.load(CENTRE + v, mask=is_feature, other=0.0)
    scale = tl.load(SCALE + v, mask=is_feature, other=0.0)
    first = tl.load(FIRST)
    sums = tl.zeros([VECTORS, COLUMNS], tl.float32)
    for lowest in range(program * ROWS, n_rows, tl.num_programs(0) * ROWS):
        row = lowest + tl.arange(0, ROWS)
        jet, in_use, is_class, constituent = constituents_of_rows(OFFSETS, FIRST, row, B)
        real = in_use & (is_class == 0)
        feature_mask = real[:, None] & is_feature[None, :]
        raw = tl.load(X + constituent[:, None] * F + v[None, :], mask=feature_mask, other=0.0)
        z = (raw.to(tl.float32) - centre[None, :]) * scale[None, :]
        if DETA >= 0:
            side = tl.load(SIDE + first + jet, mask=real, other=1).to(tl.float32)
            z = tl.where((v == DETA)[None, :], z * side[:, None], z)
        one = v[None, :] == F + IDENTITIES
        if IDENTITIES > 0:
            pid = tl.load(PID + constituent, mask=real, other=0).to(tl.int32)
            one = one | (v[None, :] == F + pid[:, None])
        z = tl.where(is_feature[None, :], z, one.to(tl.float32))
        z = tl.where(real[:, None], z, 0.0)
        z = tl.where((in_use & is_class)[:, None] & (v == F + IDENTITIES + 1)[None, :], 1.0, z)
        mask = in_use[:, None] & (d < D)[None, :]
        d_tokens = tl.load(D_TOKENS + row[:, None] * D + d[None, :], mask=mask, other=0.0)
        # tf32 has ten bits of mantissa, bfloat16 seven
        sums += tl.dot(tl.trans(z), d_tokens, input_precision="tf32")
    wide = (d < D)[None, :]
    at_weight = D_WEIGHT + program * (D * F) + d[None, :] * F + v[:, None]
    tl.store(at_weight, sums, mask=is_feature[:, None] & wide)
    if IDENTITIES > 0:
        is_identity = (v >= F) & (v < F + IDENTITIES)
        at_table = D_TABLE + program * (IDENTITIES * D) + (v - F)[:, None] * D + d[None, :]
        tl.store(at_table, sums, mask=is_identity[:, None] & wide)
    at_row = program * D + d[None, :] + (v * 0)[:, None]
    tl.store(D_BIAS + at_row, sums, mask=(v == F + IDENTITIES)[:, None] & wide)
    tl.store(D_CLASS + at_row, sums, mask=(v == F + IDENTITIES + 1)[:, None] & wide)
