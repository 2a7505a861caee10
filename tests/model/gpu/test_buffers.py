"""Where parameters and partial sums lie, and which models the kernels refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from jetscale.model.deepsets import DeepSets
from jetscale.model.kernels import gpu
from jetscale.model.kernels.gpu.buffers import TILE, Layout, Weights
from jetscale.model.kernels.gpu.card import Card, c_compiler, lacking
from jetscale.model.transformer import SetTransformer

CPU, CARD = torch.device("cpu"), torch.device("cuda")
H100 = Card("Card", (9, 0), 232_448, "/usr/bin/gcc", True)
DESKTOP = {"capability": (8, 9), "shared_memory": 101_376}


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
    monkeypatch.setattr(gpu, "card_of", lambda _: H100)
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
    monkeypatch.setattr(gpu, "card_of", lambda _: replace(H100, compiler=None))
    assert "C compiler" in str(gpu.unusable(usual, "bf16-mixed", CARD))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert gpu.unusable(usual, "32-true", CPU) is None


@pytest.mark.parametrize(
    ("card", "dim", "n_classes", "reason"),
    [
        ({}, 512, 188, None),
        ({"capability": (8, 0), "shared_memory": 166_912}, 512, 188, None),  # an A100
        ({"capability": (7, 5)}, 8, 10, "Card has compute capability 7.5, less than 8.0"),
        (DESKTOP, 512, 128, None),
        (DESKTOP, 64, 188, None),
        (DESKTOP, 96, 188, "101,376 bytes .* width 96 with 188 classes need 160,256"),
        (DESKTOP, 48, 300, "width 48 with 300 classes"),
        (DESKTOP, 32, 512, None),
        (DESKTOP, 32, 513, "width 32 with 513 classes need 160,256"),
        (DESKTOP, 16, 1_024, None),
        ({}, 512, 1_024, None),
        ({}, 8, 1_025, "1,025 classes, and the head's kernel takes at most 1,024"),
        ({"compiler": None}, 8, 10, "Triton needs a C compiler: .* CC"),
        ({"headers": False}, 8, 10, r"Python\.h"),
    ],
)
def test_a_card_that_lacks_something_is_named_before_anything_is_compiled(
    card: dict[str, Any], dim: int, n_classes: int, reason: str | None
) -> None:
    said = lacking(replace(H100, **card), dim, n_classes)
    assert said is None if reason is None else re.search(reason, str(said))


def test_the_compiler_is_the_one_that_triton_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert c_compiler() is None
    for name in ("clang", "gcc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert c_compiler() == str(tmp_path / name), "gcc before clang"
    monkeypatch.setenv("CC", "nvc")
    assert c_compiler() is None
    monkeypatch.setenv("CC", str(tmp_path / "clang"))
    assert c_compiler() == str(tmp_path / "clang")


@pytest.mark.skipif(find_spec("triton") is not None, reason="Triton is installed")
def test_without_triton_nothing_is_captured() -> None:
    assert gpu.unusable(SetTransformer(16, 10), "bf16-mixed", CARD) == "Triton is not installed"
