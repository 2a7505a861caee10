"""Speed of the data path: ``prepare`` against bare reading, batches against weaver-core, growth."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import uproot

from benchmarks.growth import series
from benchmarks.jet_files import write_file
from benchmarks.loader_peers import weaver_rate
from jetscale.jets.datasets.files import needed_columns
from jetscale.jets.datasets.jetclass import JETCLASS, JETCLASS_LABELS
from jetscale.jets.features import PAPER
from jetscale.jets.settings import DataSettings
from jetscale.jets.source import JetSource
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest
from jetscale.jets.stream import JetStream

N_JETS = 100_000
"""Jets per file, as in the published ones; two files."""
LABELS = JETCLASS_LABELS[:2]
BATCH = 128
REPEATS = 5
STEP_MS = 10.0
"""A training step of dim 8 on a GPU, of which loading may take `LOADER_SHARE`."""
LOADER_SHARE = 0.03
CHUNK = 16_384
"""Jets of a chunk: 128 steps of 128 jets, as `jetscale.training.captured.plan` cuts a run of the paper."""
CHUNK_RATE = 1e6
"""Jets a second that one core is to gather, so that no width on a GPU waits for them."""
UPROOT_STEP = 25_000
"""Jets at once: the fastest of 5,000, 10,000, 25,000 and the whole file for uproot."""
MEMORY = Path("/dev/shm")
"""Where the files are, if it is there: a disk's fresh pages cost what the machine makes of it."""
GROWTH = (1, 2, 4, 8)
"""Sizes, in units, over which cost is to grow linearly; `SLOPE` leaves room for noise."""
SLOPE = 1.1

Entry = dict[str, object]


def run() -> dict[str, Entry]:
    """Every ratio of this room."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        return against_peers(Path(folder) / "large") | growth(Path(folder))


def against_peers(directory: Path) -> dict[str, Entry]:
    files = [write_file(directory, label, number, N_JETS) for number, label in enumerate(LABELS)]
    n_jets = N_JETS * len(files)
    store = prepare(directory, directory / "store")
    part17 = prepare(directory, directory / "store", "part17")
    reading, preparing, loading, by_class, loading17, gathering = medians(
        lambda _: read_bare(files),
        lambda number: prepare(directory, directory / f"store{number}"),
        lambda _: load_all(store, {"*": 1.0}),
        lambda _: load_all(store, dict.fromkeys(LABELS, 1.0)),
        lambda _: load_all(part17, {"*": 1.0}),
        lambda _: load_chunks(store),
    )
    milliseconds = loading / n_jets * BATCH * 1e3
    found = {
        "prepare": at_most(preparing / reading, 1.6, n_jets / preparing, n_jets / reading, "jets/s"),
        "loader_share": at_most(milliseconds / STEP_MS, LOADER_SHARE, milliseconds, STEP_MS, "ms"),
    }
    if weaver := weaver_rate(files):
        for name, seconds in (
            ("batches", loading),
            ("batches_by_class", by_class),
            ("batches_17", loading17),
        ):
            ours = n_jets / seconds
            found[name] = entry(ours / weaver, 25.0, ours / weaver >= 25, ours, weaver, "jets/s")
    return found | {"chunks": chunks(store, gathering)}


def chunks(store: Store, seconds: float) -> Entry:
    """Jets a second as a GPU gets them, from the CPU seconds of `load_chunks`."""
    rate = store.n_jets // CHUNK * CHUNK / seconds
    return entry(rate / CHUNK_RATE, 1.0, rate >= CHUNK_RATE, rate, CHUNK_RATE, "jets/s")


def growth(folder: Path) -> dict[str, Entry]:
    """Growth of CPU time with the number of files, and with that of jets in two files."""
    unit = N_JETS // 8
    by_files = [growing(folder / f"files{n}", n_files=4 * n, n_jets=unit // 4) for n in GROWTH]
    by_jets = [growing(folder / f"jets{n}", n_files=2, n_jets=n * unit // 2) for n in GROWTH]
    found = {}
    for name, sizes, seconds in (
        ("files", [4 * n for n in GROWTH], np.array(by_files)),
        ("jets", [n * unit for n in GROWTH], np.array(by_jets)),
    ):
        for column, what in enumerate(("prepare", "loader")):
            times = [float(time) for time in seconds[:, column]]
            found[f"growth_{what}_{name}"] = series(what, name, sizes, times, SLOPE)
    return found


def growing(directory: Path, n_files: int, n_jets: int) -> list[float]:
    """CPU seconds of `prepare` and of a pass over the store."""
    for number in range(n_files):
        write_file(directory, LABELS[number % 2], number, n_jets)
    stores = [prepare(directory, directory / "first")]
    found = medians(
        lambda number: prepare(directory, directory / f"store{number}"),
        lambda _: load_all(stores[0], {"*": 1.0}),
    )
    shutil.rmtree(directory)
    return found


def at_most(ratio: float, target: float, ours: float, reference: float, unit: str) -> Entry:
    return entry(ratio, target, ratio <= target, ours, reference, unit)


def entry(ratio: float, target: float, met: bool, ours: float, reference: float, unit: str) -> Entry:
    digits = 0 if unit == "jets/s" else 4
    return {
        "ratio": round(ratio, 3),
        "target": target,
        "met": bool(met),
        "ours": round(ours, digits),
        "reference": round(reference, digits),
        "unit": unit,
    }


def medians(*works: Callable[[int], object]) -> list[float]:
    """CPU seconds of each work, taken in turns; neighbours disturb them less than the wall clock."""
    seconds: list[list[float]] = [[] for _ in works]
    for number in range(REPEATS):
        for work, found in zip(works, seconds, strict=True):
            start = time.process_time()
            work(number)
            found.append(time.process_time() - start)
    return [statistics.median(found) for found in seconds]


def read_bare(files: list[Path]) -> None:
    """Read the branches that `prepare` needs with uproot, file by file, and do nothing with them."""
    wanted = [*needed_columns(JETCLASS, PAPER.reads), *(f"label_{name}" for name in JETCLASS_LABELS)]
    for path in files:
        with uproot.open(path) as file:
            for _ in file["tree"].iterate(filter_name=wanted, step_size=UPROOT_STEP, library="ak", how=dict):
                pass


def prepare(directory: Path, store_dir: Path, features: str = "paper") -> Store:
    request = StoreRequest(directory, store_dir, "jetclass", "train", features, "none")
    return ensure_store(request, workers=1)


def stream_of(store: Store, weights: dict[str, float]) -> JetStream:
    settings = DataSettings(
        dir=str(store.path.parent),
        store=str(store.path.parent),
        features=store.definition["features"]["name"],
    )
    return JetStream(JetSource(settings, "jetclass", "train", None if "*" in weights else weights, seed=0))


def load_all(store: Store, weights: dict[str, float]) -> None:
    stream = stream_of(store, weights)
    for start in range(0, store.n_jets - BATCH + 1, BATCH):
        stream.batch(start, start + BATCH)


def load_chunks(store: Store) -> None:
    """All whole chunks, each into the same memory, as a run on a GPU gathers them."""
    stream = stream_of(store, {"*": 1.0})
    room = stream.room(CHUNK)
    for start in range(0, store.n_jets - CHUNK + 1, CHUNK):
        stream.chunk(start, start + CHUNK, room)


if __name__ == "__main__":
    for name, result in run().items():
        print(name, result)
