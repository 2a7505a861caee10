"""The matrix products of a linear layer without bias, each by the routine that is fastest for its shape.

Measured on one Zen 4 core (LOG.md), 5,250 rows: oneDNN's float32 product, which PyTorch takes by itself for
convolutions and compiled models alone, runs at 100-107 GFLOP/s where `torch.mm` (MKL) has 85-92; for the
gradient of a weight, a long sum, MKL is the faster one; with a side of 8 both fall to 15-50, `narrow` has 85,
and up to a side of 24 its calls, which start in less time, still make whole steps 5-7% faster.

Shapes: S rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jetscale.model.kernels.cpu import narrow
from jetscale.model.kernels.cpu.jit import flat, for_all
from jetscale.model.kernels.cpu.simd import LANES

ONEDNN = (
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) "
    "-> Tensor Y"
)
"""oneDNN's product in the form of torch 2.13. It is private; `torch.mm` and `functional.linear` call MKL."""


def has_onednn() -> bool:
    """Whether this torch has oneDNN's product in the form that is called here.

    Where it does not, the products are `torch.mm`'s: the same to rounding, and a step at widths from 32 on
    takes longer. `tests/model/test_products.py` fails then.
    """
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch._C._has_mkldnn else None
    return operator is not None and str(operator.default._schema) == ONEDNN


HAS_ONEDNN = has_onednn()
NARROW = 24  # longest short side of a weight that `narrow` multiplies with
MANY_ROWS = 1024  # for fewer, what oneDNN does before it starts costs more than it gains


def linear(x_SI: Tensor, weight_OI: Tensor) -> Tensor:
    """The product of a linear layer, x W^T.

    Parameters
    ----------
    x_SI : (S, I) float32, contiguous
    weight_OI : (O, I) float32

    Returns
    -------
    (S, O) float32.
    """
    if _is_narrow(weight_OI):
        return _by_rows(narrow.linear, x_SI, weight_OI, len(weight_OI))
    return _product(x_SI, weight_OI)


def input_gradient(d_out_SO: Tensor, weight_OI: Tensor) -> Tensor:
    """Gradient of the input of `linear`, d_out W.

    Parameters
    ----------
    d_out_SO : (S, O) gradient of its result, contiguous
    weight_OI : (O, I) its weight

    Returns
    -------
    (S, I) float32.
    """
    if _is_narrow(weight_OI):
        return _by_rows(narrow.multiply, d_out_SO, weight_OI, weight_OI.shape[1])
    return _product(d_out_SO, weight_OI.T)


def weight_gradient(d_out_SO: Tensor, x_SI: Tensor, weight_OI: Tensor) -> Tensor:
    """Gradient of the weight of `linear`, d_out^T x.

    Parameters
    ----------
    d_out_SO : (S, O) gradient of its result, contiguous
    x_SI : (S, I) its input, contiguous
    weight_OI : (O, I) its weight, of which the shape alone matters

    Returns
    -------
    (O, I) float32.
    """
    n_out, n_in = weight_OI.shape
    if not _is_narrow(weight_OI):
        return d_out_SO.T @ x_SI
    # Each block of rows has its share; the shares are added in order, whatever the threads did.
    n_blocks = -(-len(x_SI) // narrow.BLOCK)
    shares = x_SI.new_empty(n_blocks, n_out, n_in)
    arrays = (flat(d_out_SO), n_out, flat(x_SI), n_in, len(x_SI), flat(shares))
    for_all(narrow.weight_gradient, n_blocks, *arrays)
    return shares.sum(0)


def _is_narrow(weight_OI: Tensor) -> bool:
    return min(weight_OI.shape) <= NARROW and all(side % LANES == 0 for side in weight_OI.shape)


def _by_rows(kernel: Callable[..., None], x_SI: Tensor, weight: Tensor, n_out: int) -> Tensor:
    out_SO = x_SI.new_empty(len(x_SI), n_out)
    for_all(kernel, len(x_SI), flat(x_SI), x_SI.shape[1], flat(weight), n_out, flat(out_SO))
    return out_SO


def _product(x_SI: Tensor, weight_OI: Tensor) -> Tensor:
    if len(x_SI) < MANY_ROWS or not HAS_ONEDNN:
        return x_SI @ weight_OI.T
    out_SO: Tensor = torch.ops.mkldnn._linear_pointwise(x_SI, weight_OI, None, "none", [], "")
    return out_SO
