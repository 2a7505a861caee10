"""The captured step alone, as plans and benchmarks take it, against PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from jetscale.launch.probe import synthetic_batch
from jetscale.model.transformer import SetTransformer

pytest.importorskip("triton", reason="the kernels' interpreter is part of Triton, which is not installed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a CPU: in Triton's interpreter")
def test_the_steps_are_those_of_pytorch() -> None:
    from jetscale.training.captured.alone import RATE, steps_alone

    torch.manual_seed(0)
    model = SetTransformer(8, 4, depth=1)
    peer, jets = copy.deepcopy(model), synthetic_batch(model, 3)
    enqueue = steps_alone(model, jets, 2)
    enqueue()
    optimizer = torch.optim.AdamW(peer.parameters(), lr=RATE)
    for _ in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(peer(jets), jets.labels_B).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), peer.parameters(), strict=True):
        assert ours.data_ptr() != theirs.data_ptr()
        # products are in bfloat16, and a step of AdamW is of the size of the rate whatever the gradient's
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2 * RATE)
        assert float((ours - theirs).abs().mean()) < 0.2 * RATE
