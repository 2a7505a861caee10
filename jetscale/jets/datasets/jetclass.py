"""JetClass: ten classes, ROOT files of one process each.

Sources: ``jet-universe/jetclass_generation:postprocessing/rename.py`` (branches),
``jet-universe/particle_transformer:data/JetClass/JetClass_full.yaml`` (order of the labels). Momenta and
energies in GeV, impact parameters in mm, angles in rad.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from jetscale.jets.datasets.base import Anatomy, Dataset, JetFile, JetReader

if TYPE_CHECKING:
    from jetscale.jets.reading.locations import File

JETCLASS_TREE = "tree"

JETCLASS_PREFIXES: dict[str, str] = {
    "QCD": "ZJetsToNuNu",
    "Hbb": "HToBB",
    "Hcc": "HToCC",
    "Hgg": "HToGG",
    "H4q": "HToWW4Q",
    "Hqql": "HToWW2Q1L",
    "Zqq": "ZToQQ",
    "Wqq": "WToQQ",
    "Tbqq": "TTBar",
    "Tbl": "TTBarLep",
}
"""Label to process, the first part of ``{Process}_{NNN}.root``; labels in the published order."""

JETCLASS_LABELS = tuple(JETCLASS_PREFIXES)
"""Class names; index in the model's output = position here."""

PART_FLOATS = ("px", "py", "pz", "energy", "deta", "dphi", "d0val", "d0err", "dzval", "dzerr")

JETCLASS_BRANCHES: dict[str, str] = {
    **{f"part_{name}": "list<float32>" for name in PART_FLOATS},
    "part_charge": "list<float32>",
    **{
        f"part_is{kind}": "list<int32>"
        for kind in ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
    },
    "label_QCD": "float32",
    **{f"label_{name}": "bool" for name in ("Hbb", "Hcc", "Hgg", "H4q", "Hqql")},
    **{f"label_{name}": "int32" for name in ("Zqq", "Wqq", "Tbqq", "Tbl")},
    **{
        f"jet_{name}": "float32"
        for name in ("pt", "eta", "phi", "energy", "nparticles", "sdmass", "tau1", "tau2", "tau3", "tau4")
    },
    **{f"aux_genpart_{name}": "float32" for name in ("eta", "phi", "pid", "pt")},
    "aux_truth_match": "float32",
}
"""The 41 branches of TTree ``tree`` and their published types."""

COLUMNS = tuple(name for name in JETCLASS_BRANCHES if name.startswith(("part_", "jet_")))
"""Columns that can become inputs; JetClass-II has them too."""

JETCLASS_FOLDERS = {"train": "train_100M", "val": "val_5M", "test": "test_20M"}
"""Folder of each split under ``JetClass/Pythia``."""

JETCLASS_NUMBERS = {"train": range(100), "val": range(120, 125), "test": range(100, 120)}
"""File numbers of each split, for every process."""

_ANATOMY = {
    "QCD": Anatomy(1, frozenset()),
    "Hbb": Anatomy(2, frozenset("b")),
    "Hcc": Anatomy(2, frozenset("c")),
    "Hgg": Anatomy(2, frozenset("g")),
    "H4q": Anatomy(4, frozenset()),
    "Hqql": Anatomy(3, frozenset()),
    "Zqq": Anatomy(2, frozenset()),
    "Wqq": Anatomy(2, frozenset()),
    "Tbqq": Anatomy(3, frozenset("b")),
    "Tbl": Anatomy(2, frozenset("b")),
}


def _numbered(process: str, number: int) -> JetFile:
    if process not in JETCLASS_PREFIXES.values():
        raise ValueError(f"no process {process!r} in dataset 'jetclass'")
    for split, numbers in JETCLASS_NUMBERS.items():
        if number in numbers:
            path = Path("JetClass", "Pythia", JETCLASS_FOLDERS[split], f"{process}_{number:03d}.root")
            return JetFile("jetclass", process, number, split, path)
    raise ValueError(f"{process}_{number} is outside the published file numbers {JETCLASS_NUMBERS}")


def _file_of(name: str) -> JetFile:
    match = re.fullmatch(r"([A-Za-z0-9]+)_([0-9]{3,4})\.root", name)
    if not match:
        raise ValueError(f"{name}: not named {{Process}}_{{NNN}}.root")
    return _numbered(match[1], int(match[2]))


def _open(path: Path, called: File) -> JetReader:
    from jetscale.jets.reading.root_reader import RootReader  # uproot, which --help does not need

    return RootReader(path, called, JETCLASS_TREE, JETCLASS_LABELS)


JETCLASS = Dataset(
    name="jetclass",
    title="JetClass",
    origin="Zenodo record 6619768 (JetClass, folders train_100M, val_5M, test_20M)",
    folder="JetClass",
    suffixes=(".root",),
    file_names="{Process}_{NNN}.root",
    layout="ROOT files {Process}_{NNN}.root with a TTree `tree`",
    labels=JETCLASS_LABELS,
    columns=COLUMNS,
    file_of=_file_of,
    open=_open,
    anatomy=_ANATOMY,
    numbered=_numbered,
    downloadable=True,
    processes=tuple(JETCLASS_PREFIXES.values()),
)
