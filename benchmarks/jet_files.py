"""Random jets in the published JetClass format, with the multiplicity of real ones (45 on average)."""

from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from jetscale.common.files import atomic_path
from jetscale.jets.datasets.base import jet_file
from jetscale.jets.datasets.jetclass import JETCLASS_BRANCHES, JETCLASS_LABELS, JETCLASS_PREFIXES


def write_file(directory: Path, label: str, number: int, n_jets: int, constituents: float = 45) -> Path:
    """One file of random jets with the 41 published branches.

    Parameters
    ----------
    directory, label, number : where, of which class, and the number in the file's name
    n_jets : jets in the file
    constituents : mean of a jet; all that tells one class from another where classes differ in it
    """
    rng = np.random.default_rng([1, number, JETCLASS_LABELS.index(label)])  # no jet twice, in no file
    counts = np.clip(rng.poisson(constituents, n_jets), 1, None)
    flat = _random_constituents(rng, counts)
    columns = {}
    for name, kind in JETCLASS_BRANCHES.items():
        dtype = np.dtype(kind.removeprefix("list<").removesuffix(">"))
        if kind.startswith("list<"):
            columns[name] = ak.unflatten(flat[name].astype(dtype), counts)
        elif name.startswith("label_"):
            columns[name] = np.full(n_jets, name == f"label_{label}", dtype)
        else:
            columns[name] = rng.uniform(500, 1000, n_jets).astype(dtype)
    path = directory / jet_file("jetclass", JETCLASS_PREFIXES[label], number).path
    with atomic_path(path) as aside, uproot.recreate(aside, compression=uproot.LZ4(4)) as file:
        file.mktree("tree", {name: ak.type(values).content for name, values in columns.items()})
        for start in range(0, n_jets, 5_000):  # baskets of the published files hold a few thousand jets
            file["tree"].extend({name: values[start : start + 5_000] for name, values in columns.items()})
    return path


def _random_constituents(rng: np.random.Generator, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of all constituents, every jet's by falling pT, as the published files have them."""
    n = int(counts.sum())
    kind = rng.choice(5, n, p=[0.45, 0.13, 0.40, 0.01, 0.01])
    px, py, pz = rng.normal(0, 20, (3, n))
    falling = np.lexsort((-np.hypot(px, py), np.repeat(np.arange(len(counts)), counts)))
    px, py, pz = px[falling], py[falling], pz[falling]
    names = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
    charged = np.isin(kind, [0, 3, 4])
    return {
        "part_px": px,
        "part_py": py,
        "part_pz": pz,
        "part_energy": np.sqrt(px**2 + py**2 + pz**2),
        **{f"part_{name}": rng.normal(0, 0.2, n) for name in ("deta", "dphi")},
        **{
            f"part_{name}": charged * rng.exponential(0.1, n) for name in ("d0val", "d0err", "dzval", "dzerr")
        },
        "part_charge": charged * rng.choice([-1, 1], n),
        **{f"part_is{name}": kind == number for number, name in enumerate(names)},
    }
