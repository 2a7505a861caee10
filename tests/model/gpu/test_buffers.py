"""Where parameters and partial sums lie, and which models the kernels refuse."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from jetscale.model.deepsets import DeepSets
from jetscale.model.kernels import gpu
from jetscale.model.kernels.gpu.buffers import TILE, Layout, Weights
from jetscale.model.transformer import SetTransformer

CPU, CARD = torch.device("cpu"), torch.device("cuda")


def test_every_parameter_has_its_own_tiles() -> None:
    model = SetTransformer(24, 10)
    parts = {"norm.weight": 3, "blocks.1.out.weight": 2}
    layout, plain = Layout.of(model, parts), Layout.of(model)
    weights = Weights(layout, torch.zeros(layout.length), torch.zeros(layout.length))
    gradients = layout.gradients("cpu")
    for value, (name, parameter) in enumerate(model.named_parameters(), start=1):
        assert weights.single(name).shape == parameter.shape
        assert gradients.parts(name).shape == (parts.get(name, 1), parameter.numel())
        weights.single(name).fill_(value)
        gradients.parts(name).fill_(value)
        assert layout.slots[name].offset == plain.slots[name].offset
        assert layout.slots[name].offset % TILE == layout.slots[name].gradient % TILE == 0
    for value, (name, _) in enumerate(model.named_parameters(), start=1):
        assert (weights.single(name) == value).all()  # no later parameter wrote there
        assert (gradients.summed(name) == value * parts.get(name, 1)).all()
    assert gradients.whole("head.weight").shape == (10, 24)
    with pytest.raises(ValueError, match="sum of 3 parts"):
        gradients.whole("norm.weight")


class Mine(SetTransformer):
    pass


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
def test_what_cannot_be_captured_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    usual = SetTransformer(16, 10)
    assert gpu.unusable(usual, "bf16-mixed", CARD) is None
    frozen = SetTransformer(16, 10)
    frozen.embed.bias.requires_grad_(False)
    for reason, model, precision, device in (
        ("the device is cpu", usual, "bf16-mixed", CPU),
        ("32-true", usual, "32-true", CARD),
        ("network is a DeepSets", DeepSets(16, 10), "bf16-mixed", CARD),
        ("network is a Mine", Mine(16, 10), "bf16-mixed", CARD),
        ("head_dim is 4", SetTransformer(16, 10, head_dim=4), "bf16-mixed", CARD),
        ("frozen", frozen, "bf16-mixed", CARD),
    ):
        assert reason in str(gpu.unusable(model, precision, device))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert gpu.unusable(usual, "32-true", CPU) is None


@pytest.mark.skipif(find_spec("triton") is not None, reason="Triton is installed")
def test_without_triton_nothing_is_captured() -> None:
    assert gpu.unusable(SetTransformer(16, 10), "bf16-mixed", CARD) == "Triton is not installed"
