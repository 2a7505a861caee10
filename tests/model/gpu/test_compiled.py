"""Every kernel compiles for a card, with what a multiprocessor has: no card is needed for that."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.runs import quiet_environment

WORDS = "128", "sm80:256"  # narrow kernels where they come nearest to the limits, and wide ones
SHARED_MEMORY = {90: 227 * 1024, 80: 163 * 1024}  # of a program, on an H100 and on an A100
# Bytes of a thread: what did not fit in its registers. On an A100 the attention's backward pass spills.
STACK = {90: 64, 80: 192}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_fit_a_card(tmp_path: Path) -> None:
    """On an H100 at the largest narrow width, on an A100 at a wide one: each kernel once."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.model.gpu.compiled", *WORDS],
        env={**quiet_environment(), "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
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
