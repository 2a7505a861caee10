"""The step of a set transformer on a GPU: forward, backward and update on static memory, written in Triton.

No autograd: backward passes are written out, as in `jetscale.model.kernels.cpu`, so that the whole step is a
few dozen launches that a CUDA graph replays. `unusable` says where it does not apply; there PyTorch's
operations compute the same. Without a card the kernels run in Triton's interpreter (``TRITON_INTERPRET=1``),
which is how they are tested.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import nn

HEAD_DIM = 8
LONGEST = 256
"""Most tokens of a jet, its class token included, that attention holds in one tile."""


def unusable(model: nn.Module, precision: str, max_constituents: int, device: torch.device) -> str | None:
    """Why a model cannot be trained by these kernels; None where it can.

    Parameters
    ----------
    model : the network, as it is to be trained
    precision : of the trainer; products are in bfloat16, so ``bf16-mixed``
    max_constituents : most constituents of a jet
    device : where it is to be trained; a CPU will do in Triton's interpreter, which also takes ``32-true``
    """
    from jetscale.model.transformer import SetTransformer

    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if device.type != "cuda" and not interpreted:
        return f"the device is {device.type}, not cuda"
    if type(model) is not SetTransformer:
        return f"the network is a {type(model).__name__}, not a SetTransformer"
    if model.head_dim != HEAD_DIM:
        return f"model.head_dim is {model.head_dim}, not {HEAD_DIM}"
    if precision != "bf16-mixed" and not (interpreted and precision == "32-true"):
        return f"the precision is {precision}, not bf16-mixed"
    if max_constituents >= LONGEST:
        return f"data.max_constituents is {max_constituents}, above {LONGEST - 1}"
    if not all(parameter.requires_grad for parameter in model.parameters()):
        return "some weights are frozen"
    return None
