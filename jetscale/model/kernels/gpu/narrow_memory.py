"""Buffers of a narrow network, and which of them its weight gradients are products of.

A buffer is called by its block and what it holds: "0.qkv"; block -1 is the embedding.

Legend: S tokens, B jets, D width, V inputs of a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from jetscale.model.kernels.gpu.buffers import Transformer
from jetscale.model.kernels.gpu.weights import ALIGNED, Product


class Inputs(NamedTuple):
    """Columns of the inputs of tokens: where identities, bias and class token begin, and their number."""

    pids: int
    bias: int
    token: int
    width: int


def input_columns(n_features: int, n_pid: int) -> Inputs:
    """Columns for F features and that many identities, each group at a multiple of `ALIGNED`.

    Parameters
    ----------
    n_features, n_pid : continuous inputs of a constituent, and its identities, 0 for none
    """
    pids = triton.cdiv(n_features, ALIGNED) * ALIGNED
    bias = pids + triton.cdiv(n_pid, ALIGNED) * ALIGNED
    return Inputs(pids, bias, bias + ALIGNED, bias + 2 * ALIGNED)


def products_of(model: Transformer) -> Iterator[tuple[Product, str, tuple[str, slice]]]:
    """All weight gradients: what, the buffer of dy, and the buffer and columns of x."""
    dim, features, n_pid = model.dim, model.n_features, model.n_pid
    every, columns = slice(None), input_columns(features, n_pid)
    d_x = "-1.d_out"
    yield (
        Product("embed.weight", dim, features, 0, (features, 1)),
        d_x,
        ("inputs", slice(0, features)),
    )
    if n_pid:
        table = Product("pid.weight", dim, n_pid, 0, (1, dim))
        yield table, d_x, ("inputs", slice(columns.pids, columns.pids + n_pid))
    for name, column in (("embed.bias", columns.bias), ("class_token", columns.token)):
        yield Product(name, dim, 1, 0, (1, 1)), d_x, ("inputs", slice(column, column + 1))
    for index in range(len(model.blocks)):
        prefix, own, last = f"blocks.{index}.", f"{index}.", index == len(model.blocks) - 1
        qkv, norm, strides = prefix + "qkv.weight", prefix + "attention_norm.weight", (dim, 1)
        if last:
            q = Product(qkv, dim, dim, 0, strides, jets=True, norm=norm)
            yield q, own + "d_q", (own + "xhat_classes", every)
            kv = Product(qkv, 2 * dim, dim, dim * dim, strides, norm=norm)
            yield kv, own + "d_qkv", (own + "xhat1", every)
        else:
            yield Product(qkv, 3 * dim, dim, 0, strides, norm=norm), own + "d_qkv", (own + "xhat1", every)
        out = Product(prefix + "out.weight", dim, dim, 0, strides, jets=last)
        yield out, own + "d_middle", (own + "attended", every)
        gate_up = Product(
            prefix + "gate_up.weight", 4 * dim, dim, 0, strides, last, prefix + "feedforward_norm.weight"
        )
        yield gate_up, own + "gate_up", (own + "xhat2", every)
        down = Product(prefix + "down.weight", dim, 2 * dim, 0, (2 * dim, 1), jets=last)
        yield down, own + "d_out", (own + "hidden", every)


def half_buffers(
    model: Transformer, batch_size: int, capacity: int, train: bool
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names and shapes of the buffers in the dtype of products.

    Parameters
    ----------
    model : sizes are taken from it
    batch_size, capacity : jets B and most tokens of a batch
    train : also what backward pass and weight gradients need; else all blocks but the last share block 0's
    """
    dim, depth = model.dim, len(model.blocks)
    if train:
        yield "inputs", (capacity, input_columns(model.n_features, model.n_pid).width)
        yield "-1.d_out", (capacity, dim)
        yield "d_attended", (capacity, dim)
        yield "d_attended_classes", (batch_size, dim)
    for index in range(depth):
        last = index == depth - 1
        if not train and not last and index > 0:
            continue  # block 0 lends its buffers
        rows = batch_size if last else capacity
        n_projected = 2 * dim if last else 3 * dim
        yield f"{index}.qkv", (capacity, n_projected)
        yield f"{index}.attended", (rows, dim)
        if last:
            yield f"{index}.q", (batch_size, dim)
        if not train:
            continue
        yield f"{index}.d_qkv", (capacity, n_projected)
        yield f"{index}.xhat1", (capacity, dim)
        if last:
            yield f"{index}.d_q", (batch_size, dim)
            yield f"{index}.xhat_classes", (batch_size, dim)
        for name, width in (("xhat2", dim), ("gate_up", 4 * dim), ("hidden", 2 * dim)):
            yield f"{index}.{name}", (rows, width)
        for name in ("d_middle", "d_out"):
            yield f"{index}.{name}", (rows, dim)


def single_buffers(
    model: Transformer, batch_size: int, capacity: int, train: bool
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names and shapes of the float32 buffers; parameters as in `half_buffers`."""
    dim, depth = model.dim, len(model.blocks)
    heads = dim // model.head_dim
    yield "x", (capacity, dim)
    yield "x_classes", (batch_size, dim)
    if train:
        yield "d_x", (capacity, dim)
        yield "d_x_classes", (batch_size, dim)
    for index in range(depth):
        last = index == depth - 1
        if not train and not last and index > 0:
            continue
        yield f"{index}.lse", (batch_size, heads) if last else (heads, capacity)
        if train:
            yield f"{index}.over_sd1", (1, capacity)
            yield f"{index}.over_sd2", (1, batch_size if last else capacity)


def allocate(
    shapes: dict[str, tuple[int, int]], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """One flat tensor of zeros, and a view of it for each shape, at starts that vector loads want.

    Parameters
    ----------
    shapes : rows and columns by name
    dtype, device : of all
    """
    starts, size = [], 0
    for rows, columns in shapes.values():
        starts.append(size)
        size += triton.cdiv(rows * columns, 64) * 64
    flat = torch.zeros(size, dtype=dtype, device=device)
    views = {
        name: flat[start : start + rows * columns].view(rows, columns)
        for start, (name, (rows, columns)) in zip(starts, shapes.items(), strict=True)
    }
    return flat, views
