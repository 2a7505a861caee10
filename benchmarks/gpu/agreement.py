"""Loss curves of one run: captured and eager in bfloat16, and float32, against the scatter of seeds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.runs import command, environment, jets, train_lines

STEPS, SEEDS, TIMEOUT = 2_000, (0, 1, 2), 400
ON_CPU = (8, 128)  # 2,000 steps of width 512 take an hour there: float32 on the card instead
# A run with a callback of the user goes step by step, without a graph.
EAGER = ("+callbacks.timer._target_=lightning.pytorch.callbacks.Timer", "--trust", "lightning")


def run(work: Path) -> dict[str, Any]:
    """For each width: final losses of the variants, and the scatter of captured seeds; all runs at once."""
    data = jets(work)
    ways: dict[str, tuple[str, ...]] = {"captured": (), "eager": EAGER}
    started: list[tuple[int, str, int, Path, subprocess.Popen[bytes]]] = []
    for dim in (8, 128, 512):
        single = ("device.accelerator=cpu",) if dim in ON_CPU else ("device.precision=32-true",)
        for way, more in {**ways, "float32": single}.items():
            for seed in SEEDS if way == "captured" else SEEDS[:1]:
                folder = work / f"{way}-{dim}-{seed}"
                folder.mkdir()
                process = subprocess.Popen(
                    command(data, dim, seed, STEPS, "tracking.log_every=50", *more),
                    cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                )  # fmt: skip
                started.append((dim, way, seed, folder, process))
    curves: dict[tuple[int, str, int], list[float]] = {}
    problems: list[str] = []
    for dim, way, seed, folder, process in started:
        try:
            _, printed = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            problems.append(f"{way} {dim} {seed}: not done after {TIMEOUT} s")
            continue
        if process.returncode:
            problems.append(f"{way} {dim} {seed}: {printed.decode()[-600:]}")
            continue
        lines = train_lines(folder, f"bench/scratch/dim={dim}/seed={seed}")
        curves[dim, way, seed] = [line["loss"] for line in lines]
    print(*problems, sep="\n", file=sys.stderr)
    return {"problems": problems, **{str(dim): _compared(curves, dim) for dim in (8, 128, 512)}}


def _compared(curves: dict[tuple[int, str, int], list[float]], dim: int) -> dict[str, Any]:
    """Root mean square difference of each way's curve from the captured one, and of seeds from their mean."""
    own = {
        seed: np.array(curves[dim, "captured", seed]) for seed in SEEDS if (dim, "captured", seed) in curves
    }
    if 0 not in own:
        return {}
    found: dict[str, Any] = {
        "last": {way: curve[-1] for (d, way, s), curve in curves.items() if d == dim and s == 0}
    }
    stacked = np.stack(list(own.values()))
    found["scatter_of_seeds"] = float(
        np.sqrt(((stacked - stacked.mean(0)) ** 2).sum(0).mean() / (len(own) - 1))
    )
    for way in ("eager", "float32"):
        if (dim, way, 0) in curves:
            found[f"{way}_minus_captured"] = float(
                np.sqrt(np.mean((np.array(curves[dim, way, 0]) - own[0]) ** 2))
            )
    return found
