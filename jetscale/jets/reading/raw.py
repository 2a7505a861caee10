"""Jets as read from a file: columns by their published names, cast to one set of types, leading first.

Shapes: B jets, T their constituents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import JetDataError
from jetscale.jets.kernels import pt_rises
from jetscale.jets.reading.locations import File

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
"""Per-jet quantities that are read and kept with every jet (GeV, 1), as far as the dataset has them."""

MOMENTUM = ("part_px", "part_py", "part_energy")
IDENTITY = ("part_charge", "part_isPhoton", "part_isElectron", "part_isMuon")
"""What a particle identity is made of."""
ALWAYS_READ = (*MOMENTUM, *IDENTITY)
"""Constituent columns that are checked against each other, in the order of `kernels.all_possible`; those of
`IDENTITY` only where a dataset has all of them."""

_LARGEST = float(np.finfo(np.float32).max)
_ROUNDING = 1 + 2.0**-21
"""Neighbours whose pT squared differs by a smaller factor are as good as equal: files are sorted by pT before
px and py are rounded to single precision."""


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
    labels : (B,) uint8, the published label index; 0 for jets that have none, which only scoring reads
    """

    path: File
    first_entry: int
    offsets: npt.NDArray[np.int64]
    constituents: Mapping[str, Array]
    jets: Mapping[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.uint8]

    @property
    def n_jets(self) -> int:
        """Number of jets, B."""
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
    labels: npt.NDArray[np.uint8] | None,
) -> RawJets:
    """Jets of the columns that a reader fetches by `jagged` or `flat`, cast to this room's types.

    Parameters
    ----------
    path : the file
    first_entry : entry number of the first jet
    columns : published names of columns
    jagged : offsets (B + 1,) from 0 and values (T,) of a ``part_*`` column
    flat : values (B,) of a ``jet_*`` column
    labels : (B,) uint8, position of each label in the dataset's labels; None for jets without labels

    Raises
    ------
    JetDataError
        Two constituent columns disagree on the number of constituents of a jet.
    """
    parts = [name for name in columns if name.startswith("part_")]
    offsets, values = jagged(parts[0])
    constituents = {parts[0]: values}
    for name in parts[1:]:
        own, constituents[name] = jagged(name)
        if not np.array_equal(offsets, own):
            at = int(np.flatnonzero(np.diff(offsets) != np.diff(own))[0])
            raise JetDataError(
                f"{path}: entry {first_entry + at}: {name} has {np.diff(own)[at]} constituents, "
                f"{parts[0]} has {np.diff(offsets)[at]}"
            )
    jets = {name: flat(name) for name in columns if name not in constituents}
    if labels is None:
        labels = np.zeros(len(offsets) - 1, np.uint8)
    raw = RawJets(path, first_entry, offsets, constituents, jets, labels)
    return replace(
        raw,
        constituents={name: _cast(raw, name, values) for name, values in constituents.items()},
        jets={name: _cast(raw, name, values) for name, values in jets.items()},
    )


def _cast(raw: RawJets, name: str, values: Array) -> Array:
    """Values as this room keeps them; none changes its meaning on the way, as NaN does that becomes True."""
    if name.startswith("part_is"):
        if values.dtype != np.bool_:
            demand(raw, (values == 0) | (values == 1), name, "must be 0 or 1, it is a flag")
        return values.astype(np.bool_, copy=False)
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        single: Array = values.astype(np.float32)
    if values.dtype.kind == "f" and values.dtype.itemsize > single.dtype.itemsize:
        for at in np.flatnonzero((np.abs(values) > _LARGEST) & np.isfinite(values))[:1]:
            raise JetDataError(
                f"{where(raw, name, int(at))}: {name} = {values[at]} is too large for single precision"
            )
    return single


def as_stored(values: Array) -> Array:
    """Booleans as bytes where one is neither 0 nor 1, so that it is refused; numpy takes it for True."""
    if values.dtype != np.bool_:
        return values
    stored = values.view(np.uint8)
    return stored if (stored > 1).any() else values


def where(raw: RawJets, name: str, at: int) -> str:
    """File, entry and constituent of a value.

    Parameters
    ----------
    raw : the jets
    name : of the column
    at : position in the column
    """
    if name not in raw.constituents:
        return f"{raw.path}: entry {raw.first_entry + at}"
    entry = raw.entry_of(at)
    return f"{raw.path}: entry {entry}, constituent {at - int(raw.offsets[entry - raw.first_entry])}"


def demand(raw: RawJets, good: Array, name: str, why: str) -> None:
    """Stop at the first constituent that is not `good`, (T,) bool, and say why.

    Parameters
    ----------
    raw : the jets
    good : (T,) bool
    name : of the column that is reported
    why : end of the message

    Raises
    ------
    JetDataError
        Names the file, the entry, the constituent, the column and the value.
    """
    if good.all():
        return
    at = int(np.flatnonzero(~good)[0])
    raise JetDataError(f"{where(raw, name, at)}: {name} = {raw.constituents[name][at]} {why}")


def leading_first(raw: RawJets) -> RawJets:
    """The same jets with their constituents by falling pT, as published files have them.

    A jet that is so already (within the rounding of px and py) stays as it lies, one that is sorted the other
    way is reversed, and any other is sorted; constituents of equal pT keep the file's order.
    """
    px, py = raw.constituents["part_px"], raw.constituents["part_py"]
    rises = np.empty(max(len(px), 1) - 1, np.bool_)
    pt_rises(px, py, _ROUNDING, rises)
    last_B = raw.offsets[1:-1] - 1  # what comes next is another jet
    if np.count_nonzero(rises) == np.count_nonzero(rises[last_B]):
        return raw
    pt2_T = px.astype(np.float64) ** 2 + py.astype(np.float64) ** 2
    falls = pt2_T[:-1] > pt2_T[1:] * _ROUNDING
    rises[last_B] = falls[last_B] = False
    rows_T = _falling(raw, pt2_T, rises, falls)
    return replace(raw, constituents={name: values[rows_T] for name, values in raw.constituents.items()})


def _falling(
    raw: RawJets, pt2_T: npt.NDArray[np.float64], rises: npt.NDArray[np.bool_], falls: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Rows, (T,), in the order of `leading_first`, from the steps to the next constituent, (T - 1,) bool."""
    jet_T = np.repeat(np.arange(raw.n_jets), np.diff(raw.offsets))
    rising_T, falling_T = (
        np.bincount(jet_T[:-1][steps], minlength=raw.n_jets)[jet_T] > 0 for steps in (rises, falls)
    )
    place_T = np.arange(len(pt2_T), dtype=np.float64)
    rank_T = np.where(~rising_T, place_T, np.where(falling_T, -pt2_T, -place_T))
    rows: npt.NDArray[np.int64] = np.lexsort((rank_T, jet_T))
    return rows
