"""The way on CUDA, without a GPU: what is handed to PyTorch's variable-length kernel."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jetscale.model import attention
from jetscale.model.packing import PackingPlan
from tests.model.jets import random_lengths

varlen = pytest.importorskip(
    "torch.nn.attention.varlen", reason="this torch has no attention for variable lengths"
)


def documented(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int) -> Tensor:
    """What the documentation of `varlen_attn` says it computes: attention sequence by sequence."""
    parts = []
    for i in range(len(cu_q) - 1):
        queries, keys = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
        assert keys.stop - keys.start <= max_k
        assert queries.stop - queries.start <= max_q
        heads = [x.transpose(0, 1) for x in (q[queries], k[keys], v[keys])]
        parts.append(functional.scaled_dot_product_attention(*heads).transpose(0, 1))
    return torch.cat(parts)


def test_the_kernel_takes_the_arguments_it_is_given() -> None:
    names = list(inspect.signature(varlen.varlen_attn).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


def test_what_the_kernel_documents_is_what_the_buckets_give(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PackingPlan(torch.tensor(random_lengths(12)), torch.device("cpu"))
    qkv_S3HE = torch.randn(plan.n_tokens, 3, 2, 8, dtype=torch.float64)
    q_BHE = torch.randn(plan.n_jets, 2, 8, dtype=torch.float64)
    kv_S2HE = qkv_S3HE[:, 1:]
    dense = attention.self_attention(qkv_S3HE, plan), attention.class_attention(q_BHE, kv_S2HE, plan)
    monkeypatch.setattr(attention, "_has_varlen_kernel", lambda x: True)
    monkeypatch.setattr(varlen, "varlen_attn", documented)
    torch.testing.assert_close(attention.self_attention(qkv_S3HE, plan), dense[0])
    torch.testing.assert_close(attention.class_attention(q_BHE, kv_S2HE, plan), dense[1])
