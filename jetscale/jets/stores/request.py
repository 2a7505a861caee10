"""Identify a packed store, and the definition that it must match: dataset, split, inputs and selection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.datasets.files import SourceFile, find_sources
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import Folder
from jetscale.jets.reading.raw import RawJets
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.packed_store import FORMAT

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
    """Which of the jets pass the selection of that name, (B,) bool.

    Parameters
    ----------
    raw : B jets as read
    name : of the selection
    """
    passed = np.ones(raw.n_jets, np.bool_)
    for column, (low, high) in selection_cuts(name).items():
        passed &= (raw.jets[column] > low) & (raw.jets[column] < high)
    return passed


@dataclass(frozen=True)
class StoreRequest:
    """The store of one dataset, split, feature set and selection.

    Attributes
    ----------
    directory : folder with the jet files, perhaps remote
    store_dir : folder of packed stores
    dataset, split, features, selection : names

    Raises
    ------
    JetDataError
        There is no dataset, feature set or selection of that name, or it needs a column that the dataset
        lacks.
    """

    directory: Folder
    store_dir: Path
    dataset: str
    split: str
    features: str
    selection: str

    def __post_init__(self) -> None:
        dataset = DATASETS[self.dataset]
        dataset.feature_set(self.features)
        cuts = selection_cuts(self.selection)
        dataset.require(tuple(cuts), f"selection={self.selection}", "take selection=none")

    @property
    def path(self) -> Path:
        """Folder of this store."""
        chosen = "" if self.selection == "none" else f"_{self.selection}"
        return self.store_dir / f"{self.dataset}_{self.split}_{self.features}{chosen}"

    def sources(self) -> list[SourceFile]:
        """Jet files that are there now."""
        return find_sources(self.directory, self.dataset, self.split)

    def definition(self) -> dict[str, Any]:
        """What identifies the store besides its sources."""
        cuts = {column: list(cut) for column, cut in selection_cuts(self.selection).items()}
        return {
            "format": FORMAT,
            "dataset": self.dataset,
            "split": self.split,
            "n_labels": len(DATASETS[self.dataset].labels),
            "features": DATASETS[self.dataset].feature_set(self.features).definition(),
            "selection": {"name": self.selection, "cuts": cuts},
        }


def store_request(settings: DataSettings, dataset: str, split: str) -> StoreRequest:
    """Store that these settings ask for, of the dataset of that name; raises as `StoreRequest`.

    Parameters
    ----------
    settings : where the jets are, and how they become inputs
    dataset : its name
    split : train, val or test
    """
    return StoreRequest(
        settings.directory, settings.store_dir, dataset, split, settings.features, settings.selection
    )
