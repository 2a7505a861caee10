"""Every kernel compiles for a card, with what a multiprocessor has: no card is needed for that."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from jetscale.model.kernels.gpu.card import shared_memory
from tests.runs import quiet_environment

WORDS = "128", "sm80:256"  # narrow kernels where they come nearest to the limits, and wide ones
SHARED_MEMORY = {90: 227 * 1024, 80: 163 * 1024}  # of a program, on an H100 and on an A100
# Bytes of a thread: what did not fit in its registers. On an A100 the attention's backward pass spills.
STACK = {90: 64, 80: 192}


needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def compiled(words: Sequence[str], cache: Path) -> list[dict[str, Any]]:
    """What `tests.model.gpu.compiled` prints of these words."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.model.gpu.compiled", *words],
        env={**quiet_environment(), "TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@needs_triton
def test_kernels_fit_a_card(tmp_path: Path) -> None:
    """On an H100 at the largest narrow width, on an A100 at a wide one: each kernel once."""
    kernels = compiled(WORDS, tmp_path)
    names: dict[tuple[int, int], set[str]] = {}
    for kernel in kernels:
        card = kernel["capability"]
        names.setdefault((card, kernel["dim"]), set()).add(kernel["kernel"])
        assert kernel["stack"] <= STACK[card], kernel
        assert kernel["shared"] <= SHARED_MEMORY[card], kernel
    narrow, wide = names[90, 128], names[80, 256]
    assert {"_update_kernel", "_head_kernel", "_attend_backward"} <= narrow & wide
    assert "rows_backward_kernel" in narrow
    assert "_norm_backward" in wide


# Widths and classes: the head that needs most, two of one piece, and the narrowest of two. Heads with a
# number of classes that is a power of two need less.
HEADS = [(512, 188), (64, 255), (32, 511), (24, 1_023)]


@pytest.mark.slow
@needs_triton
def test_a_head_of_many_classes_needs_no_more_of_a_card_than_is_asked_of_it(tmp_path: Path) -> None:
    kernels = compiled([f"sm80:{dim}x{n_classes}" for dim, n_classes in HEADS], tmp_path)
    assert len(kernels) == 2 * len(HEADS), "of training and of evaluation"
    for (dim, n_classes), pair in zip(HEADS, zip(kernels[::2], kernels[1::2], strict=True), strict=True):
        needed = max(kernel["shared"] for kernel in pair)
        assert needed <= shared_memory(dim, n_classes), (dim, n_classes)
