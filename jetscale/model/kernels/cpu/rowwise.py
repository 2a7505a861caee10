"""SwiGLU and layer norm, forward and backward, row by row, for float32 and widths that are multiples of 8."""

from __future__ import annotations

import math

import numpy as np

from jetscale.common.compiled import compiled as kernel
from jetscale.model.kernels.cpu.jit import Floats
from jetscale.model.kernels.cpu.simd import (
    LANES,
    add,
    divide,
    exp2,
    load,
    maximum,
    multiply,
    multiply_add,
    splat,
    store,
    subtract,
    total,
)

ZERO, ONE = np.float32(0), np.float32(1)
MINUS_LOG2_E = np.float32(-math.log2(math.e))
# Below this the gate is shut: sigmoid(-80) = 2e-35, and its inverse still fits a float32.
SHUT = np.float32(-80)
BLOCK = 256  # rows whose share of a weight's gradient is summed up together: short sums round less


@kernel
def swiglu(first: int, last: int, gate_up: Floats, columns: int, out: Floats) -> None:
    """Multiply silu(gate) and up, row by row.

    Parameters
    ----------
    first, last : rows `first` to `last` - 1 are computed
    gate_up : (rows, 2 M) gate, then up
    columns : M
    out : (rows, M) result
    """
    one, shut, rate = splat(ONE), splat(SHUT), splat(MINUS_LOG2_E)
    for row in range(first, last):
        for column in range(0, columns, LANES):
            gate = load(gate_up, 2 * row * columns + column)
            up = load(gate_up, (2 * row + 1) * columns + column)
            denominator = add(one, exp2(multiply(maximum(shut, gate), rate)))
            store(out, row * columns + column, divide(multiply(gate, up), denominator))


@kernel
def swiglu_backward(
    first: int, last: int, gate_up: Floats, columns: int, d_out: Floats, out: Floats, d_gate_up: Floats
) -> None:
    """Gradient of `swiglu`, and its result once more, which therefore need not be kept.

    Parameters
    ----------
    first, last, gate_up, columns : as in `swiglu`
    d_out : (rows, M) gradient of its result
    out : (rows, M) the result is written here
    d_gate_up : (rows, 2 M) the gradients of gate and up are written here
    """
    one, shut, rate = splat(ONE), splat(SHUT), splat(MINUS_LOG2_E)
    for row in range(first, last):
        for column in range(0, columns, LANES):
            at_gate = 2 * row * columns + column
            at_up = at_gate + columns
            gate, up, d = load(gate_up, at_gate), load(gate_up, at_up), load(d_out, row * columns + column)
            sigmoid = divide(one, add(one, exp2(multiply(maximum(shut, gate), rate))))
            silu = multiply(gate, sigmoid)
            slope = multiply_add(silu, subtract(one, sigmoid), sigmoid)
            store(out, row * columns + column, multiply(silu, up))
            store(d_gate_up, at_gate, multiply(multiply(d, up), slope))
            store(d_gate_up, at_up, multiply(d, silu))


@kernel
def layer_norm(
    first: int,
    last: int,
    x: Floats,
    columns: int,
    weight: Floats,
    eps: float,
    out: Floats,
    means: Floats,
    over_sds: Floats,
) -> None:
    """Norm each row: (x - mean) / sqrt(variance + eps) weight.

    Parameters
    ----------
    first, last : rows `first` to `last` - 1 are computed
    x, columns : (rows, D), and D
    weight, eps : (D,) scale, and what is added to the variance
    out : (rows, D) result
    means, over_sds : (rows,) mean and 1 / sqrt(variance + eps) are written here
    """
    over_columns = ONE / np.float32(columns)
    for row in range(first, last):
        start = row * columns
        sums = splat(ZERO)
        for at in range(start, start + columns, LANES):
            sums = add(sums, load(x, at))
        means[row] = total(sums) * over_columns
        mean = splat(means[row])
        squares = splat(ZERO)
        for at in range(start, start + columns, LANES):
            centred = subtract(load(x, at), mean)
            squares = multiply_add(centred, centred, squares)
        over_sds[row] = ONE / np.sqrt(total(squares) * over_columns + np.float32(eps))
        over_sd = splat(over_sds[row])
        for column in range(0, columns, LANES):
            normed = multiply(subtract(load(x, start + column), mean), over_sd)
            store(out, start + column, multiply(normed, load(weight, column)))


@kernel
def layer_norm_backward(
    first: int,
    last: int,
    x: Floats,
    columns: int,
    weight: Floats,
    means: Floats,
    over_sds: Floats,
    d_out: Floats,
    d_residual: Floats,
    d_x: Floats,
    d_weights: Floats,
) -> None:
    """Gradients of `layer_norm`, for blocks `first` to `last` - 1 of BLOCK rows.

    Parameters
    ----------
    d_residual : gradient of the branch around the norm, added to that of `x`; may be `d_x` itself
    d_x : result, rows of `columns`
    d_weights : (blocks, columns) share of each block in the gradient of `weight`
    """
    over_columns = ONE / np.float32(columns)
    for block in range(first, last):
        d_weights[block * columns : (block + 1) * columns] = ZERO
        for row in range(block * BLOCK, min((block + 1) * BLOCK, len(means))):
            start = row * columns
            mean, over_sd = splat(means[row]), splat(over_sds[row])
            sums, products = splat(ZERO), splat(ZERO)
            for column in range(0, columns, LANES):
                normed = multiply(subtract(load(x, start + column), mean), over_sd)
                d = load(d_out, start + column)
                share = block * columns + column
                store(d_weights, share, multiply_add(d, normed, load(d_weights, share)))
                d_normed = multiply(d, load(weight, column))
                sums = add(sums, d_normed)
                products = multiply_add(d_normed, normed, products)
            mean_d, mean_product = splat(total(sums) * over_columns), splat(total(products) * over_columns)
            for column in range(0, columns, LANES):
                normed = multiply(subtract(load(x, start + column), mean), over_sd)
                d_normed = multiply(load(d_out, start + column), load(weight, column))
                rest = subtract(subtract(d_normed, mean_d), multiply(normed, mean_product))
                at = start + column
                store(d_x, at, multiply_add(rest, over_sd, load(d_residual, at)))


@kernel
def scale_backward(
    first: int,
    last: int,
    d_out: Floats,
    out: Floats,
    width: int,
    x: Floats,
    means: Floats,
    over_sds: Floats,
    columns: int,
    d_x: Floats,
) -> None:
    """Add to `d_x` what flows through 1 / sd(x) of a norm alone, for rows `first` to `last` - 1.

    Parameters
    ----------
    out, d_out : (rows, `width`) something proportional to 1 / sd of its row, and its gradient
    x, means, over_sds : (rows, `columns`) input and statistics of the norm
    d_x : added to
    """
    over_columns = ONE / np.float32(columns)
    for row in range(first, last):
        products = splat(ZERO)
        for at in range(row * width, (row + 1) * width, LANES):
            products = multiply_add(load(d_out, at), load(out, at), products)
        slope = splat(-total(products) * over_sds[row] * over_sds[row] * over_columns)
        mean = splat(means[row])
        for at in range(row * columns, (row + 1) * columns, LANES):
            store(d_x, at, multiply_add(slope, subtract(load(x, at), mean), load(d_x, at)))
