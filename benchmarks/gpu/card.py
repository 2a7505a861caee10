"""The card, and the tests that need one."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

TEST_SECONDS = 150


def card() -> dict[str, Any]:
    """Name of the card, and the versions of what runs on it."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": properties.total_memory / 2**30,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "wandb": _version("wandb"),
    }


def tests() -> dict[str, Any]:
    """Outcome of the tests marked ``gpu``, the last lines of the failed ones included."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-rs", "tests"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TEST_SECONDS)
    except subprocess.TimeoutExpired as stopped:
        printed = stopped.stdout or b""
        return {
            "error": f"not done after {TEST_SECONDS} s",
            "tail": printed[-3_000:].decode(errors="replace"),
        }
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    return {**counts, "tail": done.stdout[-6_000:] if done.returncode else done.stdout[-1_000:]}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
