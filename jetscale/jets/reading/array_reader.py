"""Jets that are in memory already: awkward arrays by the published names of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.raw import Array, RawJets, as_stored, assemble

ARRAYS = Path("arrays")
"""What errors call them."""

_NUMBERS = count()


class ArrayReader:
    """Columns of jets, read as those of a file are; whatever else is there is not looked at.

    Parameters
    ----------
    arrays : a record array of awkward, a list of such records, a data frame, or a mapping: ``part_*`` a list
        of numbers per jet, ``jet_*`` one number per jet
    columns : published names of the columns that are needed

    Attributes
    ----------
    n_jets : number of jets
    source : tells these arrays from any others

    Raises
    ------
    JetDataError
        A column is missing, or they are not of one length.
    """

    def __init__(self, arrays: Any, columns: Sequence[str]) -> None:
        found = arrays if isinstance(arrays, Mapping) else _records(arrays)
        names = list(found) if isinstance(found, Mapping) else list(ak.fields(found))
        if not names:
            raise JetDataError(
                f"{ARRAYS}: no named columns in a {type(arrays).__name__}; give file names, a mapping or a "
                "record array with part_px and so on (of a TTree or a table: its arrays)"
            )
        if missing := sorted(set(columns) - set(names)):
            raise JetDataError(f"{ARRAYS}: no column {', '.join(missing)}")
        self._columns = {name: found[name] for name in columns}
        self.source = f"{ARRAYS} {next(_NUMBERS)}"
        lengths = {name: _length(name, values) for name, values in self._columns.items()}
        self.n_jets = lengths[columns[0]]
        for name, length in lengths.items():
            if length != self.n_jets:
                raise JetDataError(f"{ARRAYS}: {name} has {length} jets, {columns[0]} has {self.n_jets}")

    def read(self, step: int) -> Iterator[RawJets]:
        """All jets, at most `step` at a time, in order.

        Raises
        ------
        JetDataError
            A column is of another type.
        """
        columns = list(self._columns)
        for low in range(0, self.n_jets, step):
            chosen = slice(low, low + step)
            packed = {name: _plain(name, values[chosen], low) for name, values in self._columns.items()}
            flat = {name: _numbers(array) for name, array in packed.items() if array.ndim == 1}
            # called before the next round
            yield assemble(ARRAYS, low, columns, lambda name: _lists(packed[name]), flat.__getitem__, None)  # noqa: B023


def _length(name: str, values: Any) -> int:
    try:
        return len(values)
    except TypeError as error:
        raise JetDataError(f"{ARRAYS}: {name} is a {type(values).__name__}, not one entry per jet") from error


def _records(arrays: Any) -> Any:
    """What is no mapping as one, or as an array, whose fields are then asked for; empty if it is neither."""
    if isinstance(arrays, ak.Array):
        return arrays
    if hasattr(arrays, "iloc") and hasattr(
        arrays, "columns"
    ):  # a data frame; without its index, by which pandas would take slices
        return arrays.to_dict("list")
    try:
        return ak.Array(arrays)
    except (TypeError, ValueError):
        return {}


def _plain(name: str, values: Any, first: int) -> Any:
    """Some jets of a column, as an array of numbers (for `_numbers`) or of lists of these (for `_lists`).

    Parameters
    ----------
    name : of the column
    values : of the jets, in any form that awkward understands, or an array of arrays (uproot's library="np")
    first : number of the first jet
    """
    wanted = 2 if name.startswith("part_") else 1
    of_objects = isinstance(values, np.ndarray) and values.dtype == np.object_
    try:
        array = _without_options(name, ak.Array(list(values) if of_objects else values), first)
        array = ak.to_packed(ak.from_regular(array, axis=None))
        kind, found = ak.type(array), array.ndim
        is_numeric = np.asarray(ak.flatten(array, axis=None)).dtype.kind in "biuf"
    except (TypeError, ValueError) as error:
        raise JetDataError(f"{ARRAYS}: {name} is no array of numbers ({error})") from error
    if found != wanted or not is_numeric:
        what = "a list of numbers" if wanted == 2 else "one number"
        raise JetDataError(f"{ARRAYS}: {name} is {kind}, not {what} per jet")
    return array


def _without_options(name: str, array: Any, first: int) -> Any:
    """The same values as an array that cannot hold None; masked arrays and nullable columns can, and may not.

    Parameters
    ----------
    name : of the column
    array : its values
    first : number of the first jet
    """
    for axis in range(min(array.ndim, 2)):
        is_none = ak.is_none(array, axis=axis)
        if ak.any(is_none, axis=None):
            inside = is_none if axis == 0 else ak.any(is_none, axis=-1)
            entry = first + int(np.flatnonzero(ak.to_numpy(inside))[0])
            raise JetDataError(
                f"{ARRAYS}: entry {entry}: {name} holds None; leave these jets out, or padding (ak.drop_none)"
            )
    return ak.drop_none(array)


def _numbers(array: Any) -> Array:
    """One number per jet, (B,)."""
    return as_stored(np.asarray(ak.to_layout(array).data))


def _lists(array: Any) -> tuple[npt.NDArray[np.int64], Array]:
    """Offsets from 0, (B + 1,), and values, (T,), of one list per jet."""
    packed = ak.to_layout(array).to_ListOffsetArray64(True)
    offsets = np.asarray(packed.offsets.data)
    return offsets, as_stored(np.asarray(packed.content.data)[: offsets[-1]])
