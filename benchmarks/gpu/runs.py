"""Whole runs as a user starts them, all tracking on: time a step, start, memory, runs that share the card."""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.jet_files import write_file
from jetscale.jets.datasets.jetclass import JETCLASS_PREFIXES

STEPS = {8: 12_000, 16: 12_000, 32: 12_000, 64: 12_000, 128: 8_000, 256: 5_000, 512: 3_000}
QUICK = {8: 6_000, 128: 4_000, 512: 1_500}
JETS_A_CLASS = 2_000
SHARED = {8: (2, 4, 8), 64: (4,)}
SHARED_QUICK = {8: (4,)}
SHARED_STEPS = 20_000
TIMEOUT = 150

# The paper's grid (conf/sweep/paper.yaml), at each width: steps of its runs and pretrainings, and evaluations
# of 100,000 jets, one every 5,000 of 600,000 steps and 30 at log-spaced ones.
FINETUNINGS, PRETRAININGS, FINETUNE_STEPS, PRETRAIN_STEPS, EVALUATIONS = 25, 20, 600_000, 200_000, 150


def run(work: Path, quick: bool) -> dict[str, Any]:
    """One row a width: milliseconds a step, seconds from the command to the first step, MiB of the card.

    Parameters
    ----------
    work : folder for jets and runs
    quick : fewer widths and steps
    """
    data = jets(work)
    rows: dict[str, Any] = {"wandb": wandb_mode()}
    for dim, steps in (QUICK if quick else STEPS).items():
        with _memory() as memory:
            seconds = _train(work, data, dim, 0, steps)
        rows[str(dim)] = {**_read(work, f"bench/scratch/dim={dim}/seed=0", seconds), "memory_mib": memory[0]}
        print(dim, rows[str(dim)], flush=True)
    return rows


def shared(work: Path, quick: bool) -> dict[str, Any]:
    """Steps a second of all runs together, for several processes on one card at once."""
    data = jets(work)
    rows: dict[str, Any] = {}
    for dim, counts in (SHARED_QUICK if quick else SHARED).items():
        for count in counts:
            with _memory() as memory:
                started = [_start(work, data, dim, 100 * count + seed, SHARED_STEPS) for seed in range(count)]
                for process in started:
                    _require(process)
            places = [f"bench/scratch/dim={dim}/seed={100 * count + seed}" for seed in range(count)]
            rows[f"{dim} x {count}"] = {
                "steps_per_second": sum(1e3 / _steady(train_lines(work, place)) for place in places),
                "memory_mib": memory[0],
            }
            print(dim, count, rows[f"{dim} x {count}"], flush=True)
    return rows


def grid(steps: dict[str, Any], runs: dict[str, Any]) -> dict[str, Any]:
    """Hours of one card for the paper's grid, one run after another.

    What a run takes beyond its graph (measured at some widths) is interpolated in the width, and so is the
    time of an evaluation.
    """
    extra = {int(dim): row["ms"] - steps[dim]["graph_ms"] for dim, row in runs.items() if dim.isdigit()}
    evaluation = {
        int(d): r["evaluation_ms"] for d, r in steps.items() if d.isdigit() and "evaluation_ms" in r
    }
    starts = statistics.median(row["start_s"] for dim, row in runs.items() if dim.isdigit())
    hours = {}
    for dim, row in steps.items():
        if dim.isdigit():
            ms = row["graph_ms"] + _between(extra, int(dim))
            n_steps = FINETUNINGS * FINETUNE_STEPS + PRETRAININGS * PRETRAIN_STEPS
            tests = FINETUNINGS * EVALUATIONS * _between(evaluation, int(dim))
            hours[dim] = (n_steps * ms + tests) / 3.6e6 + FINETUNINGS * starts / 3_600
    return {"hours": hours, "total": sum(hours.values()) if len(hours) == 12 else None}


def jets(work: Path) -> Path:
    """Random jets of ten classes with mean multiplicities of 26 to 62, to train and to test on."""
    data = work / "data"
    if not data.exists():
        for number, label in enumerate(JETCLASS_PREFIXES):
            for split, offset in (("train_100M", 0), ("test_20M", 100)):
                folder = data / "JetClass" / split
                folder.mkdir(parents=True, exist_ok=True)
                write_file(folder, label, offset + number, JETS_A_CLASS, 26 + 4 * number)
    return data


def wandb_mode() -> str:
    """``offline``, which writes all that online mode sends; ``disabled`` where wandb is not installed."""
    return "offline" if find_spec("wandb") else "disabled"


def command(data: Path, dim: int, seed: int, steps: int, *more: str) -> list[str]:
    """A run from scratch at the paper's batch, rate, lines and checkpoints."""
    return [
        *(sys.executable, "-m", "jetscale.train", f"data.dir={data}", "data.repeat=true", "study=bench"),
        *(f"model.dim={dim}", f"seed={seed}", f"finetune.steps={steps}", "finetune.warmup=100"),
        *("eval.jets=10000", f"eval.every={steps}", "eval.log_points=3", "ema.enabled=true"),
        *("tracking.progress=false", f"tracking.wandb={wandb_mode()}", *more),
    ]


def environment() -> dict[str, str]:
    """One thread a process."""
    return os.environ | {"OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def _start(work: Path, data: Path, dim: int, seed: int, steps: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(data, dim, seed, steps), cwd=work, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _train(work: Path, data: Path, dim: int, seed: int, steps: int) -> float:
    """Train, and return the time at which the command was given."""
    begun = time.time()
    _require(_start(work, data, dim, seed, steps))
    return begun


def _require(process: subprocess.Popen[str]) -> None:
    printed, _ = process.communicate(timeout=TIMEOUT)
    if process.returncode:
        raise RuntimeError(printed[-3_000:])


def _read(work: Path, place: str, begun: float) -> dict[str, float]:
    lines = train_lines(work, place)
    (config,) = (work / "multirun" / place).rglob("config.yaml")
    return {
        "ms": _steady(lines),
        # the directory is made before imports and kernels, so the command's own start is counted from outside
        "start_s": config.stat().st_mtime - begun + lines[0]["seconds"],
        "loss": lines[-1]["loss"],
    }


def train_lines(work: Path, place: str) -> list[dict[str, Any]]:
    """Lines of the training loss of the one run below a folder of ``multirun``."""
    (path,) = (work / "multirun" / place).rglob("metrics.jsonl")  # in a folder named after what it varies
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in found if line["split"] == "train"]


def _steady(lines: Sequence[dict[str, Any]]) -> float:
    """Milliseconds a step: median over the lines of the second half."""
    half = lines[len(lines) // 2 :]
    return statistics.median(
        1e3 * (after["seconds"] - before["seconds"]) / (after["step"] - before["step"])
        for before, after in itertools.pairwise(half)
    )


def _between(known: dict[int, float], dim: int) -> float:
    """Linear in the logarithm of the width, constant beyond the ends."""
    dims = sorted(known)
    low = max([d for d in dims if d <= dim], default=dims[0])
    high = min([d for d in dims if d >= dim], default=dims[-1])
    if low == high or dim < dims[0] or dim > dims[-1]:
        return known[low]
    share = math.log(dim / low) / math.log(high / low)
    return known[low] + share * (known[high] - known[low])


@contextmanager
def _memory() -> Iterator[list[float]]:
    """Most memory of the card that was in use meanwhile, beyond what was before, in MiB."""
    before = torch.cuda.mem_get_info()[0]
    most, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            most[0] = max(most[0], (before - torch.cuda.mem_get_info()[0]) / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()
