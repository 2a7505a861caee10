from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from jetscale.model.kernels.cpu import simd
from jetscale.model.kernels.cpu.simd import (
    add,
    add_combination,
    add_outer,
    divide,
    exp2,
    load,
    load_tile,
    maximum,
    multiply,
    multiply_add,
    scale,
    store,
    store_tile,
    subtract,
    sum_of_products,
    total,
    transpose,
)

Floats = NDArray[np.float32]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Floats:
    return RNG.normal(size=shape).astype(np.float32)


def unary(operation: Callable[..., object]) -> Callable[[Floats], Floats]:
    @numba.njit
    def loop(x: Floats, out: Floats) -> None:
        for i in range(0, len(x), 8):
            store(out, i, operation(load(x, i)))

    def apply(x: Floats) -> Floats:
        out = np.empty_like(x)
        loop(x, out)
        return out

    return apply


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (add, np.add),
        (subtract, np.subtract),
        (multiply, np.multiply),
        (divide, np.divide),
        (maximum, np.maximum),
    ],
)
def test_arithmetic(operation: Callable[..., object], expected: np.ufunc) -> None:
    @numba.njit
    def loop(a: Floats, b: Floats, out: Floats) -> None:
        store(out, 0, operation(load(a, 0), load(b, 0)))

    a, b, out = normal(8), normal(8), normal(8)
    loop(a, b, out)
    np.testing.assert_array_equal(out, expected(a, b))


def test_exp2() -> None:
    compute = unary(exp2)
    x = np.concatenate([np.linspace(-126, 127.9, 80_000), np.arange(-126.0, 128.0, dtype=float).repeat(4)])
    x = x[: len(x) // 8 * 8].astype(np.float32)
    exact = np.exp2(x.astype(np.float64))
    assert np.max(np.abs(compute(x) / exact - 1)) < 3e-7
    special = np.array([-1e30, -np.inf, -127, np.nan, 0, -0.0, 1, -1], np.float32)
    result = compute(special)
    assert np.all(result[:3] <= np.float32(2.0**-125.9))
    assert np.isnan(result[3])
    np.testing.assert_allclose(result[4:], [1, 1, 2, 0.5], rtol=3e-7)


def test_tiles_are_small_matrices() -> None:
    @numba.njit
    def run(a: Floats, b: Floats, v: Floats, out: Floats) -> float:
        tile_a, tile_b, vector = load_tile(a, 0, 8), load_tile(b, 0, 8), load(v, 8)
        store_tile(out, 0, 8, transpose(tile_a))
        store_tile(out, 64, 8, scale(tile_a, vector))
        store_tile(out, 128, 8, add_outer(tile_a, b, 3, vector))
        store(out, 192, add_combination(vector, b, 5, tile_a))
        store(out, 200, sum_of_products(tile_a, tile_b))
        store(out, 208, multiply_add(vector, vector, load(b, 0)))
        return total(vector)

    a, b, v, out = normal(64), normal(64), normal(16), np.empty(216, np.float32)
    summed = run(a, b, v, out)
    A, B, vector = a.reshape(8, 8), b.reshape(8, 8), v[8:]
    expected = [
        A.T,
        A * vector,
        A + np.outer(b[3:11], vector),
        vector + b[5:13] @ A,
        (A * B).sum(0),
        vector * vector + b[:8],
    ]
    np.testing.assert_allclose(out, np.concatenate([e.reshape(-1) for e in expected]), rtol=1e-5, atol=1e-6)
    assert summed == pytest.approx(vector.sum(), rel=1e-6)
    assert simd.LANES == 8
