"""Compiled kernels for training on a CPU in float32, behind one function.

Head dimension 8 starves the matrix products of fused attention, and short rows starve PyTorch's elementwise
operations; numba kernels with explicit vectors do both near the floor of the processor (`ragged`, `rowwise`).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from jetscale.model.operations import PLAIN, Operations

HEAD_DIM = 8


def operations_for(head_dim: int, *tensors: Tensor) -> Operations:
    """Choose how to compute a model on these tensors: the kernels where they apply, plain PyTorch elsewhere.

    They apply to float32 on a CPU with head dimension 8, outside autocast and `torch.compile`, where numba is
    installed and its compiler is not switched off. The first time they do, the process is told to keep the
    memory it frees (`memory`).
    """
    applies = (
        head_dim == HEAD_DIM
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
    return _compiled() or PLAIN if applies else PLAIN


@cache
def _compiled() -> Operations | None:
    try:
        import numba
    except ImportError:
        return None
    if numba.config.DISABLE_JIT:
        return None
    from jetscale.model.kernels.cpu.functions import FUSED
    from jetscale.model.kernels.cpu.memory import keep_freed_memory

    keep_freed_memory()
    return FUSED
