"""A packed store: a folder of Arrow files with mixed jets, memory-mapped, and its manifest ``store.json``.

Opening reads the manifest alone; a part is mapped when a jet of it is first wanted. Shapes: P parts, L
labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jetscale.files import fingerprint
from jetscale.jets.errors import JetDataError, raise_problems
from jetscale.jets.packed import Array, PackedJets, map_batches, view

MANIFEST = "store.json"


@dataclass(frozen=True)
class Part:
    """One part, memory-mapped: its jets and its rows sorted by label."""

    jets: PackedJets
    rows_by_label: Array


@dataclass
class Store:
    """Jets of one dataset and split.

    Attributes
    ----------
    path : its folder
    fingerprint : identity of its content: sources with checksums, features, selection, format
    definition : what the fingerprint is made of
    n_jets : jets in the store
    n_constituents : constituents in the store
    label_counts_PL : (P, L) int64, jets per part and published label
    """

    path: Path
    fingerprint: str
    definition: dict[str, Any]
    n_jets: int
    n_constituents: int
    label_counts_PL: npt.NDArray[np.int64]
    entries: list[dict[str, Any]] = field(repr=False)
    _parts: dict[int, Part] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open a store.

        Raises
        ------
        JetDataError
            There is none, its manifest is damaged, or a part is missing or has another size.
        """
        store = cls.read_manifest(path)
        raise_problems(store.wrong_sizes())
        return store

    @classmethod
    def read_manifest(cls, path: Path) -> Store:
        """A store whose parts nobody has looked at.

        Raises
        ------
        JetDataError
            There is none, or its manifest is damaged.
        """
        manifest = _read_manifest(path)
        return cls(
            path=path,
            fingerprint=manifest["fingerprint"],
            definition=manifest["definition"],
            n_jets=manifest["n_jets"],
            n_constituents=manifest["n_constituents"],
            label_counts_PL=np.array([entry["label_counts"] for entry in manifest["parts"]], np.int64),
            entries=manifest["parts"],
        )

    @property
    def label_counts(self) -> npt.NDArray[np.int64]:
        """(L,) jets per published label."""
        counts: npt.NDArray[np.int64] = self.label_counts_PL.sum(axis=0)
        return counts

    def part(self, number: int) -> Part:
        """Part `number` (0 to P - 1), mapped on first use."""
        if number not in self._parts:
            _, (batch,) = map_batches(self.path / self.entries[number]["file"])
            self._parts[number] = Part(view(batch), batch.column("rows_by_label").to_numpy())
        return self._parts[number]

    def wrong_sizes(self) -> list[str]:
        """What is to be said of parts that are missing or of another size than the manifest's."""
        problems = []
        for entry in self.entries:
            part = self.path / entry["file"]
            size = part.stat().st_size if part.exists() else None
            if size != entry["size"]:
                found = "is missing" if size is None else f"has {size} bytes instead of {entry['size']}"
                problems.append(f"{part}: the part {found}; remove {self.path} to have it made again")
        return problems

    def __getstate__(self) -> dict[str, Any]:
        """Mappings stay behind: another process maps for itself."""
        return {**self.__dict__, "_parts": {}}


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest_path = path / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(manifest_path.read_text())
        whole = manifest["fingerprint"] == fingerprint(manifest["definition"])
    except FileNotFoundError as error:
        raise JetDataError(f"{path}: not a packed store, it has no {MANIFEST}; remove the folder") from error
    except (ValueError, KeyError, TypeError) as error:
        raise JetDataError(
            f"{manifest_path}: damaged ({error}); remove {path} to have it made again"
        ) from error
    if not whole:
        raise JetDataError(
            f"{manifest_path}: the fingerprint does not fit; remove {path} to have it made again"
        )
    return manifest
