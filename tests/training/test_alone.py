"""The captured step alone, as plans and benchmarks take it, against PyTorch's own."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch.nn import functional

from jetscale.launch.probe import synthetic_batch
from jetscale.model.transformer import SetTransformer

weights = pytest.importorskip("jetscale.model.kernels.gpu.weights", reason="the kernels need Triton")
alone = pytest.importorskip("jetscale.training.captured.alone", reason="the kernels need Triton")


def test_the_steps_are_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # in float32: Triton's interpreter multiplies the bit patterns of bfloat16
    monkeypatch.setattr(alone, "FlatState", partial(alone.FlatState, half_dtype=torch.float32))
    monkeypatch.setattr(weights, "_MOST_PARTS", 2)  # the interpreter is slow
    torch.manual_seed(0)
    model = SetTransformer(8, 4, depth=1).to(device)
    peer, jets = copy.deepcopy(model), synthetic_batch(model, 2)
    alone.steps_alone(model, jets, 2)()
    optimizer = torch.optim.AdamW(peer.parameters(), lr=alone.RATE)
    for _ in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(peer(jets.to(device)), jets.labels_B.to(device)).backward()
        optimizer.step()
    pairs = zip(model.parameters(), peer.parameters(), strict=True)
    apart = torch.cat([(ours - theirs).detach().abs().flatten() for ours, theirs in pairs])
    # a chunk holds inputs in half precision, which turns the signs of a few tiny gradients
    assert float(apart.mean()) < 0.01 * alone.RATE
