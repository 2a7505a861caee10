"""A packed store: a folder of Arrow files with mixed jets, memory-mapped, and its manifest ``store.json``.

Opening reads the manifest alone; a part is mapped when a jet of it is first wanted. Shapes: P parts, L
labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jetscale import __version__
from jetscale.common.files import SEAL, DamagedFile, fingerprint, read_sealed, write_sealed
from jetscale.jets.errors import JetDataError, raise_problems
from jetscale.jets.stores.checked import ArrowFile, Column, wrong_size
from jetscale.jets.stores.packed_jets import Array, PackedJets, view

FORMAT = 3
"""Version of the packed store's layout and of the shuffle that orders it."""
SEALED_SINCE = 3
"""First format whose manifest has a checksum."""
MANIFEST = "store.json"
SKETCHES = "sketches"
LABELS = "labels"
"""Keys of the manifest beside the definition: sketches of the sources, names of the labels by position. They
are no part of the fingerprint; older stores lack them."""

Integers = npt.NDArray[np.int64]


class Part:
    """One part, memory-mapped. What its methods give was compared with its checksums before.

    Parameters
    ----------
    path, entry : the file, and what the manifest says of it
    remedy : how to repair a damaged store

    Raises
    ------
    JetDataError
        The file is missing, damaged, or holds something else than the manifest says; so all methods.
    """

    def __init__(self, path: Path, entry: Mapping[str, Any], remedy: str) -> None:
        self._file = ArrowFile(path, entry, remedy)
        (batch,) = self._file.batches
        jets = view(batch)
        found = jets.n_jets, len(jets.x_TF), sum(entry["label_counts"])
        said = entry["n_jets"], entry["n_constituents"], entry["n_jets"]
        if found != said:
            raise JetDataError(
                f"{path}: {found[0]} jets with {found[1]} constituents, and labels of {found[2]} jets; "
                f"{MANIFEST} says {said[0]} jets with {said[1]} constituents; {remedy}"
            )
        self._jets = jets
        self._rows_by_label = Column(self._file, batch.column("rows_by_label").to_numpy())
        self._offsets = Column(self._file, jets.offsets)
        self._x_TF = Column(self._file, jets.x_TF)
        self._pid_T = None if jets.pid_T is None else Column(self._file, jets.pid_T)
        self._of_jets = {name: Column(self._file, values) for name, values in jets.jets.items()}
        self._labels = Column(self._file, jets.labels)

    @property
    def jets(self) -> PackedJets:
        """All its jets; the whole file is verified."""
        self._file.verify_all()
        return self._jets

    @property
    def rows_by_label(self) -> Array:
        """(B,) rows sorted by label."""
        return self._rows_by_label.all()

    def labels(self, rows: Integers) -> Array:
        """Published labels of jets."""
        return self._labels.rows(rows)

    @property
    def of_jets(self) -> tuple[str, ...]:
        """Names of the columns of jets that the store keeps; `column` gives their values."""
        return tuple(self._of_jets)

    def column(self, name: str, rows: Integers) -> Array:
        """Values of a column of jets, (B,) float32.

        Parameters
        ----------
        name : see `of_jets`
        rows : (B,) int64, places of jets in this part
        """
        return self._of_jets[name].rows(rows)

    def bounds(self, rows: Integers) -> tuple[Array, Array]:
        """First constituent of each jet, and the one behind its last."""
        offsets = self._offsets.ranges(rows, rows + 2)
        return offsets[rows], offsets[rows + 1]

    def constituents(self, start_B: Integers, stop_B: Integers) -> tuple[Array, Array | None]:
        """Inputs (T, F) and identities (T,) of the whole part, of which these ranges are verified.

        Parameters
        ----------
        start_B, stop_B : (B,) first constituent of each jet, and the one behind its last
        """
        pid_T = None if self._pid_T is None else self._pid_T.ranges(start_B, stop_B)
        return self._x_TF.ranges(start_B, stop_B), pid_T


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
    labels : names of the labels when it was made, by position; empty in older stores
    sketches : by name of the source file (see `jetscale.jets.stores.sketches`); empty in older stores
    """

    path: Path
    fingerprint: str
    definition: dict[str, Any]
    n_jets: int
    n_constituents: int
    label_counts_PL: npt.NDArray[np.int64]
    entries: list[dict[str, Any]] = field(repr=False)
    labels: list[str] = field(default_factory=list, repr=False)
    sketches: dict[str, str] = field(default_factory=dict, repr=False)
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
            labels=manifest.get(LABELS, []),
            sketches=manifest.get(SKETCHES, {}),
        )

    @property
    def remedy(self) -> str:
        """What to do when a file of it is damaged."""
        return remedy(self.path)

    @property
    def label_counts(self) -> npt.NDArray[np.int64]:
        """(L,) jets per published label."""
        counts: npt.NDArray[np.int64] = self.label_counts_PL.sum(axis=0)
        return counts

    def part(self, number: int) -> Part:
        """Part `number` (0 to P - 1), mapped on first use."""
        if number not in self._parts:
            entry = self.entries[number]
            self._parts[number] = Part(self.path / entry["file"], entry, self.remedy)
        return self._parts[number]

    def wrong_sizes(self) -> list[str]:
        """Messages for parts that are missing or of another size than the manifest's."""
        found = (wrong_size(self.path / entry["file"], entry["size"], self.remedy) for entry in self.entries)
        return [problem for problem in found if problem]

    def __getstate__(self) -> dict[str, Any]:
        """Mappings stay behind: another process maps for itself."""
        return {**self.__dict__, "_parts": {}}


def remedy(path: Path) -> str:
    """What to do when a file of the store in folder `path` is damaged."""
    return f"remove {path} to have it made again"


def write_manifest(
    folder: Path,
    definition: dict[str, Any],
    entries: list[dict[str, Any]],
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Write ``store.json`` of a store with these parts (see `jetscale.jets.stores.passes.describe_part`).

    Parameters
    ----------
    folder : of the store
    definition : what identifies it
    entries : of its parts, in order
    beside : `LABELS` and `SKETCHES`; None for a store without them
    """
    manifest = {
        "fingerprint": fingerprint(definition),
        "jetscale": __version__,
        "n_jets": sum(entry["n_jets"] for entry in entries),
        "n_constituents": sum(entry["n_constituents"] for entry in entries),
        "definition": definition,
        **(beside or {}),
        "parts": entries,
    }
    write_sealed(folder / MANIFEST, manifest)


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest_path = path / MANIFEST
    try:
        return read_sealed(manifest_path)
    except FileNotFoundError as error:
        raise JetDataError(f"{path}: not a packed store, it has no {MANIFEST}; remove the folder") from error
    except DamagedFile as error:
        if (made := _unsealed_format(manifest_path)) is not None:
            raise JetDataError(
                f"{path}: made with another format: {made}, now {FORMAT}; {remedy(path)}"
            ) from error
        reason = str(error).partition(" is damaged: ")[2]
        raise JetDataError(f"{manifest_path}: damaged, {reason}; {remedy(path)}") from error
    except OSError as error:
        raise JetDataError(f"{manifest_path}: cannot be read ({error.strerror}); {remedy(path)}") from error


def _unsealed_format(manifest_path: Path) -> int | None:
    """Format of a manifest from before they had a checksum; None if it is none of these."""
    try:
        manifest = json.loads(manifest_path.read_bytes())
        made = int(manifest["definition"]["format"])
        return made if made < SEALED_SINCE and SEAL not in manifest else None
    except (ValueError, KeyError, TypeError):
        return None
