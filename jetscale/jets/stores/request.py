"""Which store is meant, and what it must be made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetscale.jets.datasets.label_map import STORED_LABELS
from jetscale.jets.features import feature_set
from jetscale.jets.ordering.selection import selection_cuts
from jetscale.jets.reading.locations import Folder
from jetscale.jets.reading.source_files import SourceFile, find_sources
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.packed_store import FORMAT


@dataclass(frozen=True)
class StoreRequest:
    """The store of one dataset, split, feature set and selection.

    Attributes
    ----------
    directory : folder with the jet files, perhaps remote
    store_dir : folder of packed stores
    """

    directory: Folder
    store_dir: Path
    dataset: str
    split: str
    features: str
    selection: str

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
            "n_labels": len(STORED_LABELS[self.dataset]),
            "features": feature_set(self.features).definition(),
            "selection": {"name": self.selection, "cuts": cuts},
        }


def store_request(settings: DataSettings, split: str) -> StoreRequest:
    """Store that these settings ask for."""
    return StoreRequest(
        settings.directory, settings.store_dir, settings.dataset, split, settings.features, settings.selection
    )
