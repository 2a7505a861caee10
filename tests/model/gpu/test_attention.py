"""Attention kernels against autograd of PyTorch's dense attention in double precision, jet by jet."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jetscale.model.kernels.gpu import attention as kernels
from tests.model.gpu.chunks import DEVICE, assert_close, chunk, rows_of

pytestmark = pytest.mark.gpu

# no constituent, one, the edges of every tile, odd ones; the batch begins behind the first two jets
LENGTHS = [9, 4, 0, 1, 30, 31, 32, 63, 64, 57, 127, 128, 200]
FIRST = 2


def tokens_and_capacity(spare: int, lengths: list[int]) -> tuple[int, int]:
    n_tokens = sum(lengths[FIRST:]) + len(lengths[FIRST:])
    return n_tokens, n_tokens + spare


def heads(x: Tensor) -> Tensor:
    return x.unflatten(1, (-1, 8)).transpose(0, 1)


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    attended = functional.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    return attended.transpose(0, 1).flatten(1)


# four programs share a head's long jets, or two; backward, 64 queries at once, or 32
@pytest.mark.parametrize(
    ("n_heads", "spare", "pairs", "few"), [(1, 37, 1_024, 512), (3, 0, 8, 0), (1, 5, 1, 0)]
)
def test_attention_is_that_of_each_jet_alone(
    n_heads: int, spare: int, pairs: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "PAIRS", pairs)
    monkeypatch.setattr(kernels, "FEW_PAIRS", few)
    lengths = LENGTHS if n_heads == 1 else [n for n in LENGTHS if n < 65]
    jets, n_jets = chunk(lengths), len(lengths) - FIRST
    jets.first.fill_(FIRST)
    n_tokens, capacity = tokens_and_capacity(spare, lengths)
    width = 8 * n_heads
    qkv, d_out = (torch.randn(capacity, n * width, device=DEVICE) for n in (3, 1))
    out, lse = (
        torch.full((capacity, width), 7.0, device=DEVICE),
        torch.zeros(n_heads, capacity, device=DEVICE),
    )
    d_qkv = torch.full((capacity, 3 * width), 7.0, device=DEVICE)
    kernels.attend(jets, n_jets, qkv, out, lse)
    kernels.attend_backward(jets, n_jets, qkv, out, lse, d_out, d_qkv)

    exact = qkv.double().cpu().requires_grad_()
    for low, high in rows_of(jets, FIRST, n_jets):
        attended = reference(*exact[low:high].chunk(3, dim=1))
        assert_close(out[low:high], attended)
        attended.backward(d_out[low:high].double().cpu())
    assert exact.grad is not None
    assert_close(d_qkv[:n_tokens], exact.grad[:n_tokens])
    assert (out[n_tokens:] == 7).all()
    assert (d_qkv[n_tokens:] == 7).all()


def test_scores_far_below_zero_are_not_those_of_keys_that_do_not_exist() -> None:
    lengths = [0, 4, 30, 70]
    jets, n_jets, n_tokens = chunk(lengths), len(lengths), sum(lengths) + len(lengths)
    jets.first.fill_(0)
    qkv, d_out = torch.randn(n_tokens, 24, device=DEVICE), torch.randn(n_tokens, 8, device=DEVICE)
    qkv[:, :16] = 0.0
    qkv[:, 0], qkv[:, 8] = 1e4, -1e4  # all scores are -1e8: each token's result is the mean of its jet
    out, lse = torch.zeros(n_tokens, 8, device=DEVICE), torch.zeros(1, n_tokens, device=DEVICE)
    d_qkv = torch.zeros_like(qkv)
    kernels.attend(jets, n_jets, qkv, out, lse)
    kernels.attend_backward(jets, n_jets, qkv, out, lse, d_out, d_qkv)
    assert torch.isfinite(d_qkv).all()
    for low, high in rows_of(jets, 0, n_jets):
        assert_close(out[low:high], qkv[low:high, 16:].double().cpu().mean(0).expand(high - low, 8))


@pytest.mark.parametrize("n_heads", [1, 3, 9])
def test_class_attention_is_the_first_row_of_each_jet(n_heads: int) -> None:
    lengths = [5, 2, 0, 1, 30, 31, 32, 70]
    jets, n_jets = chunk(lengths), len(lengths) - FIRST
    jets.first.fill_(FIRST)
    n_tokens, capacity = tokens_and_capacity(3, lengths)
    width = 8 * n_heads
    q, d_out = (torch.randn(n_jets, width, device=DEVICE) for _ in range(2))
    kv = torch.randn(capacity, 2 * width, device=DEVICE)
    out, d_q = torch.empty_like(q), torch.empty_like(q)
    d_kv, lse = torch.full_like(kv, 7.0), torch.empty(n_jets, n_heads, device=DEVICE)
    kernels.attend_class(jets, n_jets, q, kv, out, lse)
    kernels.attend_class_backward(jets, n_jets, q, kv, out, lse, d_out, d_q, d_kv)

    exact_q, exact_kv = (x.double().cpu().requires_grad_() for x in (q, kv))
    for b, (low, high) in enumerate(rows_of(jets, FIRST, n_jets)):
        attended = reference(exact_q[b : b + 1], *exact_kv[low:high].chunk(2, dim=1))
        assert_close(out[b : b + 1], attended)
        attended.backward(d_out[b : b + 1].double().cpu())
    assert exact_q.grad is not None
    assert exact_kv.grad is not None
    assert_close(d_q, exact_q.grad)
    assert_close(d_kv[:n_tokens], exact_kv.grad[:n_tokens])
    assert (d_kv[n_tokens:] == 7).all()


def test_tensors_may_be_parts_of_wider_ones() -> None:
    jets, n_jets, capacity, width = chunk([3, 40]), 2, 50, 16
    jets.first.fill_(0)
    whole = torch.randn(capacity, 5 * width, device=DEVICE)
    out, lse = torch.zeros(capacity, 2 * width, device=DEVICE), torch.zeros(2, capacity, device=DEVICE)
    apart = torch.zeros(capacity, width, device=DEVICE)
    kernels.attend(jets, n_jets, whole[:, width : 4 * width], out[:, width:], lse)
    kernels.attend(jets, n_jets, whole[:, width : 4 * width].contiguous(), apart, lse)
    assert torch.equal(out[:, width:], apart)
    assert not out[:, :width].any()


class Launched:
    """In place of a kernel: notes the grids that it would be launched with."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.grids.append(grid)
        return lambda *_, **__: None


@pytest.mark.parametrize("n_heads", [1, 3, 64])
def test_a_batch_may_have_more_jets_than_a_grid_has_rows(
    n_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's limit is 2^31 - 1 programs on the first axis of a grid, and 65,535 on the others."""
    launched = Launched()
    for name in ("_attend", "_attend_backward", "_attend_class", "_attend_class_backward"):
        monkeypatch.setattr(kernels, name, launched)
    jets, n_jets, width = chunk([1]), 500_000, 8 * n_heads
    x = torch.empty(1, 3 * width, device=DEVICE)
    lse = torch.empty(n_heads, 1, device=DEVICE)
    kernels.attend(jets, n_jets, x, x[:, :width], lse)
    kernels.attend_backward(jets, n_jets, x, x[:, :width], lse, x[:, :width], x)
    kernels.attend_class(jets, n_jets, x[:, :width], x, x[:, :width], lse)
    kernels.attend_class_backward(
        jets, n_jets, x[:, :width], x, x[:, :width], lse, x[:, :width], x[:, :width], x
    )
    assert len(launched.grids) == 4
    for first, *others in launched.grids:
        assert n_jets <= first < 2**31
        assert all(side <= 65_535 for side in others)
