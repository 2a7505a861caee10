"""The card, and the tests that need one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.commands import ROOT, Running, stop

WORKERS = 8
"""Test processes at most: each has a context on the card."""
_WORD = r"(PASSED|FAILED|SKIPPED|ERROR)\b"
_OUTCOME = re.compile(rf" {_WORD}.*\[ *\d+%\]$|\[ *\d+%\] {_WORD}")  # of one process, of pytest-xdist
_TAIL = 6_000


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


def files_of_tests() -> list[Path]:
    """The test files that have a test marked ``gpu``: pytest need not import the others."""
    return sorted(path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text())


def command_of_tests(files: Sequence[Path]) -> list[str]:
    """The words that run the tests marked ``gpu``.

    Parameters
    ----------
    files : of tests
    """
    words = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider", "--color=no"]
    words += ["-p", "no:benchmark"]  # pytest-benchmark warns beside pytest-xdist, and warnings are errors
    if find_spec("xdist"):
        words += ["-n", str(min(WORKERS, len(os.sched_getaffinity(0))))]
    return [*words, *map(str, files)]


def ended(tests: Running, seconds: float) -> dict[str, Any]:
    """Outcome of the tests, as far as they come; those that run still are killed with their processes.

    Parameters
    ----------
    tests : `command_of_tests`, started
    seconds : how long to wait for it

    Returns
    -------
    Number of tests by outcome, an ``error`` where they did not end or failed, and the end of what pytest
    printed.
    """
    found: dict[str, Any] = {}
    try:
        status = tests.wait(seconds)
    except subprocess.TimeoutExpired:
        found["error"] = f"not done after {seconds:.0f} s"
        stop(tests)
    else:
        if status:
            found["error"] = f"exit status {status} of pytest"
    printed = tests.printed()
    return {**outcomes(printed), **found, "tail": printed[-_TAIL:]}


def outcomes(printed: str) -> dict[str, int]:
    """Number of tests by outcome, from the lines that ``pytest -v`` prints as each ends.

    Parameters
    ----------
    printed : whole or cut off, of one process or of pytest-xdist
    """
    found = (_OUTCOME.search(line) for line in printed.splitlines())
    return dict(Counter((one[1] or one[2]).lower() for one in found if one is not None))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
