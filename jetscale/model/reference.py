"""The same network written the plain way: jets padded to one length, every block computed in full.

The oracle of the packed model's tests and what its speed is compared with; nothing in training uses it.

Shapes: B jets, L tokens of a padded jet, T constituents, F features, D width, H heads, E channels of a head,
K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from jetscale.model.transformer import Block, SetTransformer


def padded_logits(
    model: SetTransformer,
    x_TF: Tensor,
    pid_T: Tensor | None,
    lengths_B: Tensor,
    constituents: int | None = None,
) -> Tensor:
    """Logits (B, K) of `model`'s weights, computed on padded jets.

    Parameters
    ----------
    model, x_TF, pid_T, lengths_B : as in `SetTransformer.forward`
    constituents : pad every jet to this many; by default to the batch's longest
    """
    padded = int(lengths_B.max()) if constituents is None else constituents
    x_BLD = model.embed(pad(x_TF, lengths_B, padded))
    if model.pid is not None and pid_T is not None:
        x_BLD = x_BLD + model.pid(pad(pid_T, lengths_B, padded))
    class_B1D = model.class_token.to(x_BLD.dtype).expand(len(lengths_B), 1, -1)
    x_BLD = torch.cat([class_B1D, x_BLD], dim=1)
    valid_BL = torch.arange(padded + 1) <= lengths_B[:, None]
    mask_B11L = valid_BL.to(x_TF.device)[:, None, None, :]
    for block in model.blocks:
        assert isinstance(block, Block)
        x_BLD = padded_block(block, x_BLD, mask_B11L)
    logits_BK: Tensor = model.head(model.norm(x_BLD[:, 0]))
    return logits_BK


def padded_block(block: Block, x_BLD: Tensor, mask_B11L: Tensor) -> Tensor:
    """One pre-norm block on padded jets, (B, L, D)."""
    qkv_BL3HE = block.qkv(block.attention_norm(x_BLD)).unflatten(-1, (3, -1, block.head_dim))
    q_BHLE, k_BHLE, v_BHLE = qkv_BL3HE.permute(2, 0, 3, 1, 4).unbind(0)
    out_BHLE = functional.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE, attn_mask=mask_B11L)
    x_BLD = x_BLD + block.out(out_BHLE.transpose(1, 2).flatten(2))
    gate_BLM, up_BLM = block.gate_up(block.feedforward_norm(x_BLD)).chunk(2, dim=-1)
    output_BLD: Tensor = x_BLD + block.down(functional.silu(gate_BLM) * up_BLM)
    return output_BLD


def pad(rows: Tensor, lengths_B: Tensor, padded: int) -> Tensor:
    """(T, ...) rows of all jets to (B, padded, ...), zeros after each jet's own.

    Raises
    ------
    ValueError
        when a jet has more than `padded` constituents: nothing is cut off.
    """
    if int(lengths_B.max()) > padded:
        raise ValueError(f"a jet has {int(lengths_B.max())} constituents, more than the {padded} padded to")
    valid_BL = (torch.arange(padded) < lengths_B[:, None]).to(rows.device)
    padded_BL = rows.new_zeros(len(lengths_B), padded, *rows.shape[1:])
    padded_BL[valid_BL] = rows
    return padded_BL
