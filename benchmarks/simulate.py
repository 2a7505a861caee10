"""Share of the simulator's time that Pythia itself takes: all the rest should be nearly free.

CPU time of one process on chunks of real size. Two shares: Pythia with its initialisation (what cannot be
made faster from here), and the generation of events alone.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from jetscale.simulate.chunk import Chunk, Effort, simulate_chunk
from jetscale.simulate.pythia import save_mpi_table

TARGET = 0.8
JETS = {
    "jetclass": {"ZJetsToNuNu": 800, "HToBB": 800, "TTBar": 800},
    "jetclass2": {"QCD": 1000, "Res2P": 1000, "Res34P": 1000},
}


def run() -> dict[str, dict[str, Any]]:
    """Simulate a chunk of each process; about a minute."""
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "mpi.txt"
        save_mpi_table(table)
        for dataset, processes in JETS.items():
            # the first chunk of a process pays for imports and compilation of array kernels
            simulate_chunk(Chunk(dataset, next(iter(processes)), 0, 0, 10, 0), table)
            total = Effort()
            for process, jets in processes.items():
                _, effort = simulate_chunk(Chunk(dataset, process, 0, 1, jets, 0), table)
                for name, value in vars(effort).items():
                    setattr(total, name, getattr(total, name) + value)
            per_jet = 1e3 * total.seconds / total.jets
            for name, inside in (("pythia", total.init + total.pythia), ("pythia_events", total.pythia)):
                share = inside / total.seconds
                results[f"simulate_{dataset}_{name}"] = {
                    "ratio": share,
                    "target": TARGET,
                    "met": share >= TARGET,
                    "ours": per_jet,
                    "reference": 1e3 * inside / total.jets,
                    "unit": "CPU ms/jet, all of it against Pythia's part",
                }
    return results


def main() -> None:
    for name, entry in run().items():
        rate = 1e3 / entry["ours"]
        Console().print(
            f"{name}: {entry['ratio']:.0%} of {entry['ours']:.1f} ms/jet ({rate:.0f} jets/s a core)"
        )


if __name__ == "__main__":
    main()
