"""Backward kernels of a narrow network: the mirror images of those of `rows_forward`.

Legend: S tokens, B jets, R rows of a tile, D width, DP padded width, M = 2 D. `D_x` is the gradient of x.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from jetscale.model.kernels.gpu.embedding import constituents_of_rows, tokens_in_use
from jetscale.model.kernels.gpu.rows import LAST, NOTHING, TOKENS, add_times, norm_backward


@triton.jit
def rows_backward_kernel(
    OFFSETS, FIRST, D_X, D_OUT,
    D_QKV, D_Q, D_X_CLASSES, NEXT_NORM, QKV_WEIGHT, NEXT_XHAT, NEXT_OVER_SD,
    NORM, GATE_UP_WEIGHT, DOWN_WEIGHT, XHAT, OVER_SD, GATE_UP, HIDDEN, D_MIDDLE,
    OUT_WEIGHT, D_ATTENDED,
    B: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr,
    ROWS: tl.constexpr, NEXT: tl.constexpr, FEED_FORWARD: tl.constexpr,
):  # fmt: skip
    """Gradients of one row tile, from the next block's queries, keys and values to this block's attention.

    D_X (rows, D) float32 is the gradient of the residual stream, changed in place from that of the next
    block's middle to that of this block's middle (between attention and feed-forward). Copies of it in the
    dtype of products are the outputs' gradients that weights need: D_OUT (rows, D) of this block's output,
    D_MIDDLE (rows, D) of its middle. D_ATTENDED (rows, D) goes on to attention's backward pass.

    NEXT as in `_start_block`: from NOTHING, D_X comes from the head (and D_OUT is its copy already); from the
    LAST block, only class tokens have a gradient, D_X_CLASSES (B, D), D_QKV is (S, 2 D) and D_Q (B, D).
    Without FEED_FORWARD the rows are the embedded tokens: D_OUT takes their gradient, and nothing follows.
    """
    low = tl.program_id(0) * R
    n_rows = B
    if ROWS == TOKENS:
        n_rows = tokens_in_use(OFFSETS, FIRST, B)
    if low < n_rows:
        rows = low + tl.arange(0, R)
        d = tl.arange(0, DP)
        wide = d < D
        used = rows < n_rows
        mask = used[:, None] & wide[None, :]
        at = rows[:, None] * D + d[None, :]
        if NEXT == NOTHING:
            d_x = tl.load(D_X + at, mask=mask, other=0.0)
        else:
            d_x = _start_backward(
                rows, used, d, OFFSETS, FIRST, D_X, D_QKV, D_Q, D_X_CLASSES,
                NEXT_NORM, QKV_WEIGHT, NEXT_XHAT, NEXT_OVER_SD, B, D, DP, R, CHUNK, NEXT,
            )  # fmt: skip
            tl.store(D_OUT + at, d_x.to(D_OUT.dtype.element_ty), mask=mask)
        if FEED_FORWARD:
            d_x = _feed_forward_backward(
                d_x, rows, used, d, NORM, GATE_UP_WEIGHT, DOWN_WEIGHT, XHAT, OVER_SD, GATE_UP, HIDDEN,
                D, DP, R, CHUNK,
            )  # fmt: skip
            rounded = d_x.to(D_MIDDLE.dtype.element_ty)
            tl.store(D_X + at, d_x, mask=mask)
            tl.store(D_MIDDLE + at, rounded, mask=mask)
            d_attended = tl.zeros([R, DP], tl.float32)
            d_attended = add_times(d_attended, rounded, OUT_WEIGHT, d, wide, d, D)
            tl.store(D_ATTENDED + at, d_attended.to(D_ATTENDED.dtype.element_ty), mask=mask)


@triton.jit
def _start_backward(
    rows, used, d, OFFSETS, FIRST, D_X, D_QKV, D_Q, D_X_CLASSES, NORM, QKV_WEIGHT, XHAT, OVER_SD,
    B: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr,
    NEXT: tl.constexpr,
):  # fmt: skip
    """Gradient of the residual stream before the next block, see `rows_forward._start_block`."""
    wide = d < D
    N: tl.constexpr = 2 * D if NEXT == LAST else 3 * D
    skipped: tl.constexpr = 3 * D - N
    d_normed = tl.zeros([R, DP], tl.float32)
    for start in range(0, N, CHUNK):
        n = start + tl.arange(0, CHUNK)
        mask = used[:, None] & (n < N)[None, :]
        d_z = tl.load(D_QKV + rows[:, None] * N + n[None, :], mask=mask, other=0.0)
        d_normed = add_times(d_normed, d_z, QKV_WEIGHT + skipped * D, n, n < N, d, D)
    if NEXT == LAST:
        jet, _, is_class, _ = constituents_of_rows(OFFSETS, FIRST, rows, B)
        mask = (used & is_class)[:, None] & wide[None, :]
        at = jet[:, None] * D + d[None, :]
        d_q = tl.load(D_Q + at, mask=mask, other=0.0)
        d_normed = add_times(d_normed, d_q, QKV_WEIGHT, d, wide, d, D)
        d_x = tl.load(D_X_CLASSES + at, mask=mask, other=0.0)
    else:
        d_x = tl.load(D_X + rows[:, None] * D + d[None, :], mask=used[:, None] & wide[None, :], other=0.0)
    norm = tl.load(NORM + d, mask=wide, other=0.0)
    return d_x + norm_backward(d_normed, XHAT, OVER_SD, norm, rows, used, d, D)


@triton.jit
def _feed_forward_backward(
    d_x, rows, used, d, NORM, GATE_UP_WEIGHT, DOWN_WEIGHT, XHAT, OVER_SD, GATE_UP, HIDDEN,
    D: tl.constexpr, DP: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradient of a block's middle from that of its output.

    With s = sigmoid(gate) and h = gate s up: dh/dgate = s (1 + gate (1 - s)) up and dh/dup = gate s.
    GATE_UP (rows, 4 D) is overwritten by its gradient, HIDDEN (rows, 2 D) takes h.
    """
    dtype = GATE_UP_WEIGHT.dtype.element_ty
    M: tl.constexpr = 2 * D
    wide = d < D
    d_out = d_x.to(dtype)
    d_normed = tl.zeros([R, DP], tl.float32)
    for start in range(0, M, CHUNK):
        m = start + tl.arange(0, CHUNK)
        real = m < M
        mask = used[:, None] & real[None, :]
        at = GATE_UP + rows[:, None] * (2 * M) + m[None, :]
        gate = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        up = tl.load(at + M, mask=mask, other=0.0).to(tl.float32)
        # d_out W_down for the hidden channels m: W_down is (D, M)
        down = tl.load(
            DOWN_WEIGHT + d[:, None] * M + m[None, :], mask=wide[:, None] & real[None, :], other=0.0
        )
        d_hidden = tl.dot(d_out, down, input_precision="ieee")
        s = tl.sigmoid(gate)
        silu = gate * s
        tl.store(HIDDEN + rows[:, None] * M + m[None, :], (silu * up).to(dtype), mask=mask)
        d_gate = (d_hidden * up * (s + silu * (1.0 - s))).to(dtype)
        d_up = (d_hidden * silu).to(dtype)
        tl.store(at, d_gate, mask=mask)
        tl.store(at + M, d_up, mask=mask)
        d_normed = add_times(d_normed, d_gate, GATE_UP_WEIGHT, m, real, d, D)
        d_normed = add_times(d_normed, d_up, GATE_UP_WEIGHT + M * D, m, real, d, D)
    norm = tl.load(NORM + d, mask=wide, other=0.0)
    return d_x + norm_backward(d_normed, XHAT, OVER_SD, norm, rows, used, d, D)
