"""The two published file formats: column names, types, file names and the train/val/test file numbers.

One place for readers and for the simulator. Sources:
``jet-universe/jetclass_generation:postprocessing/rename.py`` (JetClass ROOT) and
``jet-universe/jetclass2_generation:delphes_analyzers/makeNtuples.C`` (JetClass-II parquet). Momenta and
energies in GeV, impact parameters and vertices in mm, times in s (as in the public file), angles in rad.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
FOLDERS = {"jetclass": "JetClass", "jetclass2": "JetClassII"}
SUFFIXES = {"jetclass": ".root", "jetclass2": ".parquet"}

_PART_FLOATS = ("px", "py", "pz", "energy", "deta", "dphi", "d0val", "d0err", "dzval", "dzerr")

JETCLASS_TREE = "tree"
JETCLASS_BRANCHES: dict[str, str] = {
    **{f"part_{name}": "list<float32>" for name in _PART_FLOATS},
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
"""JetClass: the 41 branches of TTree ``tree`` and their published types."""

JETCLASS2_COLUMNS: dict[str, str] = {
    **{f"part_{name}": "list<float32>" for name in _PART_FLOATS},
    "part_charge": "list<int32>",
    **{
        f"part_is{kind}": "list<bool>"
        for kind in ("Electron", "Muon", "Photon", "ChargedHadron", "NeutralHadron")
    },
    **{f"jet_{name}": "float32" for name in ("pt", "eta", "phi", "energy", "sdmass")},
    "jet_nparticles": "int32",
    **{f"jet_tau{n}": "float32" for n in (1, 2, 3, 4)},
    "jet_label": "int32",
    **{f"genpart_{name}": "list<float32>" for name in ("px", "py", "pz", "energy", "jet_deta", "jet_dphi")},
    **{f"genpart_{name}": "list<float32>" for name in ("x", "y", "z", "t")},
    "genpart_pid": "list<int32>",
    **{f"genjet_{name}": "float32" for name in ("pt", "eta", "phi", "energy", "sdmass")},
    "genjet_nparticles": "int32",
    **{f"aux_genpart_{name}": "list<float32>" for name in ("pt", "eta", "phi", "mass")},
    "aux_genpart_pid": "list<int32>",
    **{
        f"aux_genpart_is{kind}": "list<bool>"
        for kind in ("ResX", "ResY", "ResDecayProd", "TauDecayProd", "QcdParton")
    },
}
"""JetClass-II: the 54 parquet columns and their published types."""

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
"""JetClass: label to process, the first part of ``{Process}_{NNN}.root``."""

JETCLASS_FOLDERS = {"train": "train_100M", "val": "val_5M", "test": "test_20M"}
"""JetClass: folder of each split under ``JetClass/Pythia``."""

JETCLASS_NUMBERS = {"train": range(100), "val": range(120, 125), "test": range(100, 120)}
"""JetClass: file numbers of each split, for every process."""

JETCLASS2_NUMBERS = {
    "Res2P": {"train": range(200), "val": range(200, 250), "test": range(250, 300)},
    "Res34P": {"train": range(860), "val": range(860, 1075), "test": range(1075, 1290)},
    "QCD": {"train": range(280), "val": range(280, 350), "test": range(350, 420)},
}
"""JetClass-II: file numbers of each split, by bucket."""


@dataclass(frozen=True)
class JetFile:
    """One published or simulated file, as its name describes it.

    Attributes
    ----------
    dataset : ``jetclass`` or ``jetclass2``
    process : JetClass process prefix, or JetClass-II bucket
    number : the file number in the name
    split : ``train``, ``val`` or ``test``, by the published numbering
    """

    dataset: str
    process: str
    number: int
    split: str

    @property
    def path(self) -> Path:
        """Where the public recipes expect it, relative to the data directory."""
        if self.dataset == "jetclass":
            name = f"{self.process}_{self.number:03d}.root"
            return Path("JetClass", "Pythia", JETCLASS_FOLDERS[self.split], name)
        return Path("JetClassII", "Pythia", f"{self.process}_{self.number:04d}.parquet")


def jet_file(dataset: str, process: str, number: int) -> JetFile:
    """Place a file number in its split.

    Raises
    ------
    ValueError
        No such dataset or process, or a number outside the published numbering.
    """
    if dataset == "jetclass" and process in JETCLASS_PREFIXES.values():
        numbering = JETCLASS_NUMBERS
    elif dataset == "jetclass2" and process in JETCLASS2_NUMBERS:
        numbering = JETCLASS2_NUMBERS[process]
    else:
        raise ValueError(f"no process {process!r} in dataset {dataset!r}")
    for split, numbers in numbering.items():
        if number in numbers:
            return JetFile(dataset, process, number, split)
    raise ValueError(f"{process}_{number} is outside the published file numbers {numbering}")


def parse_name(name: str) -> JetFile:
    """Read process, number and split off a file name (``TTBarLep_003.root``, ``Res2P_0250.parquet``).

    Raises
    ------
    ValueError
        The name is not of the published form.
    """
    match = re.fullmatch(r"([A-Za-z0-9]+)_(\d{3,4})\.(root|parquet)", name)
    if not match:
        raise ValueError(f"{name}: not named {{Process}}_{{NNN}}.root or {{Bucket}}_{{NNNN}}.parquet")
    process, number, suffix = match.groups()
    return jet_file("jetclass" if suffix == "root" else "jetclass2", process, int(number))
