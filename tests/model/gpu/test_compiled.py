"""Every kernel compiles for a card, with what a multiprocessor has: no card is needed for that."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.runs import quiet_environment

SHARED_MEMORY = 227 * 1024  # of a program on an H100


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_fit_a_card(tmp_path: Path) -> None:
    """At one narrow and one wide width of the study."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.model.gpu.compiled", "8", "256"],
        env={**quiet_environment(), "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    narrow = {kernel["kernel"] for kernel in kernels if kernel["dim"] == 8}
    wide = {kernel["kernel"] for kernel in kernels if kernel["dim"] == 256}
    assert {"_update_kernel", "_head_kernel", "_attend_backward"} <= narrow & wide
    for kernel in kernels:
        assert kernel["stack"] <= 64, kernel
        assert kernel["shared"] <= SHARED_MEMORY, kernel
