"""Scores of a file, read, computed and written, against the forward pass alone on the same jets.

    python -m benchmarks predict

Wall time of ``python -m jetscale.tagger predict`` without its start, one thread for the network and one for
reading. Another process that takes the second core takes away the overlap of the two, so measure on two free
cores; ``processor`` is the same ratio in processor time, which does not depend on that.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
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


def run() -> Rows:
    """Ratio of wall times at a small and at a middle width."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return {f"predict_dim{dim}": _row(Path(folder), dim, n_jets) for dim, n_jets in DIMS.items()}
    finally:
        torch.set_num_threads(threads)


def _row(folder: Path, dim: int, n_jets: int) -> Row:
    path = write_file(folder, "QCD", dim, n_jets)
    torch.manual_seed(0)
    network = SetTransformer(dim, len(JETCLASS_LABELS)).eval().requires_grad_(False)
    run_of_it = cast(Any, SimpleNamespace(dataset=JETCLASS))  # all that is asked of a run here
    tagger = Tagger(run_of_it, network, JETCLASS_LABELS, Inputs(PAPER, 128, False), "raw")
    with open_file(path, tagger.inputs.columns, JETCLASS) as opened:
        batches = [batch for raw in opened.chunks for batch in tagger.inputs.batches(raw, BATCH)]

    def forward() -> None:
        for batch in batches:
            tagger.score_batch(batch)

    def whole() -> None:
        score_files(tagger, [path], folder / "scores.parquet")

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


if __name__ == "__main__":
    for name, one in run().items():
        print(name, one)
