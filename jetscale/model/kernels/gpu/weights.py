"""Gradients of all weight matrices of a narrow model in one launch.

A matrix of a narrow model is one or a few tiles, and its gradient a sum over thousands of tokens: launched
one after another, each would leave most of the card idle. Here every (matrix, tile, range of rows) is a task,
and a table on the device tells program t its task.

The gradient of the norm in front of a matrix comes with it. With x = xhat n (xhat the normed row, n the
scale) and y = W x, the sum over rows G = dy^T xhat gives both: dW_oi = G_oi n_i, and
dn_i = sum over rows of xhat_i (W^T dy)_i = sum over o of W_oi G_oi.

Legend: S tokens, O and I outputs and inputs of a matrix, P partial sums.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from jetscale.model.kernels.gpu.buffers import Gradients, JetBuffers, Layout, Weights
from jetscale.model.kernels.gpu.embedding import tokens_in_use

_PROGRAMS = 512  # about what fills a large card; more were slower on an H200, as each writes its own sums
_MOST_PARTS = 32  # the optimiser adds them up
_ROWS = 128  # rows of one product
_FIELDS = 16
ALIGNED = 8
"""Operands and their rows start at multiples of this many numbers: 16 bytes in half precision."""


@dataclass(frozen=True)
class Product:
    """One gradient dW = dy^T x, a sum over rows.

    Attributes
    ----------
    name : parameter that the gradient belongs to
    n_outputs, n_inputs : O and I
    start : where dW_00 lies in the parameter
    strides : steps in the parameter from one output and from one input to the next
    jets : the rows are the B jets of a batch, not its tokens
    norm : parameter whose scale multiplied x; then x is given without it, and the matrix has D inputs
    """

    name: str
    n_outputs: int
    n_inputs: int
    start: int
    strides: tuple[int, int]
    jets: bool = False
    norm: str | None = None


def tile_of(dim: int) -> int:
    """Side of the square tiles that a gradient is cut into at width `dim`."""
    return 16 if dim <= 16 else 32 if dim <= 64 else 64


def split_of(products: Sequence[Product], dim: int) -> int:
    """Ranges that the tokens of a batch are cut into: enough programs for a card, few partial sums.

    A function of the model alone, so that the order of summation is the same on every card, at every
    capacity and in every process.
    """
    tiles = sum(len(_tiles(product, tile_of(dim))) for product in products if not product.jets)
    return max(1, min(_MOST_PARTS, _PROGRAMS // tiles))


def product_parts(products: Sequence[Product], dim: int) -> dict[str, int]:
    """Partial sums P of each parameter's gradient, by name."""
    split, side = split_of(products, dim), tile_of(dim)
    parts: dict[str, int] = {}
    for product in products:
        own = 1 if product.jets else split
        parts[product.name] = max(own, parts.get(product.name, 1))
        if product.norm is not None:
            rows_of_tiles = triton.cdiv(product.n_outputs, side)
            parts[product.norm] = parts.get(product.norm, 0) + own * rows_of_tiles
    return parts


class WeightGradients:
    """The launch that fills the partial sums of all `products`.

    Parameters
    ----------
    products : what to compute
    operands : dy (rows, O) and x (rows, I) of each, views of `arena` with contiguous rows; where I is no
        multiple of `ALIGNED`, the numbers up to the next one are read too and must be finite
    arena : flat memory in the dtype of products; operands and their rows start at multiples of `ALIGNED`
    dim : width D of the model
    gradients : takes the partial sums, as many as `product_parts` says
    jets, batch_size : tell the tokens in use

    Rows that belong to no jet are not read.
    """

    def __init__(
        self,
        products: Sequence[Product],
        operands: Sequence[tuple[Tensor, Tensor]],
        arena: Tensor,
        dim: int,
        gradients: Gradients,
        jets: JetBuffers,
        batch_size: int,
    ) -> None:
        self._arena, self._gradients, self._jets, self._batch_size = arena, gradients, jets, batch_size
        self._dim, self._side = dim, tile_of(dim)
        split = split_of(products, dim)
        tasks: list[list[int]] = []
        used: dict[str, int] = {}  # partial sums of each norm's gradient given out so far
        for product, (d_y, x) in zip(products, operands, strict=True):
            tasks += _tasks(product, d_y, x, gradients.layout, self._side, split, batch_size, used)
        assert all(len(task) == _FIELDS for task in tasks)
        self._tasks = torch.tensor(tasks, dtype=torch.int64, device=arena.device)

    def __call__(self, weights: Weights) -> None:
        """Enqueue it; `weights` are those of the forward pass."""
        _products_kernel[(len(self._tasks),)](
            self._tasks,
            self._arena,
            self._jets.offsets,
            self._jets.first,
            weights.params,
            weights.half,
            self._gradients.flat,
            B=self._batch_size,
            D=self._dim,
            SIDE=self._side,
            R=_ROWS,
            FIELDS=_FIELDS,
            num_warps=self._side // 16,
            num_stages=2,
        )


def _tiles(product: Product, side: int) -> list[tuple[int, int]]:
    return [(o, i) for o in range(0, product.n_outputs, side) for i in range(0, product.n_inputs, side)]


def _tasks(
    product: Product,
    d_y: Tensor,
    x: Tensor,
    layout: Layout,
    side: int,
    split: int,
    batch_size: int,
    used: dict[str, int],
) -> list[list[int]]:
    """Rows of the table, one a program; fields in the order in which the kernel reads them."""
    slot, parts = layout.slots[product.name], 1 if product.jets else split
    of_output, of_input = product.strides
    rows_of_tiles = triton.cdiv(product.n_outputs, side)
    inputs_read = triton.cdiv(product.n_inputs, ALIGNED) * ALIGNED
    tasks = []
    for part in range(parts):
        for o, i in _tiles(product, side):
            aligned = [
                d_y.storage_offset() + o, d_y.stride(0), x.storage_offset() + i, x.stride(0),
                min(side, product.n_outputs - o), min(side, inputs_read - i),
            ]  # fmt: skip
            assert all(number % ALIGNED == 0 for number in aligned), (product, aligned)
            tile = product.start + o * of_output + i * of_input
            norm = d_norm = weight = -1
            if product.norm is not None:
                assert product.strides == (product.n_inputs, 1)
                norm_slot = layout.slots[product.norm]
                row = used.get(product.norm, 0) + part * rows_of_tiles + o // side
                norm, d_norm = norm_slot.offset + i, norm_slot.gradient + row * norm_slot.size + i
                weight = (slot.offset + tile) // ALIGNED
            tasks.append([
                *(number // ALIGNED for number in aligned), min(side, product.n_inputs - i),
                batch_size if product.jets else -1, part, parts,
                slot.gradient + part * slot.size + tile, of_output, of_input,
                norm, d_norm, weight,
            ])  # fmt: skip
    if product.norm is not None:
        used[product.norm] = used.get(product.norm, 0) + parts * rows_of_tiles
    return tasks


@triton.jit
def _small(field):
    """A number of the table that fits 32 bits: half the registers."""
    return tl.load(field).to(tl.int32)


@triton.jit
def _products_kernel(
    TASKS, ARENA, OFFSETS, FIRST, PARAMS, HALF, GRADIENTS,
    B: tl.constexpr, D: tl.constexpr, SIDE: tl.constexpr, R: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    """One tile of one gradient over one range of rows, see `WeightGradients`."""
    task = TASKS + tl.program_id(0) * FIELDS
    # Times 8 here, so that the compiler knows it can load 16 bytes at once.
    d_y, x = tl.load(task) * 8, tl.load(task + 2) * 8
    d_y_stride, x_stride = _small(task + 1) * 8, _small(task + 3) * 8
    o, i = tl.arange(0, SIDE), tl.arange(0, SIDE)
    real_o, real_i = o < _small(task + 4) * 8, i < _small(task + 5) * 8
    stored_i = i < _small(task + 6)
    n_rows, part, parts = _small(task + 7), _small(task + 8), _small(task + 9)
    out, of_output, of_input = tl.load(task + 10), _small(task + 11), _small(task + 12)
    norm, d_norm, weight = tl.load(task + 13), tl.load(task + 14), tl.load(task + 15)  # weight in eighths
    if n_rows < 0:
        n_rows = tokens_in_use(OFFSETS, FIRST, B)
    share = tl.cdiv(tl.cdiv(n_rows, parts), R) * R
    low = part * share
    high = tl.minimum(low + share, n_rows)
    total = tl.zeros([SIDE, SIDE], tl.float32)
    for start in range(low, high, R):
        rows = start + tl.arange(0, R)
        real = rows < high
        d_y_tile = tl.load(
            ARENA + d_y + rows[:, None] * d_y_stride + o[None, :],
            mask=real[:, None] & real_o[None, :],
            other=0.0,
        )
        x_tile = tl.load(
            ARENA + x + rows[:, None] * x_stride + i[None, :], mask=real[:, None] & real_i[None, :], other=0.0
        )
        total = tl.dot(tl.trans(d_y_tile), x_tile, total, input_precision="ieee")

    mask = real_o[:, None] & stored_i[None, :]
    at = o[:, None] * of_output + i[None, :] * of_input
    if norm >= 0:
        w = tl.load(HALF + weight * 8 + o[:, None] * D + i[None, :], mask=mask, other=0.0).to(tl.float32)
        tl.store(GRADIENTS + d_norm + i, tl.sum(w * total, 0), mask=stored_i)
        total *= tl.load(PARAMS + norm + i, mask=stored_i, other=0.0)[None, :]
    tl.store(GRADIENTS + out + at, total, mask=mask)
