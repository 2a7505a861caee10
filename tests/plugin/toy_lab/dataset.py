"""A dataset: quark and gluon jets, in parquet files of a layout of their own.

    python -m jetscale.train ... --trust toy_lab.dataset finetune.dataset=quark_gluon data.features=kinematics

A file is ``data/QuarkGluon/train.parquet``, ``val.parquet`` or ``test.parquet``. A row is a jet: lists
``pt``, ``eta``, ``phi``, ``mass`` of its particles (GeV, rad), and ``is_gluon``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import awkward as ak
import numpy as np

from jetscale.jets.datasets.base import DATASETS, FROM_MOMENTA, SPLITS, Anatomy, Dataset, JetFile
from jetscale.jets.reading.locations import File
from jetscale.jets.reading.momenta import jets_from_momenta
from jetscale.jets.reading.raw import RawJets


class QuarkGluonFile:
    """One open file: its number of jets, and any range of them. `called` is its name in error messages."""

    def __init__(self, path: Path, called: File) -> None:
        self._called = called
        self._jets = ak.from_parquet(path)
        self.n_jets = len(self._jets)

    def read(self, columns: Sequence[str], start: int, stop: int, step: int) -> Iterator[RawJets]:
        """Yield jets `start` to `stop`, at most `step` at a time."""
        for low in range(start, stop, step):
            jets = self._jets[low : min(low + step, stop)]
            pt, eta, phi, mass = (ak.flatten(jets[name]).to_numpy() for name in ("pt", "eta", "phi", "mass"))
            px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
            momenta = np.stack([np.sqrt(px**2 + py**2 + pz**2 + mass**2), px, py, pz], axis=1)
            lengths, labels = ak.num(jets["pt"]).to_numpy(), jets["is_gluon"].to_numpy().astype(int)
            yield jets_from_momenta(self._called, low, columns, lengths, momenta, labels, n_labels=2)

    def close(self) -> None:
        """Nothing is left open."""


def file_of(name: str) -> JetFile:
    """Split of a file, from its name."""
    split = name.removesuffix(".parquet")
    if split not in SPLITS:
        raise ValueError(f"{name}: not named train.parquet, val.parquet or test.parquet")
    return JetFile("quark_gluon", "QuarkGluon", 0, split, Path("QuarkGluon", name))


QUARK_GLUON = Dataset(
    name="quark_gluon",
    title="quark-gluon",
    origin="the toy laboratory",
    folder="QuarkGluon",
    suffixes=(".parquet",),
    file_names="{split}.parquet",
    layout="parquet files with lists pt, eta, phi, mass, and is_gluon",
    labels=("quark", "gluon"),  # the values 0 and 1 of is_gluon
    columns=FROM_MOMENTA,  # neither charge nor displacement: inputs that need them are refused
    file_of=file_of,
    open=QuarkGluonFile,
    # optional: what a composition may ask for as {prongs: 1, flavours: [g]}
    anatomy={"quark": Anatomy(1, frozenset("q")), "gluon": Anatomy(1, frozenset("g"))},
)
DATASETS.register("quark_gluon")(QUARK_GLUON)
