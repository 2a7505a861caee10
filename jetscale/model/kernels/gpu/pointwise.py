"""Norms, residual sums and SwiGLU of wide models, forward and backward, between the matrix products.

The residual stream and its gradient are float32; what a product reads is written in the products' dtype.
Rows from S on belong to no jet: what a product would add up over rows is written as zero there.

Shapes: as in `buffers`; D width, M = 2 D, R rows of a tile, P programs that each leave a partial sum.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from jetscale.model.kernels.gpu.buffers import JetBuffers
from jetscale.model.kernels.gpu.embedding import constituents_of_rows, normalised, tokens_in_use

NORM_PARTS = 256
"""Partial sums of a norm's gradient, one a program: about two programs a multiprocessor."""


@dataclass(frozen=True)
class Rows:
    """Which rows a launch acts on.

    Attributes
    ----------
    jets, n_jets : the chunk, and jets of a batch B
    n_rows : rows of the tensors: the capacity, or B for tensors of class tokens alone
    """

    jets: JetBuffers
    n_jets: int
    n_rows: int

    @property
    def ragged(self) -> bool:
        """Whether the rows in use are those below S; all are where there is one a jet."""
        return self.n_rows != self.n_jets


def add_norm(
    rows: Rows,
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    total: Tensor,
    normed: Tensor,
    of_class: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Add a branch to the residual stream and norm the sum.

    Parameters
    ----------
    rows : see `Rows`
    x : (rows, D) float32
    branch : (rows, D)
    weight : (D,) float32 scale of the norm
    total : (rows, D) float32, x + branch, written to in rows in use
    normed : (rows, D), written to, zero in rows not in use
    of_class : (B, D) float32 and (B, D), written to: the class tokens' rows of `total` and of `normed`
    """
    width = x.shape[1]
    tile, n_warps = _tile(width)
    class_total, class_normed = of_class or (total, normed)
    _add_norm[(triton.cdiv(rows.n_rows, tile),)](
        x, branch, weight, total, normed, class_total, class_normed,
        rows.jets.offsets, rows.jets.first, rows.n_rows,
        B=rows.n_jets, RAGGED=rows.ragged, CLASS=of_class is not None,
        D=width, WIDTH=triton.next_power_of_2(width), ROWS=tile, num_warps=n_warps,
    )  # fmt: skip


def norm_backward(
    rows: Rows,
    x: Tensor,
    weight: Tensor,
    d_normed: Tensor,
    d_x: Tensor,
    d_half: Tensor,
    d_weight: Tensor,
    of_class: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Gradient of the residual stream before a norm: its own, and what comes through the norm.

    Parameters
    ----------
    rows : see `Rows`
    x : (rows, D) float32 input of the norm
    weight : (D,) float32 scale of the norm
    d_normed : (rows, D) gradient of the norm's output
    d_x : (rows, D) float32 gradient of the residual stream after the branch; that before it is added in place
    d_half : (rows, D), the new `d_x` in the products' dtype; both are written as zero in rows not in use
    d_weight : (P, D) float32 partial sums, written to
    of_class : (B, D) and (B, D) float32: what the class tokens' rows of `d_normed` get besides, and the
        gradient of the residual stream, which is zero in all other rows; `d_x` is only written to then
    """
    width = x.shape[1]
    tile, n_warps = _tile(width)
    d_class_normed, d_class = of_class or (d_normed, d_x)
    _norm_backward[(len(d_weight),)](
        x, weight, d_normed, d_x, d_half, d_weight, d_class_normed, d_class,
        rows.jets.offsets, rows.jets.first, rows.n_rows,
        B=rows.n_jets, RAGGED=rows.ragged, CLASS=of_class is not None,
        D=width, WIDTH=triton.next_power_of_2(width), ROWS=tile, num_warps=n_warps,
    )  # fmt: skip


def swiglu(rows: Rows, gate_up: Tensor, hidden: Tensor) -> None:
    """silu(gate) up.

    Parameters
    ----------
    rows : see `Rows`
    gate_up : (rows, 2 M)
    hidden : (rows, M), written to in rows in use
    """
    grid, sizes = _elementwise(rows, hidden.shape[1])
    _swiglu[grid](gate_up, hidden, rows.jets.offsets, rows.jets.first, rows.n_rows, **sizes)


def swiglu_backward(rows: Rows, gate_up: Tensor, d_hidden: Tensor, d_gate_up: Tensor) -> None:
    """Gradient of `swiglu`.

    Parameters
    ----------
    rows, gate_up : as `swiglu` took them
    d_hidden : (rows, M) gradient of its result
    d_gate_up : (rows, 2 M), written to in rows in use
    """
    grid, sizes = _elementwise(rows, d_hidden.shape[1])
    pointers = gate_up, d_hidden, d_gate_up, rows.jets.offsets, rows.jets.first
    _swiglu_backward[grid](*pointers, rows.n_rows, **sizes)


def _tile(width: int) -> tuple[int, int]:
    """Rows of a tile and warps of a program that norm whole rows: some 4,096 numbers, 32 a thread."""
    return max(1, 4_096 // int(triton.next_power_of_2(width))), 4


def _elementwise(rows: Rows, n_hidden: int) -> tuple[tuple[int, int], dict[str, int]]:
    columns = min(256, int(triton.next_power_of_2(n_hidden)))
    n_rows = 2_048 // columns
    grid = triton.cdiv(rows.n_rows, n_rows), triton.cdiv(n_hidden, columns)
    return grid, {
        "B": rows.n_jets, "RAGGED": rows.ragged, "M": n_hidden, "COLUMNS": columns, "ROWS": n_rows,
        "num_warps": 4,
    }  # fmt: skip


@triton.jit
def rows_in_use(OFFSETS, FIRST, n_rows, B: tl.constexpr, RAGGED: tl.constexpr):
    """Number of rows that belong to a jet."""
    used = n_rows
    if RAGGED:
        used = tokens_in_use(OFFSETS, FIRST, B)
    return used


@triton.jit
def _add_norm(
    X, BRANCH, WEIGHT, TOTAL, NORMED, CLASS_TOTAL, CLASS_NORMED, OFFSETS, FIRST, n_rows,
    B: tl.constexpr, RAGGED: tl.constexpr, CLASS: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    used = row < rows_in_use(OFFSETS, FIRST, n_rows, B, RAGGED)
    wide = d < D
    at = row[:, None] * D + d[None, :]
    mask = used[:, None] & wide[None, :]
    x = tl.load(X + at, mask=mask, other=0.0)
    x += tl.load(BRANCH + at, mask=mask, other=0.0).to(tl.float32)
    scaled, _ = normalised(x, wide, D)
    normed = scaled * tl.load(WEIGHT + d, mask=wide, other=0.0)[None, :]  # zero where x is
    tl.store(TOTAL + at, x, mask=mask)
    tl.store(NORMED + at, normed.to(NORMED.dtype.element_ty), mask=(row < n_rows)[:, None] & wide[None, :])
    if CLASS:
        jet, in_use, is_class, _ = constituents_of_rows(OFFSETS, FIRST, row, B)
        at_class = jet[:, None] * D + d[None, :]
        class_mask = (in_use & is_class)[:, None] & wide[None, :]
        tl.store(CLASS_TOTAL + at_class, x, mask=class_mask)
        tl.store(CLASS_NORMED + at_class, normed.to(CLASS_NORMED.dtype.element_ty), mask=class_mask)


@triton.jit
def _norm_backward(
    X, WEIGHT, D_NORMED, D_X, D_HALF, D_WEIGHT, D_CLASS_NORMED, D_CLASS, OFFSETS, FIRST, n_rows,
    B: tl.constexpr, RAGGED: tl.constexpr, CLASS: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """With y = x_hat w: dx = (g - mean(g) - x_hat mean(g x_hat)) / sd, g = dy w; dw = sum of dy x_hat."""
    program, d = tl.program_id(0), tl.arange(0, WIDTH)
    n_used = rows_in_use(OFFSETS, FIRST, n_rows, B, RAGGED)
    wide = d < D
    weight = tl.load(WEIGHT + d, mask=wide, other=0.0)
    d_weight = tl.zeros([ROWS, WIDTH], tl.float32)  # a thread's own rows: added up once, at the end
    for lowest in range(program * ROWS, n_rows, tl.num_programs(0) * ROWS):
        row = lowest + tl.arange(0, ROWS)
        at = row[:, None] * D + d[None, :]
        mask = (row < n_used)[:, None] & wide[None, :]
        d_normed = tl.load(D_NORMED + at, mask=mask, other=0.0).to(tl.float32)
        if CLASS:
            jet, in_use, is_class, _ = constituents_of_rows(OFFSETS, FIRST, row, B)
            at_class = jet[:, None] * D + d[None, :]
            class_mask = (in_use & is_class)[:, None] & wide[None, :]
            d_normed += tl.load(D_CLASS_NORMED + at_class, mask=class_mask, other=0.0).to(tl.float32)
            d_x = tl.load(D_CLASS + at_class, mask=class_mask, other=0.0)
        else:
            d_x = tl.load(D_X + at, mask=mask, other=0.0)
        scaled, over_sd = normalised(tl.load(X + at, mask=mask, other=0.0), wide, D)
        d_weight += d_normed * scaled
        g = d_normed * weight[None, :]
        mean_g, mean_gx = tl.sum(g, 1) / D, tl.sum(g * scaled, 1) / D
        d_x += (g - mean_g[:, None] - scaled * mean_gx[:, None]) * over_sd[:, None]  # zero where unused
        inside = (row < n_rows)[:, None] & wide[None, :]
        tl.store(D_X + at, d_x, mask=inside)
        tl.store(D_HALF + at, d_x.to(D_HALF.dtype.element_ty), mask=inside)
    tl.store(D_WEIGHT + program * D + d, tl.sum(d_weight, 0), mask=wide)


@triton.jit
def _swiglu(
    GATE_UP, HIDDEN, OFFSETS, FIRST, n_rows,
    B: tl.constexpr, RAGGED: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    m = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    used = row < rows_in_use(OFFSETS, FIRST, n_rows, B, RAGGED)
    mask = used[:, None] & (m < M)[None, :]
    at = row[:, None] * (2 * M) + m[None, :]
    gate = tl.load(GATE_UP + at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(GATE_UP + at + M, mask=mask, other=0.0).to(tl.float32)
    hidden = gate * tl.sigmoid(gate) * up
    tl.store(HIDDEN + row[:, None] * M + m[None, :], hidden.to(HIDDEN.dtype.element_ty), mask=mask)


@triton.jit
def _swiglu_backward(
    GATE_UP, D_HIDDEN, D_GATE_UP, OFFSETS, FIRST, n_rows,
    B: tl.constexpr, RAGGED: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """With s = sigmoid(gate): silu' = s (1 + gate (1 - s))."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    m = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    used = row < rows_in_use(OFFSETS, FIRST, n_rows, B, RAGGED)
    mask = used[:, None] & (m < M)[None, :]
    at = row[:, None] * (2 * M) + m[None, :]
    gate = tl.load(GATE_UP + at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(GATE_UP + at + M, mask=mask, other=0.0).to(tl.float32)
    d_hidden = tl.load(D_HIDDEN + row[:, None] * M + m[None, :], mask=mask, other=0.0).to(tl.float32)
    s = tl.sigmoid(gate)
    d_gate, d_up = d_hidden * up * s * (1 + gate * (1 - s)), d_hidden * gate * s
    tl.store(D_GATE_UP + at, d_gate.to(D_GATE_UP.dtype.element_ty), mask=mask)
    tl.store(D_GATE_UP + at + M, d_up.to(D_GATE_UP.dtype.element_ty), mask=mask)
