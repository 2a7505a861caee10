"""Attention of the constituents of each jet to one another, on tokens packed without padding.

Two ways, chosen by device and precision, the same result:

- half precision on CUDA: PyTorch's variable-length flash attention, no padding at all;
- everything else: fused dense attention on buckets of jets of like length (`packing.PackingPlan.buckets`).

Shapes: S tokens of the batch, B jets, H heads, E channels of a head, N jets and L tokens of a bucket; the
figures 2 and 3 stand for stacked (key, value) and (query, key, value).
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from jetscale.model.packing import PackingPlan

HAS_VARLEN = find_spec("torch.nn.attention.varlen") is not None  # from PyTorch 2.10


def self_attention(qkv_S3HE: Tensor, plan: PackingPlan) -> Tensor:
    """Attend from every token to all tokens of its jet.

    Parameters
    ----------
    qkv_S3HE : (S, 3, H, E) queries, keys and values of the packed tokens
    plan : layout of the batch

    Returns
    -------
    (S, H, E): softmax(q k / sqrt(E)) v within each jet.
    """
    if _has_varlen_kernel(qkv_S3HE):
        q_SHE, k_SHE, v_SHE = qkv_S3HE.unbind(1)
        return _varlen(q_SHE, k_SHE, v_SHE, plan.offsets, plan, plan.longest)
    parts = []
    for bucket in plan.buckets:
        q_NHLE, k_NHLE, v_NHLE = qkv_S3HE[bucket.rows_NL].permute(2, 0, 3, 1, 4).unbind(0)
        out_NLHE = _dense(q_NHLE, k_NHLE, v_NHLE, bucket.valid_NL).transpose(1, 2)
        parts.append(out_NLHE.flatten(0, 1) if bucket.valid_NL is None else out_NLHE[bucket.valid_NL])
    return torch.cat(parts)[plan.token_order]


def class_attention(q_BHE: Tensor, kv_S2HE: Tensor, plan: PackingPlan) -> Tensor:
    """Attend from the class token of each jet alone to all tokens of the jet.

    Parameters
    ----------
    q_BHE : (B, H, E) queries of the class tokens
    kv_S2HE : (S, 2, H, E) keys and values of the packed tokens
    plan : layout of the batch

    Returns
    -------
    (B, H, E): the rows that `self_attention` gives for the class tokens.
    """
    if _has_varlen_kernel(kv_S2HE):
        k_SHE, v_SHE = kv_S2HE.unbind(1)
        return _varlen(q_BHE, k_SHE, v_SHE, plan.class_offsets, plan, 1)
    parts = []
    for bucket in plan.buckets:
        k_NHLE, v_NHLE = kv_S2HE[bucket.rows_NL].permute(2, 0, 3, 1, 4).unbind(0)
        q_NH1E = q_BHE[bucket.jets_N].unsqueeze(2)
        parts.append(_dense(q_NH1E, k_NHLE, v_NHLE, bucket.valid_NL).squeeze(2))
    return torch.cat(parts)[plan.jet_order]


def _dense(q_NHQE: Tensor, k_NHLE: Tensor, v_NHLE: Tensor, valid_NL: Tensor | None) -> Tensor:
    mask = None if valid_NL is None else valid_NL[:, None, None, :]
    return functional.scaled_dot_product_attention(q_NHQE, k_NHLE, v_NHLE, attn_mask=mask)


def _has_varlen_kernel(x: Tensor) -> bool:
    return HAS_VARLEN and x.is_cuda and x.dtype in (torch.float16, torch.bfloat16)


def _varlen(
    q_QHE: Tensor, k_SHE: Tensor, v_SHE: Tensor, offsets_q_B1: Tensor, plan: PackingPlan, longest_q: int
) -> Tensor:
    # Imported here, since the import takes two seconds.
    from torch.nn.attention import varlen

    out_QHE = varlen.varlen_attn(q_QHE, k_SHE, v_SHE, offsets_q_B1, plan.offsets, longest_q, plan.longest)
    assert isinstance(out_QHE, Tensor)
    return out_QHE
