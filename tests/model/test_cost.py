from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jetscale.common.paper import MEAN_CONSTITUENTS, WIDTHS
from jetscale.model import transformer
from jetscale.model.cost import (
    flops_6n,
)
from jetscale.model.operations import PLAIN
from jetscale.model.transformer import SetTransformer
from tests.model.jets import random_jets


def test_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        totals = [SetTransformer(dim, 10).count_parameters().total for dim in WIDTHS]
    assert len(totals) == 12
    assert 2_500 < totals[0] < 3_500
    assert 10_300_000 < totals[-1] < 10_800_000
    assert totals == sorted(totals)


@pytest.mark.parametrize(("dim", "n_pid"), [(8, 9), (32, 0)])
def test_parameters_by_kind(dim: int, n_pid: int) -> None:
    model = SetTransformer(dim, 10, n_pid=n_pid)
    counts = model.count_parameters()
    assert counts.blocks == 40 * dim**2
    assert counts.embedding == (8 + 1 + n_pid) * dim
    assert counts.class_token == dim
    assert counts.norms == 9 * dim
    assert counts.head == 10 * (dim + 1)
    assert counts.total == sum(p.numel() for p in model.parameters())


def test_compute_of_the_paper_does_not_overflow() -> None:
    jets = 76_800_000
    compute = flops_6n(10_500_000, MEAN_CONSTITUENTS * jets)
    assert compute == pytest.approx(6 * 10.5e6 * 40 * 7.68e7)
    assert isinstance(compute, float)


@pytest.mark.parametrize("dim", [8, 48])
def test_executed_flops_are_what_pytorch_counts(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jets of one length need no padding, and the unfused attention is plain matrix products."""
    monkeypatch.setattr(transformer, "operations_for", lambda *args: PLAIN)
    model = SetTransformer(dim, 10)
    jets = random_jets([6] * 5)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        logits_BK = model(jets)
    assert forward.get_total_flops() == model.flops(jets.lengths_B, backward=False)
    with FlopCounterMode(display=False) as backward:
        logits_BK.sum().backward()
    # unfused attention keeps its scores: 4 products in the backward where the fused recompute makes 5
    recomputed = 2 * dim * (3 * 5 * 7**2 + 5 * 7)
    both = model.flops(jets.lengths_B)
    assert forward.get_total_flops() + backward.get_total_flops() == both - recomputed


@pytest.mark.parametrize("dim", [8, 48])
def test_flops_of_a_last_block_without_keys(dim: int) -> None:
    """The folded products written out, against the count of the plain ones with one block replaced."""
    model, n_jets, tokens = SetTransformer(dim, 10, depth=1), 5, 7
    n_BLD, heads = torch.randn(n_jets, tokens, dim, requires_grad=True), dim // 8
    q_weight_HED, k_weight_HED, v_weight_HED = model.blocks[-1].qkv.weight.view(3, heads, 8, dim)
    with FlopCounterMode(display=False) as counter:
        q_HBE = n_BLD[:, 0] @ q_weight_HED.mT
        query_BHD = (q_HBE @ k_weight_HED).transpose(0, 1)
        weights_BHL = (query_BHD @ n_BLD.mT).softmax(-1)
        value_HBE = (weights_BHL @ n_BLD).transpose(0, 1) @ v_weight_HED.mT
        forward = counter.get_total_flops()
        value_HBE.square().sum().backward()
        both = counter.get_total_flops()
    plain_block = 2 * (n_jets + 2 * n_jets * tokens) * dim**2 + 4 * n_jets * tokens * dim
    plain_both = 3 * plain_block + 2 * n_jets * tokens * dim
    lengths = [tokens - 1] * n_jets
    for backward, folded, plain in ((False, forward, plain_block), (True, both, plain_both)):
        assert saved_by_folding(model, lengths, backward) == plain - folded


def saved_by_folding(model: SetTransformer, lengths: list[int], backward: bool) -> int:
    plain, folded = (model.flops(lengths, backward, folded) for folded in (False, True))
    return plain - folded


@pytest.mark.parametrize("dim", [8, 48])
@pytest.mark.parametrize("n_pid", [0, 9])
def test_flops_of_a_first_block_from_features(dim: int, n_pid: int) -> None:
    """Its products written out, against the count of the plain ones; depth 1 gives the last block's part."""
    lengths, n_vectors = [6] * 5, 8 + max(n_pid, 1) + 1
    vectors, x_SD = (
        torch.randn(n, dim, requires_grad=True) for n in (n_vectors, sum(lengths) + len(lengths))
    )
    weight, x_TF = torch.randn(3 * dim, dim, requires_grad=True), torch.randn(sum(lengths), 8)
    flops = []
    for forward in (lambda: x_SD @ weight.T, lambda: x_TF @ (vectors @ weight.T)[:8]):
        with FlopCounterMode(display=False) as counter:
            out = forward()
            alone = counter.get_total_flops()
            out.square().sum().backward()
        flops.append((alone, counter.get_total_flops()))
    deep, shallow = (SetTransformer(dim, 10, n_pid=n_pid, depth=depth) for depth in (3, 1))
    for backward, plain, folded in zip((False, True), *flops, strict=True):
        last = saved_by_folding(shallow, lengths, backward)
        assert saved_by_folding(deep, lengths, backward) - last == plain - folded


def test_executed_flops_approach_6n_at_large_width() -> None:
    with torch.device("meta"):
        model = SetTransformer(512, 10, depth=12)
    n_params = model.count_parameters().blocks
    ratio = model.flops([40] * 8) / flops_6n(n_params, 8 * 41)
    assert 0.9 < ratio < 1.0  # less for the last block, more for attention
