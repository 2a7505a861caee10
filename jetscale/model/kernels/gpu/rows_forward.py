"""Forward kernels of a narrow network: everything between two attentions in one launch, row by row.

Outputs that the backward pass or a weight's gradient needs are stored only with KEEP.

Legend: S tokens, B jets, R rows of a tile, D width, DP padded width, M = 2 D.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from jetscale.model.kernels.gpu.embedding import (
    constituents_of_rows,
    token_rows,
    tokens_in_use,
)
from jetscale.model.kernels.gpu.rows import LAST, NOTHING, TOKENS, normed, times_transposed


@triton.jit
def embed_kernel(
    RAW, PID, SIDE, CENTRE, SCALE, OFFSETS, FIRST, WEIGHT, BIAS, TABLE, CLASS, INPUTS, X,
    NORM, QKV_WEIGHT, XHAT, OVER_SD, QKV, Q, XHAT_CLASSES, X_CLASSES,
    B: tl.constexpr, F: tl.constexpr, N_PID: tl.constexpr, DETA: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr,
    PIDS: tl.constexpr, BIASES: tl.constexpr, TOKEN: tl.constexpr, COLUMNS: tl.constexpr, VP: tl.constexpr,
    NEXT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Tokens of the batch, and norm, queries, keys and values of the first block.

    RAW to FIRST are those of `JetBuffers`, WEIGHT to CLASS as in `embedding.token_rows`. X (S, D) float32
    takes the tokens; from NORM on as in `_start_block`. With KEEP, INPUTS (S, V) takes what a token is a sum
    over: from column 0 the features, from PIDS a one for its identity, in BIASES a one for a constituent
    and in TOKEN a one for a class token; V is COLUMNS, padded to VP.
    """
    low = tl.program_id(0) * R
    if low < tokens_in_use(OFFSETS, FIRST, B):
        rows = low + tl.arange(0, R)
        d = tl.arange(0, DP)
        used = rows < tokens_in_use(OFFSETS, FIRST, B)
        x = token_rows(
            RAW, PID, SIDE, CENTRE, SCALE, OFFSETS, FIRST, WEIGHT, BIAS, TABLE, CLASS, rows, d,
            B, F, D, DETA, N_PID > 0,
        )  # fmt: skip
        if KEEP:
            _store_inputs(
                RAW, PID, SIDE, CENTRE, SCALE, OFFSETS, FIRST, INPUTS, rows,
                B, F, N_PID, DETA, PIDS, BIASES, TOKEN, COLUMNS, VP,
            )  # fmt: skip
        if NEXT != LAST:
            tl.store(X + rows[:, None] * D + d[None, :], x, mask=used[:, None] & (d < D)[None, :])
        _start_block(
            x, rows, used, d, OFFSETS, FIRST, NORM, QKV_WEIGHT, XHAT, OVER_SD, QKV, Q,
            XHAT_CLASSES, X_CLASSES, B, D, CHUNK, NEXT, KEEP,
        )  # fmt: skip


@triton.jit
def _store_inputs(
    RAW, PID, SIDE, CENTRE, SCALE, OFFSETS, FIRST, INPUTS, rows,
    B: tl.constexpr, F: tl.constexpr, N_PID: tl.constexpr, DETA: tl.constexpr,
    PIDS: tl.constexpr, BIASES: tl.constexpr, TOKEN: tl.constexpr, COLUMNS: tl.constexpr, VP: tl.constexpr,
):  # fmt: skip
    """Store the inputs of a tile's tokens, see `embed_kernel`."""
    v = tl.arange(0, VP)
    jet, used, is_class, constituent = constituents_of_rows(OFFSETS, FIRST, rows, B)
    real = used & (is_class == 0)
    mask = real[:, None] & (v < F)[None, :]
    value = tl.load(RAW + constituent[:, None] * F + v[None, :], mask=mask, other=0.0).to(tl.float32)
    centre = tl.load(CENTRE + v, mask=v < F, other=0.0)
    scale = tl.load(SCALE + v, mask=v < F, other=0.0)
    value = tl.where(mask, (value - centre[None, :]) * scale[None, :], 0.0)
    if DETA >= 0:
        side = tl.load(SIDE + tl.load(FIRST) + jet, mask=real, other=1).to(tl.float32)
        value = tl.where((v == DETA)[None, :], value * side[:, None], value)
    if N_PID > 0:
        pid = tl.load(PID + constituent, mask=real, other=0).to(tl.int32)
        value = tl.where(real[:, None] & (v[None, :] == PIDS + pid[:, None]), 1.0, value)
    value = tl.where(real[:, None] & (v == BIASES)[None, :], 1.0, value)
    value = tl.where((used & is_class)[:, None] & (v == TOKEN)[None, :], 1.0, value)
    at = INPUTS + rows[:, None] * COLUMNS + v[None, :]
    tl.store(at, value.to(INPUTS.dtype.element_ty), mask=used[:, None] & (v < COLUMNS)[None, :])


@triton.jit
def rows_kernel(
    OFFSETS, FIRST, ATTENDED, X, OUT_WEIGHT,
    NORM, GATE_UP_WEIGHT, DOWN_WEIGHT, XHAT, OVER_SD, GATE_UP,
    NEXT_NORM, QKV_WEIGHT, NEXT_XHAT, NEXT_OVER_SD, QKV, Q, XHAT_CLASSES, X_CLASSES,
    B: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr,
    ROWS: tl.constexpr, NEXT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """All of a block after its attention, and the next block up to its attention.

    x + ATTENDED W_out^T, then + SwiGLU(norm(x)), then norm, queries, keys and values of the next block
    (`_start_block`). X (rows, D) float32 is the residual stream, changed in place. With KEEP, XHAT (rows, D),
    GATE_UP (rows, 4 D) and OVER_SD (rows,) take what the backward pass needs.
    """
    low = tl.program_id(0) * R
    n_rows = B
    if ROWS == TOKENS:
        n_rows = tokens_in_use(OFFSETS, FIRST, B)
    if low < n_rows:
        rows = low + tl.arange(0, R)
        d = tl.arange(0, DP)
        used = rows < n_rows
        mask = used[:, None] & (d < D)[None, :]
        at = rows[:, None] * D + d[None, :]
        attended = tl.load(ATTENDED + at, mask=mask, other=0.0)
        x = tl.load(X + at, mask=mask, other=0.0)
        x += times_transposed(attended, OUT_WEIGHT, d, d < D, d, D)
        x = _feed_forward(
            x, rows, used, d, NORM, GATE_UP_WEIGHT, DOWN_WEIGHT, XHAT, OVER_SD, GATE_UP, D, CHUNK, KEEP
        )
        if NEXT != LAST:
            tl.store(X + at, x, mask=mask)
        if NEXT != NOTHING:
            _start_block(
                x, rows, used, d, OFFSETS, FIRST, NEXT_NORM, QKV_WEIGHT, NEXT_XHAT, NEXT_OVER_SD,
                QKV, Q, XHAT_CLASSES, X_CLASSES, B, D, CHUNK, NEXT, KEEP,
            )  # fmt: skip


@triton.jit
def _feed_forward(
    x, rows, used, d, NORM, GATE_UP_WEIGHT, DOWN_WEIGHT, XHAT, OVER_SD, GATE_UP,
    D: tl.constexpr, CHUNK: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Branch x + W_down (silu(gate) up) with [gate, up] = W norm(x): Shazeer, arXiv:2002.05202, equation 5.

    The hidden layer passes in chunks: each is made, multiplied by its part of W_down and forgotten.
    """
    dtype = GATE_UP_WEIGHT.dtype.element_ty
    M: tl.constexpr = 2 * D
    xhat, over_sd = normed(x, d, D)
    wide = d < D
    if KEEP:
        tl.store(XHAT + rows[:, None] * D + d[None, :], xhat.to(dtype), mask=used[:, None] & wide[None, :])
        tl.store(OVER_SD + rows, over_sd, mask=used)
    y = (xhat * tl.load(NORM + d, mask=wide, other=0.0)[None, :]).to(dtype)
    for start in range(0, M, CHUNK):
        m = start + tl.arange(0, CHUNK)
        # rounded as they are stored: the backward pass sees the values of the forward pass
        gate = times_transposed(y, GATE_UP_WEIGHT, m, m < M, d, D).to(dtype)
        up = times_transposed(y, GATE_UP_WEIGHT + M * D, m, m < M, d, D).to(dtype)
        if KEEP:
            mask = used[:, None] & (m < M)[None, :]
            at = GATE_UP + rows[:, None] * (2 * M) + m[None, :]
            tl.store(at, gate, mask=mask)
            tl.store(at + M, up, mask=mask)
        gate = gate.to(tl.float32)
        hidden = (gate * tl.sigmoid(gate) * up.to(tl.float32)).to(dtype)
        # W_down (D, M), read as its transpose (chunk, D)
        down = tl.load(
            DOWN_WEIGHT + d[None, :] * M + m[:, None], mask=(m < M)[:, None] & wide[None, :], other=0.0
        )
        x = tl.dot(hidden, down, x, input_precision="ieee")
    return x


@triton.jit
def _start_block(
    x, rows, used, d, OFFSETS, FIRST, NORM, QKV_WEIGHT, XHAT, OVER_SD, QKV, Q, XHAT_CLASSES, X_CLASSES,
    B: tl.constexpr, D: tl.constexpr, CHUNK: tl.constexpr, NEXT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Norm, queries, keys and values of the rows x for the block that follows.

    For a BLOCK, QKV (S, 3 D) takes all three. For the LAST, QKV (S, 2 D) takes keys and values; queries go to
    Q (B, D), one row a jet, and X_CLASSES (B, D) float32 takes the class tokens' part of the residual stream,
    all that is left of it from here on.
    With KEEP, XHAT (S, D), OVER_SD (S,) and, for the LAST, XHAT_CLASSES (B, D) are stored too.
    """
    dtype = QKV_WEIGHT.dtype.element_ty
    wide = d < D
    mask = used[:, None] & wide[None, :]
    xhat, over_sd = normed(x, d, D)
    if KEEP:
        tl.store(XHAT + rows[:, None] * D + d[None, :], xhat.to(dtype), mask=mask)
        tl.store(OVER_SD + rows, over_sd, mask=used)
    y = (xhat * tl.load(NORM + d, mask=wide, other=0.0)[None, :]).to(dtype)
    N: tl.constexpr = 2 * D if NEXT == LAST else 3 * D
    skipped: tl.constexpr = 3 * D - N
    for start in range(0, N, CHUNK):
        n = start + tl.arange(0, CHUNK)
        z = times_transposed(y, QKV_WEIGHT + skipped * D, n, n < N, d, D).to(dtype)
        tl.store(QKV + rows[:, None] * N + n[None, :], z, mask=used[:, None] & (n < N)[None, :])
    if NEXT == LAST:
        jet, _, is_class, _ = constituents_of_rows(OFFSETS, FIRST, rows, B)
        mask = (used & is_class)[:, None] & wide[None, :]
        at = jet[:, None] * D + d[None, :]
        q = times_transposed(y, QKV_WEIGHT, d, wide, d, D).to(dtype)
        tl.store(Q + at, q, mask=mask)
        tl.store(X_CLASSES + at, x, mask=mask)
        if KEEP:
            tl.store(XHAT_CLASSES + at, xhat.to(dtype), mask=mask)
