"""Small files in the published formats, with random jets that look like jets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from jetscale.jets.datasets.base import JetFile, jet_file
from jetscale.jets.datasets.jetclass import JETCLASS_BRANCHES, JETCLASS_LABELS, JETCLASS_PREFIXES
from jetscale.jets.datasets.jetclass2 import BUCKET_LABELS, JETCLASS2_COLUMNS, JETCLASS2_LABELS

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def real_jets() -> Path:
    path = SHARED / "JetClassII_example.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there: 100 real JetClass-II jets")
    return path


def random_jets(n_jets: int, seed: int) -> dict[str, Any]:
    """Columns common to both formats: offsets, flat constituents, per-jet numbers."""
    rng = np.random.default_rng([9001, seed])
    counts = rng.integers(2, 60, n_jets)
    n = int(counts.sum())
    jet = np.repeat(np.arange(n_jets), counts)
    eta_jet, phi_jet = rng.uniform(-2, 2, n_jets), rng.uniform(-np.pi, np.pi, n_jets)
    pt = rng.exponential(12.0, n) + 0.3
    order = np.lexsort((-pt, jet))
    pt = pt[order]
    deta, dphi = rng.normal(0, 0.2, n), rng.normal(0, 0.2, n)
    eta, phi = eta_jet[jet] + deta, phi_jet[jet] + dphi
    kind = rng.choice(["ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon"], n)
    charged = np.isin(kind, ["ChargedHadron", "Electron", "Muon"])
    parts = {
        "px": pt * np.cos(phi),
        "py": pt * np.sin(phi),
        "pz": pt * np.sinh(eta),
        "energy": pt * np.cosh(eta),
        "deta": deta * np.where(eta_jet > 0, 1, -1)[jet],
        "dphi": dphi,
        "d0val": charged * rng.standard_cauchy(n) * 0.02,
        "d0err": charged * rng.exponential(0.1, n),
        "dzval": charged * rng.standard_cauchy(n) * 0.05,
        "dzerr": charged * rng.exponential(0.2, n),
        "charge": charged * rng.choice([-1, 1], n),
        **{
            f"is{name}": kind == name
            for name in ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
        },
    }
    jets = {
        "pt": rng.uniform(510, 990, n_jets),
        "eta": eta_jet,
        "phi": phi_jet,
        "energy": rng.uniform(600, 3000, n_jets),
        "nparticles": counts,
        "sdmass": rng.exponential(80, n_jets),
        **{f"tau{number}": rng.uniform(0, 0.5, n_jets) for number in (1, 2, 3, 4)},
    }
    return {"counts": counts, "parts": parts, "jets": jets}


def write_jetclass(path: Path, label: str, n_jets: int, seed: int, **replace: Any) -> Path:
    made = random_jets(n_jets, seed)
    columns: dict[str, Any] = {}
    for name, kind in JETCLASS_BRANCHES.items():
        dtype = np.dtype(kind.removeprefix("list<").removesuffix(">"))
        if name.startswith("part_"):
            flat = made["parts"][name.removeprefix("part_")].astype(dtype)
            columns[name] = ak.unflatten(flat, made["counts"])
        elif name.startswith("label_"):
            columns[name] = np.full(n_jets, name == f"label_{label}", dtype)
        elif name.startswith("jet_"):
            columns[name] = made["jets"][name.removeprefix("jet_")].astype(dtype)
        else:
            columns[name] = np.zeros(n_jets, dtype)
    columns = {name: value for name, value in {**columns, **replace}.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path) as file:
        file.mktree("tree", {name: ak.type(value).content for name, value in columns.items()})
        file["tree"].extend(columns)
    return path


def arrow_type(kind: str) -> Any:
    names = {"float32": pa.float32(), "int32": pa.int32(), "bool": pa.bool_()}
    if kind.startswith("list<"):
        inner = names[kind.removeprefix("list<").removesuffix(">")]
        return pa.list_(pa.field("item", inner, nullable=False))
    return names[kind]


def write_jetclass2(path: Path, labels: Any, seed: int, row_group: int = 64, **replace: Any) -> Path:
    n_jets = len(labels)
    made = random_jets(n_jets, seed)
    offsets = pa.array(np.concatenate([[0], np.cumsum(made["counts"])]).astype(np.int32))
    columns: dict[str, Any] = {}
    for name, kind in JETCLASS2_COLUMNS.items():
        dtype = np.dtype(kind.removeprefix("list<").removesuffix(">"))
        if name.startswith("part_"):
            flat = made["parts"][name.removeprefix("part_")].astype(dtype)
            columns[name] = pa.ListArray.from_arrays(offsets, pa.array(flat), type=arrow_type(kind))
        elif kind.startswith("list<"):
            columns[name] = pa.array([[]] * n_jets, type=arrow_type(kind))
        elif name == "jet_label":
            columns[name] = pa.array(np.asarray(labels, np.int32))
        elif name.startswith("jet_"):
            columns[name] = pa.array(made["jets"][name.removeprefix("jet_")].astype(dtype))
        else:
            columns[name] = pa.array(np.zeros(n_jets, dtype))
    columns = {name: value for name, value in {**columns, **replace}.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group, compression="zstd")
    return path


@pytest.fixture
def write() -> SimpleNamespace:
    """Writers of single files: write.jetclass(path, label, n, seed), write.jetclass2(path, labels, seed)."""
    return SimpleNamespace(jetclass=write_jetclass, jetclass2=write_jetclass2)


def where(directory: Path, file: JetFile) -> Path:
    return directory / file.path


def fill_jetclass(directory: Path, n_jets: int = 40, files: int = 2) -> None:
    """`files` train files and one test file of every process."""
    for index, label in enumerate(JETCLASS_LABELS):
        for number in (*range(files), 100):
            file = jet_file("jetclass", JETCLASS_PREFIXES[label], number)
            write_jetclass(directory / file.path, label, n_jets + index, seed=1000 * index + number)


def fill_jetclass2(directory: Path, n_jets: int = 300, files: int = 2) -> None:
    """`files` train files and one test file of every bucket, all its labels mixed."""
    for bucket, names in BUCKET_LABELS.items():
        first = JETCLASS2_LABELS.index(names[0])
        for number in (*range(files), {"Res2P": 250, "Res34P": 1075, "QCD": 350}[bucket]):
            rng = np.random.default_rng([number, first])
            labels = first + np.concatenate([np.arange(len(names)), rng.integers(0, len(names), n_jets)])
            file = jet_file("jetclass2", bucket, number)
            write_jetclass2(directory / file.path, labels, seed=number + first)


@pytest.fixture
def fill() -> SimpleNamespace:
    """Writers of a whole folder: fill.jetclass(directory), fill.jetclass2(directory)."""
    return SimpleNamespace(jetclass=fill_jetclass, jetclass2=fill_jetclass2)


@pytest.fixture(scope="session")
def jetclass_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JetClass files, read-only: make stores elsewhere."""
    directory = tmp_path_factory.mktemp("jetclass")
    fill_jetclass(directory)
    return directory


@pytest.fixture(scope="session")
def jetclass2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JetClass-II files, read-only: make stores elsewhere."""
    directory = tmp_path_factory.mktemp("jetclass2")
    fill_jetclass2(directory)
    return directory


Fill = Callable[..., None]
