"""Jets that are in memory already: awkward arrays by the published names of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.raw import Array, RawJets, as_stored, assemble

ARRAYS = Path("arrays")
"""What errors call them."""


class ArrayReader:
    """Columns of jets, read as those of a file are; labels are not looked at.

    Parameters
    ----------
    arrays : a record array of awkward, or a mapping: ``part_*`` a list of numbers per jet, ``jet_*`` one
        number per jet

    Attributes
    ----------
    n_jets : number of jets

    Raises
    ------
    JetDataError
        They are not columns of one length.
    """

    def __init__(self, arrays: Any) -> None:
        self._names = list(arrays) if isinstance(arrays, Mapping) else list(ak.fields(arrays))
        if not self._names:
            raise JetDataError(
                f"{ARRAYS}: no named columns; give a mapping or a record array with part_px and so on"
            )
        self._arrays = arrays
        lengths = {name: len(arrays[name]) for name in self._names}
        self.n_jets = lengths[self._names[0]]
        for name, length in lengths.items():
            if length != self.n_jets:
                raise JetDataError(f"{ARRAYS}: {name} has {length} jets, {self._names[0]} has {self.n_jets}")

    def read(self, columns: Sequence[str], start: int, stop: int, step: int) -> Iterator[RawJets]:
        """Jets `start` to `stop`, at most `step` at a time, in order.

        Parameters
        ----------
        columns : published names of columns
        start, stop : numbers of jets, `stop` exclusive
        step : most jets at a time

        Raises
        ------
        JetDataError
            A column is missing, or of another type.
        """
        if missing := sorted(set(columns) - set(self._names)):
            raise JetDataError(f"{ARRAYS}: no column {', '.join(missing)}")
        for low in range(start, stop, step):
            chosen = slice(low, min(low + step, stop))
            packed = {name: _plain(name, self._arrays[name][chosen]) for name in columns}
            flat = {name: _numbers(array) for name, array in packed.items() if array.ndim == 1}
            # called before the next round
            yield assemble(ARRAYS, low, columns, lambda name: _lists(packed[name]), flat.__getitem__, None)  # noqa: B023

    def close(self) -> None:
        """Nothing is open."""


def _plain(name: str, values: Any) -> Any:
    """Some jets of a column, as an array of numbers (for `_numbers`) or of lists of these (for `_lists`)."""
    wanted = 2 if name.startswith("part_") else 1
    try:
        array = ak.to_packed(ak.from_regular(ak.Array(values), axis=None))
        kind = ak.type(array)
        found = array.ndim
    except (TypeError, ValueError) as error:
        raise JetDataError(f"{ARRAYS}: {name} is no array of numbers ({error})") from error
    if "?" in str(kind):
        raise JetDataError(f"{ARRAYS}: {name} holds None; leave these jets out")
    if found != wanted or np.asarray(ak.flatten(array, axis=None)).dtype.kind not in "biuf":
        what = "a list of numbers" if wanted == 2 else "one number"
        raise JetDataError(f"{ARRAYS}: {name} is {kind}, not {what} per jet")
    return array


def _numbers(array: Any) -> Array:
    """One number per jet, (B,)."""
    return as_stored(np.asarray(ak.to_layout(array).data))


def _lists(array: Any) -> tuple[npt.NDArray[np.int64], Array]:
    """Offsets from 0, (B + 1,), and values, (T,), of one list per jet."""
    packed = ak.to_layout(array).to_ListOffsetArray64(True)
    offsets = np.asarray(packed.offsets.data)
    return offsets, as_stored(np.asarray(packed.content.data)[: offsets[-1]])
