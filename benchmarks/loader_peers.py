"""weaver-core 0.5.3, the loader of ParT and Sophon, as the peer of ours.

It runs in this interpreter (``pip install -e '.[bench]'``), or in the one that WEAVER_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from jetscale.jets.datasets.jetclass import JETCLASS_LABELS

FETCH_STEPS = (0.01, 0.05, 0.2)
"""Parts of the files read at once; the fastest counts (0.01 is its default)."""

# ParT's 17 inputs: jet-universe/particle_transformer:data/JetClass/JetClass_full.yaml
_NEW = {
    "part_mask": "ak.ones_like(part_energy)",
    "part_pt": "np.hypot(part_px, part_py)",
    "part_pt_log": "np.log(part_pt)",
    "part_e_log": "np.log(part_energy)",
    "part_logptrel": "np.log(part_pt/jet_pt)",
    "part_logerel": "np.log(part_energy/jet_energy)",
    "part_deltaR": "np.hypot(part_deta, part_dphi)",
    "part_d0": "np.tanh(part_d0val)",
    "part_dz": "np.tanh(part_dzval)",
}
_SCALED = (
    ["part_pt_log", 1.7, 0.7],
    ["part_e_log", 2.0, 0.7],
    ["part_logptrel", -4.7, 0.7],
    ["part_logerel", -4.7, 0.7],
    ["part_deltaR", 0.2, 4.0],
)
_AS_IS = ("charge", "isChargedHadron", "isNeutralHadron", "isPhoton", "isElectron", "isMuon", "d0", "dz")
_CLIPPED = ("part_d0err", "part_dzerr")
_FEATURES = [
    *_SCALED,
    *([f"part_{name}", None] for name in _AS_IS),
    *([name, 0, 1, 0, 1] for name in _CLIPPED),
    *([name, None] for name in ("part_deta", "part_dphi")),
]
CONFIG = {
    "treename": "tree",
    "new_variables": _NEW,
    "preprocess": {"method": "manual", "data_fraction": 0.5},
    "inputs": {
        "pf_features": {"length": 128, "pad_mode": "wrap", "vars": _FEATURES},
        "pf_mask": {"length": 128, "pad_mode": "constant", "vars": [["part_mask", None]]},
    },
    "labels": {"type": "simple", "value": [f"label_{name}" for name in JETCLASS_LABELS]},
}


def weaver_rate(files: list[Path]) -> float | None:
    """Jets per CPU second of one process; None, and why on stderr, without weaver-core."""
    python = os.environ.get("WEAVER_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import weaver"], capture_output=True, check=False)
    if found.returncode:
        print(
            f"no comparison with weaver: {python} has no weaver-core; pip install -e '.[bench]', "
            "or name an interpreter that has it in WEAVER_PYTHON",
            file=sys.stderr,
        )
        return None
    peer = Path(__file__).with_name("weaver_peer.py")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
        json.dump(CONFIG, config)  # JSON is YAML
        config.flush()
        commands = [
            [python, str(peer), config.name, str(step), *(str(file) for file in files)]
            for step in FETCH_STEPS
        ]
        alone = {**os.environ, "PYTHONSAFEPATH": "1"}  # numba would take our coverage.py for the library
        runs = [
            subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=alone)
            for command in commands
        ]
    return max(float(run.stdout.split()[-1]) for run in runs)
