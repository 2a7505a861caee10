"""Eight float32 lanes for numba kernels: the vector, the 8 x 8 tile, and the operations attention needs.

Numba vectorises simple loops by itself, attention with head dimension 8 it does not. Each operation here is
an `@intrinsic` that emits LLVM vector instructions, for any processor that numba supports.

A vector holds 8 floats, a tile 8 vectors, its rows. Memory is a one-dimensional contiguous float32 array and
an index into it; as in C, nothing checks bounds.
"""

# numba has no types: its classes are Any to mypy
# mypy: disable-error-code="misc"

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_TILE = ir.ArrayType(_FLOATS, LANES)

# 2^f for f in [-1/2, 1/2] as a polynomial, relative error below 2e-7
_EXP2 = np.polynomial.Chebyshev.interpolate(np.exp2, 5, domain=[-0.5, 0.5]).convert(
    kind=np.polynomial.Polynomial
)
# Adding 1.5 * 2^23 to a float32 below 2^22 rounds it to an integer, found in the lowest bits.
_ROUNDER = 1.5 * 2**23
_MANTISSA_BITS = 23
_LOWEST_EXPONENT = -126.0

_Emit = Callable[..., Any]


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Float32x8")


class _Tile(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Float32x8x8")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _FLOATS)


@register_model(_Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _TILE)


vector, tile, memory, index = _Vector(), _Tile(), types.float32[::1], types.intp


def _operation(result: Any, *arguments: Any) -> Callable[[_Emit], Any]:
    """Make an operation of `emit(builder, *values)`; memory and the index after it arrive as one pointer."""

    def decorate(emit: _Emit) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values: list[Any] = []
            before = None
            for kind, value in zip(signature.args, args, strict=True):
                if kind == memory:
                    values.append(context.make_array(kind)(context, builder, value).data)
                elif before == memory:
                    values[-1] = builder.gep(values[-1], [value])
                else:
                    values.append(value)
                before = kind
            emitted = emit(builder, *values)
            return context.get_dummy_value() if result == types.void else emitted

        def typing(*_: Any) -> Any:
            return result(*arguments), codegen

        # numba binds the arguments of a call by this signature, which it wants without a star
        names = ["typingctx", *(f"argument{i}" for i in range(len(arguments)))]
        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        typing.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # Python reads it, mypy does not
        return intrinsic(typing)

    return decorate


def _splat(builder: Any, scalar: Any) -> Any:
    undefined, first = ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INT, 0)
    return builder.shuffle_vector(
        builder.insert_element(undefined, scalar, first), undefined, ir.Constant(_INTS, [0] * LANES)
    )


def _constant(value: float) -> Any:
    return ir.Constant(_FLOATS, [float(np.float32(value))] * LANES)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """A b + c, rounded once."""
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{LANES}f32")
    return builder.call(function, [a, b, c])


def _rows(builder: Any, block: Any) -> list[Any]:
    return [builder.extract_value(block, k) for k in range(LANES)]


def _stack(builder: Any, rows: list[Any]) -> Any:
    block: Any = ir.Constant(_TILE, ir.Undefined)
    for k, row in enumerate(rows):
        block = builder.insert_value(block, row, k)
    return block


def _load_at(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, _FLOATS.as_pointer()), align=4)


def _store_at(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, _FLOATS.as_pointer()), align=4)


def _row_pointers(builder: Any, pointer: Any, step: Any) -> list[Any]:
    """Pointers to float number 0, step, ..., 7 step after the pointer."""
    return [builder.gep(pointer, [builder.mul(step, step.type(k))]) for k in range(LANES)]


def _splat_at(builder: Any, pointer: Any, k: int) -> Any:
    """Float number k after the pointer, in all lanes."""
    return _splat(builder, builder.load(builder.gep(pointer, [_INT(k)]), align=4))


@_operation(vector, types.float32)
def splat(builder: Any, x: Any) -> Any:
    """The number in all lanes."""
    return _splat(builder, x)


@_operation(vector, memory, index)
def load(builder: Any, pointer: Any) -> Any:
    """a[i : i + 8]."""
    return _load_at(builder, pointer)


@_operation(types.void, memory, index, vector)
def store(builder: Any, pointer: Any, value: Any) -> Any:
    """a[i : i + 8] = v."""
    _store_at(builder, value, pointer)


@_operation(vector, vector, vector)
def add(builder: Any, a: Any, b: Any) -> Any:
    """Sum of each pair."""
    return builder.fadd(a, b)


@_operation(vector, vector, vector)
def subtract(builder: Any, a: Any, b: Any) -> Any:
    """Difference of each pair, the first less the second."""
    return builder.fsub(a, b)


@_operation(vector, vector, vector)
def multiply(builder: Any, a: Any, b: Any) -> Any:
    """Product of each pair."""
    return builder.fmul(a, b)


@_operation(vector, vector, vector)
def divide(builder: Any, a: Any, b: Any) -> Any:
    """Quotient of each pair."""
    return builder.fdiv(a, b)


@_operation(vector, vector, vector)
def maximum(builder: Any, a: Any, b: Any) -> Any:
    """The larger of each pair; b where one is not a number."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@_operation(vector, vector)
def exp2(builder: Any, x: Any) -> Any:
    """2^x for x < 128, to 3e-7 of the value; 2^-126 for all x below -126; NaN for NaN."""
    lowest = _constant(_LOWEST_EXPONENT)
    x = builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)
    rounded = builder.fadd(x, _constant(_ROUNDER))
    fraction = builder.fsub(x, builder.fsub(rounded, _constant(_ROUNDER)))
    low, middle, high = (
        _multiply_add(builder, _constant(_EXP2.coef[k + 1]), fraction, _constant(_EXP2.coef[k]))
        for k in (0, 2, 4)
    )
    square = builder.fmul(fraction, fraction)
    power = _multiply_add(builder, _multiply_add(builder, high, square, middle), square, low)
    exponent = builder.shl(builder.bitcast(rounded, _INTS), ir.Constant(_INTS, [_MANTISSA_BITS] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(power, _INTS), exponent), _FLOATS)


@_operation(types.float32, vector)
def total(builder: Any, x: Any) -> Any:
    """Sum of the lanes."""
    width = LANES
    while width > 1:  # add the upper half to the lower
        width //= 2
        lower = ir.Constant(ir.VectorType(_INT, width), list(range(width)))
        upper = ir.Constant(ir.VectorType(_INT, width), list(range(width, 2 * width)))
        x = builder.fadd(builder.shuffle_vector(x, x, lower), builder.shuffle_vector(x, x, upper))
    return builder.extract_element(x, _INT(0))


@_operation(tile)
def zero_tile(builder: Any) -> Any:  # noqa: ARG001 (every operation is given one)
    """A tile of zeros."""
    return ir.Constant(_TILE, [_constant(0.0)] * LANES)


@_operation(tile, memory, index, index)
def load_tile(builder: Any, pointer: Any, step: Any) -> Any:
    """Row k is a[i + step k : i + step k + 8]."""
    return _stack(builder, [_load_at(builder, row) for row in _row_pointers(builder, pointer, step)])


@_operation(types.void, memory, index, index, tile)
def store_tile(builder: Any, pointer: Any, step: Any, block: Any) -> Any:
    """a[i + step k : i + step k + 8] = row k."""
    for row, target in zip(_rows(builder, block), _row_pointers(builder, pointer, step), strict=True):
        _store_at(builder, row, target)


@_operation(tile, tile, vector)
def scale(builder: Any, block: Any, factor: Any) -> Any:
    """Every row times the vector."""
    return _stack(builder, [builder.fmul(row, factor) for row in _rows(builder, block)])


@_operation(vector, vector, vector, vector)
def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """A b + c, rounded once."""
    return _multiply_add(builder, a, b, c)


@_operation(vector, tile, tile)
def sum_of_products(builder: Any, a: Any, b: Any) -> Any:
    """Sum over k of row k of a times row k of b."""
    total = _constant(0.0)
    for row_a, row_b in zip(_rows(builder, a), _rows(builder, b), strict=True):
        total = _multiply_add(builder, row_a, row_b, total)
    return total


@_operation(tile, tile)
def transpose(builder: Any, block: Any) -> Any:
    """Lane j of row i goes to lane i of row j."""
    rows = _rows(builder, block)
    for step in (1, 2, 4):  # exchange the off-diagonal quarters of every 2 step x 2 step square
        swapped = list(rows)
        for upper in range(LANES):
            if upper & step:
                continue
            lower = upper | step
            keep = [c if not c & step else LANES + (c ^ step) for c in range(LANES)]
            take = [c ^ step if not c & step else LANES + c for c in range(LANES)]
            for row, mask in ((upper, keep), (lower, take)):
                swapped[row] = builder.shuffle_vector(rows[upper], rows[lower], ir.Constant(_INTS, mask))
        rows = swapped
    return _stack(builder, rows)


@_operation(vector, vector, memory, index, tile)
def add_combination(builder: Any, start: Any, pointer: Any, block: Any) -> Any:
    """Start + sum over k of a[i + k] times row k."""
    sums = [start, _constant(0.0)]  # two short chains: a processor waits for each sum it adds to
    for k, row in enumerate(_rows(builder, block)):
        sums[k % 2] = _multiply_add(builder, _splat_at(builder, pointer, k), row, sums[k % 2])
    return builder.fadd(*sums)


@_operation(tile, tile, memory, index, vector)
def add_outer(builder: Any, block: Any, pointer: Any, weights: Any) -> Any:
    """Row k + a[i + k] times the vector."""
    return _stack(
        builder,
        [
            _multiply_add(builder, _splat_at(builder, pointer, k), weights, row)
            for k, row in enumerate(_rows(builder, block))
        ],
    )
