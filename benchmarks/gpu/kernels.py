"""Compiles every kernel that the other parts need, into an empty cache, one process a width.

    python -m benchmarks.gpu.kernels DIM [OVERRIDE ...]

is such a process: it takes the steps and the evaluation of `benchmarks.gpu.steps` once, and then trains a run
with the overrides, which are those of `benchmarks.gpu.runs` but for the number of steps. So what compiles
here is what is launched later, by construction.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.commands import Bench, Run, Running, running, succeed
from benchmarks.gpu.session import Session

CACHE = "TRITON_CACHE_DIR"
SEED, STEPS = 2, 20


def run(bench: Bench, dims: Sequence[int], trained: Sequence[int]) -> None:
    """One row a width: seconds of its process, of those the first steps and evaluation, and the short run.

    As many processes at once as there are cores; the widest, which take longest, first.

    Parameters
    ----------
    bench : where, and with which jets
    dims : widths whose steps are measured later
    trained : widths of which runs are made later
    """
    widths = sorted({*dims, *trained}, reverse=True)
    cores = len(os.sched_getaffinity(0))
    start = time.monotonic()
    for first in range(0, len(widths), cores):
        batch = widths[first : first + cores]
        commands = [(_words(bench, dim, dim in trained), bench.work) for dim in batch]
        with running(commands, bench.start) as processes:
            for dim, process in zip(batch, processes, strict=True):
                bench.session.record("kernels", str(dim), partial(_ended, process, bench.session))
    found = {"all_s": time.monotonic() - start, "compiled": n_compiled(), "cores": cores}
    bench.session.results["kernels"] |= found


def n_compiled() -> int:
    """Compiled kernels in Triton's cache; 0 where it is not in a folder of its own."""
    return sum(1 for _ in Path(os.environ[CACHE]).rglob("*.cubin")) if CACHE in os.environ else 0


def _words(bench: Bench, dim: int, trained: bool) -> list[str]:
    overrides = bench.overrides(Run(dim, SEED, STEPS)) if trained else []
    return [sys.executable, "-m", "benchmarks.gpu.kernels", str(dim), *overrides]


def _ended(process: Running, session: Session) -> dict[str, Any]:
    succeed(process, session.left)
    lines = [line for line in process.printed().splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def main() -> None:
    """Compile for one width; prints the seconds."""
    dim, *overrides = sys.argv[1:]
    found: dict[str, float] = {}
    start = time.monotonic()
    if torch.cuda.is_available():  # elsewhere there is nothing to compile
        from benchmarks.gpu.steps import launch_once

        launch_once(int(dim))
        found["steps_s"] = time.monotonic() - start
    if overrides:
        sys.argv = ["jetscale.train", *overrides]
        begun = time.monotonic()
        runpy.run_module("jetscale.train", run_name="__main__", alter_sys=True)
        found["run_s"] = time.monotonic() - begun
    print(json.dumps({**found, "seconds": time.monotonic() - start}))


if __name__ == "__main__":
    main()
