"""Which jets enter a store."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.raw import RawJets

SELECTIONS: dict[str, dict[str, tuple[float, float]]] = {
    "none": {},
    # jet-universe/sophon:data/JetClassII/JetClassII_full.yaml; open intervals, GeV
    "sophon": {"jet_pt": (200.0, 2500.0), "jet_sdmass": (20.0, 500.0)},
}
"""By name: open interval of each jet column."""


def selection_cuts(name: str) -> dict[str, tuple[float, float]]:
    """Cuts of the selection of that name.

    Raises
    ------
    JetDataError
        There is none.
    """
    if name not in SELECTIONS:
        raise JetDataError(f"no selection {name!r}; there are {', '.join(SELECTIONS)}")
    return SELECTIONS[name]


def selected(raw: RawJets, name: str) -> npt.NDArray[np.bool_]:
    """Which of the B jets pass, (B,) bool."""
    passed = np.ones(raw.n_jets, np.bool_)
    for column, (low, high) in selection_cuts(name).items():
        passed &= (raw.jets[column] > low) & (raw.jets[column] < high)
    return passed
