"""HToBB_000.root as ROOT writes it: ``pip install ROOT``, then ``python by_root.py HToBB_000.root``."""

from __future__ import annotations

import sys
from array import array

import numpy as np
import ROOT

FLOATS = ("px", "py", "pz", "energy", "deta", "dphi", "d0val", "d0err", "dzval", "dzerr", "charge")
FLAGS = ("isChargedHadron", "isNeutralHadron", "isPhoton", "isElectron", "isMuon")
FLAT = {
    "F": ["label_QCD", *(f"jet_{name}" for name in ("pt", "eta", "phi", "energy", "nparticles", "sdmass"))],
    "O": [f"label_{name}" for name in ("Hbb", "Hcc", "Hgg", "H4q", "Hqql")],
    "I": [f"label_{name}" for name in ("Zqq", "Wqq", "Tbqq", "Tbl")],
}
FLAT["F"] += [f"jet_tau{number}" for number in (1, 2, 3, 4)]
FLAT["F"] += [*(f"aux_genpart_{name}" for name in ("eta", "phi", "pid", "pt")), "aux_truth_match"]

rng = np.random.default_rng(5)
file = ROOT.TFile(sys.argv[1], "RECREATE", "", 404)
tree = ROOT.TTree("tree", "tree")
tree.SetAutoFlush(12)
vectors = {name: ROOT.std.vector("int" if name in FLAGS else "float")() for name in FLOATS + FLAGS}
for name, vector in vectors.items():
    tree.Branch(f"part_{name}", vector)
numbers = {name: array({"F": "f", "O": "b", "I": "i"}[kind], [0]) for kind in FLAT for name in FLAT[kind]}
for kind, names in FLAT.items():
    for name in names:
        tree.Branch(name, numbers[name], f"{name}/{kind}")
for _ in range(30):
    n = int(rng.integers(1, 8))
    kind = rng.integers(0, 5, n)
    charged = np.isin(kind, [0, 3, 4])
    values = {name: rng.normal(0, 20, n) for name in ("px", "py", "pz")}
    values |= {"energy": rng.exponential(20, n) + 0.5, "charge": charged * rng.choice([-1, 1], n)}
    values |= {name: rng.normal(0, 0.2, n) for name in ("deta", "dphi")}
    values |= {name: charged * rng.exponential(0.1, n) for name in ("d0val", "d0err", "dzval", "dzerr")}
    values |= {name: kind == number for number, name in enumerate(FLAGS)}
    for name, vector in vectors.items():
        vector.clear()
        for value in values[name]:
            vector.push_back(int(value) if name in FLAGS else float(value))
    for name, number in numbers.items():
        is_label = name.startswith("label_")
        number[0] = int(name == "label_Hbb") if is_label else float(rng.uniform(500, 900))
    tree.Fill()
tree.Write()
file.Close()
