"""Speed of the data path: ``prepare`` against bare reading, and batches from the packed store.

Jets are random, in the published JetClass format, with the multiplicity of real ones (45 on average).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import numpy as np
import torch
import uproot

from jetscale.files import atomic_path
from jetscale.jets.building import ensure_store
from jetscale.jets.compositions import Composition
from jetscale.jets.features import PAPER, feature_set
from jetscale.jets.label_map import label_map
from jetscale.jets.labels import JETCLASS_LABELS
from jetscale.jets.order import MixedOrder
from jetscale.jets.readers import needed_columns
from jetscale.jets.request import StoreRequest
from jetscale.jets.schemas import JETCLASS_BRANCHES, JETCLASS_PREFIXES, jet_file
from jetscale.jets.store import Store
from jetscale.jets.stream import JetStream

N_JETS = 100_000
"""Jets per file, as in the published ones; two files."""
LABELS = JETCLASS_LABELS[:2]
BATCH = 128
REPEATS = 5
FLOOR = 300_000
"""Jets per second that batches are to reach: 25 times what weaver-core 0.5.3 makes of the same files."""


def run() -> dict[str, dict[str, object]]:
    """Every ratio of this room."""
    torch.set_num_threads(1)
    labels = dict.fromkeys(LABELS, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        files = [write_file(directory, label, number) for number, label in enumerate(LABELS)]
        n_jets = N_JETS * len(files)
        store = prepare(directory, directory / "store")
        reading, preparing, loading, by_class = medians(
            lambda _: read_bare(files),
            lambda number: prepare(directory, directory / f"store{number}"),
            lambda _: load_all(store, {"*": 1.0}),
            lambda _: load_all(store, labels),
        )
    return {
        "prepare": entry(preparing / reading, 1.6, n_jets / preparing, n_jets / reading, smaller=True),
        "batches": entry(n_jets / loading / FLOOR, 1.0, n_jets / loading, FLOOR, smaller=False),
        "batches_by_class": entry(n_jets / by_class / FLOOR, 1.0, n_jets / by_class, FLOOR, smaller=False),
    }


def entry(ratio: float, target: float, ours: float, reference: float, *, smaller: bool) -> dict[str, object]:
    met = ratio <= target if smaller else ratio >= target
    return {
        "ratio": round(ratio, 3),
        "target": target,
        "met": met,
        "ours": round(ours),
        "reference": round(reference),
        "unit": "jets/s",
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
    wanted = [*needed_columns(PAPER.reads), *(f"label_{name}" for name in JETCLASS_LABELS)]
    for path in files:
        with uproot.open(path) as file:
            file["tree"].arrays(wanted, library="ak")


def prepare(directory: Path, store_dir: Path) -> Store:
    request = StoreRequest(directory, store_dir, "jetclass", "train", "paper", "none")
    return ensure_store(request, workers=1)


def load_all(store: Store, weights: dict[str, float]) -> None:
    labels = label_map("jetclass")
    mix = Composition.natural(labels) if "*" in weights else Composition.from_weights(weights, labels)
    order = MixedOrder(store, labels, mix, seed=0)
    stream = JetStream(store, order, labels, feature_set("paper"), 128, undo_deta_flip=False)
    for start in range(0, store.n_jets - BATCH + 1, BATCH):
        stream.batch(start, start + BATCH)


def write_file(directory: Path, label: str, seed: int) -> Path:
    """One file of random jets with the 41 published branches."""
    rng = np.random.default_rng([1, seed])
    counts = np.clip(rng.poisson(45, N_JETS), 1, None)
    flat = _random_constituents(rng, int(counts.sum()))
    columns = {}
    for name, kind in JETCLASS_BRANCHES.items():
        dtype = np.dtype(kind.removeprefix("list<").removesuffix(">"))
        if kind.startswith("list<"):
            columns[name] = ak.unflatten(flat[name].astype(dtype), counts)
        elif name.startswith("label_"):
            columns[name] = np.full(N_JETS, name == f"label_{label}", dtype)
        else:
            columns[name] = rng.uniform(500, 1000, N_JETS).astype(dtype)
    path = directory / jet_file("jetclass", JETCLASS_PREFIXES[label], seed).path
    with atomic_path(path) as aside, uproot.recreate(aside, compression=uproot.LZ4(4)) as file:
        file.mktree("tree", {name: ak.type(values).content for name, values in columns.items()})
        for start in range(0, N_JETS, 5_000):  # baskets of the published files hold a few thousand jets
            file["tree"].extend({name: values[start : start + 5_000] for name, values in columns.items()})
    return path


def _random_constituents(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    kind = rng.choice(5, n, p=[0.45, 0.13, 0.40, 0.01, 0.01])
    names = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
    charged = np.isin(kind, [0, 3, 4])
    return {
        **{f"part_{name}": rng.normal(0, 20, n) for name in ("px", "py", "pz")},
        "part_energy": rng.exponential(20, n) + 0.5,
        **{f"part_{name}": rng.normal(0, 0.2, n) for name in ("deta", "dphi")},
        **{
            f"part_{name}": charged * rng.exponential(0.1, n) for name in ("d0val", "d0err", "dzval", "dzerr")
        },
        "part_charge": charged * rng.choice([-1, 1], n),
        **{f"part_is{name}": kind == number for number, name in enumerate(names)},
    }


if __name__ == "__main__":
    for name, result in run().items():
        print(name, result)
