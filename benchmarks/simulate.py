"""Cost of simulating an event, compared with Pythia's part of it: the rest should cost nearly nothing.

    python -m benchmarks.simulate

Processor time of two worker processes on chunks of real size. Pythia's part is the generation of its events.
Its initialisation, which cannot be made faster here, is in the floor.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.measure import Rows, row
from jetscale.simulate.chunk import Chunk, Effort, simulate_chunk
from jetscale.simulate.pythia import save_mpi_table

WORKERS, TARGET = 2, 1.25
JETS = {
    "jetclass": {"ZJetsToNuNu": 800, "HToBB": 800, "TTBar": 800},
    "jetclass2": {"QCD": 1000, "Res2P": 1000, "Res34P": 1000},
}


def effort_of(chunk: Chunk, table: Path) -> Effort:
    return simulate_chunk(chunk, table)[1]


def run() -> Rows:
    """Simulate chunks of each dataset; about a minute."""
    rows: Rows = {}
    pool = ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, pool:
        table = Path(folder) / "mpi.txt"
        save_mpi_table(table)
        for dataset, processes in JETS.items():
            chunks = [
                Chunk(dataset, process, 0, index, jets, 0)
                for index, (process, jets) in enumerate(processes.items())
            ]
            # a worker's first chunks pay for imports and the compilation of array kernels
            first = [Chunk(dataset, next(iter(processes)), 0, 9, 20, 0)] * (2 * WORKERS)
            list(pool.map(effort_of, first, [table] * len(first)))
            efforts = list(pool.map(effort_of, chunks, [table] * len(chunks)))
            events = sum(effort.events for effort in efforts)
            ours, init, pythia = (
                1e3 * sum(getattr(effort, part) for effort in efforts) / events
                for part in ("seconds", "init", "pythia")
            )
            rows[f"simulate_{dataset}_per_event"] = row(
                ours, pythia, TARGET, "CPU ms per event", floor=init + pythia
            )
    return rows


if __name__ == "__main__":
    for name, entry in run().items():
        print(name, entry)
