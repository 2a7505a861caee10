"""The set transformer written the plain way: jets padded to one length, every block computed in full.

The tests compare the packed model with it, and the benchmarks its speed; nothing in training uses it.

Shapes: B jets, L tokens of a padded jet, T constituents, F features, D width, H heads, E channels of a head,
K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from jetscale.jets.batch import JetBatch
from jetscale.model.transformer import Block, SetTransformer


def padded_logits(model: SetTransformer, batch: JetBatch, constituents: int | None = None) -> Tensor:
    """Compute what `model` gives for `batch`, on padded jets.

    Parameters
    ----------
    model : the transformer whose weights are used
    batch : B jets
    constituents : number that every jet is padded to; by default that of the longest jet in the batch

    Returns
    -------
    (B, K) logits.
    """
    lengths_B = batch.lengths_B
    padded = int(lengths_B.max()) if constituents is None else constituents
    x_BLD = model.embed(pad(batch.x_TF, lengths_B, padded))
    if model.pid is not None and batch.pid_T is not None:
        x_BLD = x_BLD + model.pid(pad(batch.pid_T, lengths_B, padded))
    class_B1D = model.class_token.to(x_BLD.dtype).expand(len(lengths_B), 1, -1)
    x_BLD = torch.cat([class_B1D, x_BLD], dim=1)
    # True for the class token, in front, and for the jet's own constituents
    valid_BL = torch.arange(padded + 1) <= lengths_B[:, None]
    mask_B11L = valid_BL.to(x_BLD.device)[:, None, None, :]
    for block in model.blocks:
        assert isinstance(block, Block)
        x_BLD = padded_block(block, x_BLD, mask_B11L)
    logits_BK: Tensor = model.head(model.norm(x_BLD[:, 0]))
    return logits_BK


def padded_block(block: Block, x_BLD: Tensor, mask_B11L: Tensor) -> Tensor:
    """Apply one pre-norm block to padded jets.

    Parameters
    ----------
    block : its weights
    x_BLD : (B, L, D) tokens, the class token first
    mask_B11L : (B, 1, 1, L) bool, False where a token is padding

    Returns
    -------
    (B, L, D) tokens; those of the padding have no meaning.
    """
    qkv_BL3HE = block.qkv(block.attention_norm(x_BLD)).unflatten(-1, (3, -1, block.head_dim))
    q_BHLE, k_BHLE, v_BHLE = qkv_BL3HE.permute(2, 0, 3, 1, 4).unbind(0)
    out_BHLE = functional.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE, attn_mask=mask_B11L)
    x_BLD = x_BLD + block.out(out_BHLE.transpose(1, 2).flatten(2))
    gate_BLM, up_BLM = block.gate_up(block.feedforward_norm(x_BLD)).chunk(2, dim=-1)
    output_BLD: Tensor = x_BLD + block.down(functional.silu(gate_BLM) * up_BLM)
    return output_BLD


def pad(rows: Tensor, lengths_B: Tensor, padded: int) -> Tensor:
    """Spread the rows of all jets over a rectangle.

    Parameters
    ----------
    rows : (T, ...) rows of all constituents, in jet order
    lengths_B : (B,) integer, constituents of each jet, on the CPU
    padded : number of rows that each jet is filled up to

    Returns
    -------
    (B, padded, ...), zeros behind the rows of each jet.

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
