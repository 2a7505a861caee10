"""The step of a set transformer on a GPU: forward, backward and update on static memory, written in Triton.

No autograd: backward passes are written out, as in `jetscale.model.kernels.cpu`, so that the whole step is a
few dozen launches that a CUDA graph replays. `unusable` says where it does not apply; there PyTorch's
operations compute the same. Without a card the kernels run in Triton's interpreter (``TRITON_INTERPRET=1``),
which is how they are tested.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from jetscale.model.kernels.gpu.card import card_of, lacking

# Multiply-adds as the card has them, whatever a version of Triton does by default: from 3.10 on it rounds in
# between, and 3.9 warns of it. Triton reads this when it compiles.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

HEAD_DIM = 8
NETWORK = "jetscale.model.transformer.SetTransformer"
"""The one network whose step this is, by name: its module imports the CPU's kernels."""


def unusable(model: nn.Module, precision: str, device: torch.device) -> str | None:
    """Why a model cannot be trained by these kernels; None where it can.

    Parameters
    ----------
    model : the network, as it is to be trained
    precision : of the trainer; products are in bfloat16, so ``bf16-mixed``
    device : where it is to be trained; a CPU will do in Triton's interpreter, which also takes ``32-true``
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if device.type != "cuda" and not interpreted:
        return f"the device is {device.type}, not cuda"
    if f"{type(model).__module__}.{type(model).__name__}" != NETWORK:
        return f"the network is a {type(model).__name__}, not the SetTransformer of jetscale"
    if model.head_dim != HEAD_DIM:
        return f"model.head_dim is {model.head_dim}, not {HEAD_DIM}"
    if precision != "bf16-mixed" and not (interpreted and precision == "32-true"):
        return f"the precision is {precision}, not bf16-mixed"
    if not all(parameter.requires_grad for parameter in model.parameters()):
        return "some weights are frozen"
    if device.type != "cuda" or interpreted:
        return None
    if torch.version.hip is not None:
        return "PyTorch is built for AMD's cards, on which the kernels were never compiled"
    sizes: Any = model
    return lacking(card_of(device), sizes.dim, sizes.n_classes)
