"""Scores of files, read, computed and written, against the forward pass alone on the same jets.

    python -m benchmarks predict

Wall time of ``python -m jetscale.tagger predict`` without its start, one thread for the network and one for
reading and writing. Another process that takes the second core takes away the overlap of the two, so measure
on two free cores; ``processor`` is the same ratio in processor time, which does not depend on that.

Up to a million jets are scored in processes of their own, whose peak of resident memory is that of the
interpreter, the libraries and all: 100,000 random jets of one file, named once or several times.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from benchmarks.jet_files import write_file
from benchmarks.measure import Row, Rows, row
from jetscale.jets.datasets.jetclass import JETCLASS, JETCLASS_LABELS
from jetscale.jets.features import PAPER
from jetscale.jets.inputs import Inputs
from jetscale.model.transformer import SetTransformer
from jetscale.tagger.load import BATCH, Tagger
from jetscale.tagger.predict import score_files
from jetscale.tagger.sources import open_file

DIMS = {8: 100_000, 64: 20_000}
"""Jets to score by width."""
TARGET = 1.2
ROUNDS = 5
TIMES = (1, 3, 10)
"""How often the jets of the small width are scored: up to a million."""
GROWTH = 1.05
"""Most that the peak of memory at the most jets may be, over that of the second number: at the first one the
scores are written once, at the end, while longer runs hold those that are being written and the next ones.
Keeping all scores, 52 bytes a jet, would exceed it."""
PEAKS = "predict_memory"


def run() -> Rows:
    """Ratio of wall times at a small and at a middle width, then time and memory up to a million jets."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = {dim: write_file(folder, "QCD", dim, n_jets) for dim, n_jets in DIMS.items()}
            rows = {f"predict_dim{dim}": _row(dim, files[dim], folder / "scores.parquet") for dim in DIMS}
            return rows | _growth(files[8], folder / "scores.parquet")
    finally:
        torch.set_num_threads(threads)


def _tagger(dim: int) -> Tagger:
    torch.manual_seed(0)
    network = SetTransformer(dim, len(JETCLASS_LABELS)).eval().requires_grad_(False)
    run_of_it = cast(Any, SimpleNamespace(dataset=JETCLASS))  # all that is asked of a run here
    return Tagger(run_of_it, network, JETCLASS_LABELS, Inputs(PAPER, 128, False), "raw")


def _forward(tagger: Tagger, path: Path) -> Callable[[], None]:
    """The forward pass alone of all jets of a file, which are in memory."""
    with open_file(path, tagger.inputs.columns, JETCLASS) as opened:
        batches = [batch for raw in opened.chunks for batch in tagger.inputs.batches(raw, BATCH)]

    def forward() -> None:
        for batch in batches:
            tagger.score_batch(batch)

    return forward


def _row(dim: int, path: Path, out: Path) -> Row:
    tagger, n_jets = _tagger(dim), DIMS[dim]
    forward = _forward(tagger, path)

    def whole() -> None:
        score_files(tagger, [path], out)

    wall: dict[str, list[float]] = {"whole": [], "forward": []}
    processor: dict[str, list[float]] = {"whole": [], "forward": []}
    for number in range(ROUNDS + 1):
        for name, way in (("whole", whole), ("forward", forward)):
            times = _seconds(way)
            if number:  # the first round compiles kernels and fills caches
                wall[name].append(times[0])
                processor[name].append(times[1])
    ours, reference = (1e6 / n_jets * statistics.median(wall[name]) for name in ("whole", "forward"))
    ratio = statistics.median(processor["whole"]) / statistics.median(processor["forward"])
    return row(ours, reference, TARGET, "us/jet") | {"processor": ratio}


def _seconds(way: Callable[[], None]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - wall, time.process_time() - processor


def _growth(path: Path, out: Path) -> Rows:
    """Time of the most jets over that of their forward pass, and peaks of memory."""
    jets = [times * DIMS[8] for times in TIMES]
    found: dict[int, list[dict[str, float]]] = {times: [] for times in TIMES}
    for _ in range(3):
        for times in TIMES:
            words = [sys.executable, "-m", "benchmarks.predict", str(path), str(times), str(out)]
            told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[times].append(json.loads(told))
    seconds = [statistics.median(one["seconds"] for one in of) for of in found.values()]
    peaks = [max(one["MiB"] for one in of) for of in found.values()]
    forward = statistics.median(one["forward"] for one in found[TIMES[-1]])
    measured = {"jets": jets, "seconds": seconds, "MiB": peaks}
    return {
        "predict_million": row(1e6 * seconds[-1] / jets[-1], 1e6 * forward / DIMS[8], TARGET, "us/jet"),
        PEAKS: row(peaks[-1], peaks[1], GROWTH, "MiB") | measured,
    }


def _alone(path: Path, times: int, out: Path) -> None:
    """Score a file so many times; print the seconds, the peak of memory, and seconds of one forward pass."""
    torch.set_num_threads(1)
    tagger = _tagger(8)
    with tempfile.TemporaryDirectory() as folder:  # loads the compiled kernels
        score_files(tagger, [write_file(Path(folder), "QCD", 0, 100)], Path(folder, "scores.parquet"))
    seconds, _ = _seconds(lambda: score_files(tagger, [path] * times, out))
    # getrusage would give the peak of the process that started this one, where that is higher
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024  # KiB
    forward, _ = _seconds(_forward(tagger, path))
    print(json.dumps({"seconds": seconds, "MiB": peak, "forward": forward}))


if __name__ == "__main__":
    _alone(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
