"""Jets as read from a file: columns by their published names, cast to one set of types, and checked.

Shapes: B jets, T their constituents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import JetDataError
from jetscale.jets.kernels import all_finite, all_possible
from jetscale.jets.locations import File

Array = npt.NDArray[Any]

JET_COLUMNS = (
    "jet_pt",
    "jet_eta",
    "jet_sdmass",
    "jet_nparticles",
    "jet_tau1",
    "jet_tau2",
    "jet_tau3",
    "jet_tau4",
)
"""Per-jet quantities that are read and kept with every jet (GeV, 1)."""

ALWAYS_READ = (
    "part_px",
    "part_py",
    "part_energy",
    "part_charge",
    "part_isPhoton",
    "part_isElectron",
    "part_isMuon",
)
"""Constituent columns that are checked against each other, in the order of `kernels.all_possible`."""


@dataclass(frozen=True)
class RawJets:
    """B consecutive jets of one file.

    Attributes
    ----------
    path : the file
    first_entry : entry number of the first jet in the file
    offsets : (B + 1,) int64, constituents of jet b are ``offsets[b]:offsets[b + 1]``
    constituents : columns of shape (T,): float32, but the ``part_is*`` flags bool
    jets : columns of shape (B,), float32
    labels : (B,) uint8, the published label index
    """

    path: File
    first_entry: int
    offsets: npt.NDArray[np.int64]
    constituents: Mapping[str, Array]
    jets: Mapping[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.uint8]

    @property
    def n_jets(self) -> int:
        """B."""
        return len(self.labels)

    def entry_of(self, constituent: int) -> int:
        """Entry number of the jet that the constituent at this index belongs to."""
        return self.first_entry + int(np.searchsorted(self.offsets, constituent, side="right")) - 1


def assemble(
    path: File,
    first_entry: int,
    columns: Sequence[str],
    jagged: Callable[[str], tuple[npt.NDArray[np.int64], Array]],
    flat: Callable[[str], Array],
    labels: npt.NDArray[np.uint8],
) -> RawJets:
    """Cast the columns that a reader fetches, by `jagged` (offsets from 0, values) or `flat`.

    Raises
    ------
    JetDataError
        Two constituent columns disagree on the number of constituents of a jet.
    """
    parts = [name for name in columns if name.startswith("part_")]
    offsets, values = jagged(parts[0])
    constituents: dict[str, Array] = {parts[0]: _cast(parts[0], values)}
    for name in parts[1:]:
        own, values = jagged(name)
        if not np.array_equal(offsets, own):
            at = int(np.flatnonzero(np.diff(offsets) != np.diff(own))[0])
            raise JetDataError(
                f"{path}: entry {first_entry + at}: {name} has {np.diff(own)[at]} constituents, "
                f"{parts[0]} has {np.diff(offsets)[at]}"
            )
        constituents[name] = _cast(name, values)
    jets = {name: _cast(name, flat(name)) for name in columns if name not in constituents}
    return RawJets(path, first_entry, offsets, constituents, jets, labels)


def _cast(name: str, values: Array) -> Array:
    return values.astype(np.bool_ if name.startswith("part_is") else np.float32, copy=False)


def check_jets(raw: RawJets) -> None:
    """Stop at an empty jet, a non-finite or impossible value.

    Raises
    ------
    JetDataError
        Names the file, the entry, the column and the value.
    """
    _check_jets(raw)
    part = raw.constituents
    floats = [values.view(np.uint32) for values in part.values() if values.dtype == np.float32]
    if not (all(map(all_finite, floats)) and all_possible(*(part[name] for name in ALWAYS_READ))):
        _name_the_first(raw)


def _check_jets(raw: RawJets) -> None:
    empty = np.flatnonzero(np.diff(raw.offsets) == 0)
    if len(empty):
        raise JetDataError(f"{raw.path}: entry {raw.first_entry + empty[0]}: the jet has no constituents")
    for name, values in raw.jets.items():
        _check_finite(raw, name, values)
    for name in ("jet_pt", "jet_energy"):
        low = np.flatnonzero(raw.jets[name] <= 0) if name in raw.jets else np.empty(0, np.int64)
        if len(low):
            entry, value = raw.first_entry + low[0], raw.jets[name][low[0]]
            raise JetDataError(f"{raw.path}: entry {entry}: {name} = {value} must be above 0 GeV")


def _check_finite(raw: RawJets, name: str, values: Array) -> None:
    if values.dtype != np.float32 or np.isfinite(values).all():
        return
    at = int(np.flatnonzero(~np.isfinite(values))[0])
    entry = raw.entry_of(at) if name in raw.constituents else raw.first_entry + at
    raise JetDataError(f"{raw.path}: entry {entry}: {name} is {values[at]}; inputs must be finite")


def _name_the_first(raw: RawJets) -> None:
    """Say which constituent cannot be, where one pass over all has found that there is one."""
    for name, values in raw.constituents.items():
        _check_finite(raw, name, values)
    part = raw.constituents
    _demand(raw, part["part_energy"] > 0, "part_energy", "must be above 0 GeV")
    _demand(
        raw,
        (part["part_px"] != 0) | (part["part_py"] != 0),
        "part_px",
        "and part_py are both 0: pT must be > 0",
    )
    charge = part["part_charge"]
    _demand(raw, np.abs(charge) * (1 - np.abs(charge)) == 0, "part_charge", "is none of -1, 0, +1")
    flags = ("part_isPhoton", "part_isElectron", "part_isMuon")
    kinds = part[flags[0]].view(np.int8) + part[flags[1]].view(np.int8) + part[flags[2]].view(np.int8)
    _demand(raw, kinds <= 1, "part_isPhoton", "is set together with part_isElectron or part_isMuon")
    lepton = part["part_isElectron"] | part["part_isMuon"]
    _demand(raw, ~lepton | (charge != 0), "part_charge", "of an electron or muon must be -1 or +1")
    _demand(raw, ~part["part_isPhoton"] | (charge == 0), "part_charge", "of a photon must be 0")


def _demand(raw: RawJets, good: Array, name: str, why: str) -> None:
    if good.all():
        return
    at = int(np.flatnonzero(~good)[0])
    value = raw.constituents[name][at]
    inside = at - int(raw.offsets[raw.entry_of(at) - raw.first_entry])
    raise JetDataError(f"{raw.path}: entry {raw.entry_of(at)}, constituent {inside}: {name} = {value} {why}")
