"""Parquet files with lists of numbers per jet and one label, as those of JetClass-II."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import File
from jetscale.jets.reading.raw import Array, RawJets, assemble

_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


class ParquetReader:
    """One open file, of which only the row groups that an entry range touches are read.

    Parameters
    ----------
    path : the file
    called : the name for errors
    label : column of the label, whole numbers
    n_labels : labels are below this number
    """

    def __init__(self, path: Path, called: File, label: str, n_labels: int) -> None:
        self._path = called
        self._label: str | None = label
        self._n_labels = n_labels
        self._file = pq.ParquetFile(path)
        self.n_jets = int(self._file.metadata.num_rows)

    def read(self, columns: Sequence[str], start: int, stop: int, step: int) -> Iterator[RawJets]:
        """Jets of an entry range, at most `step` at a time.

        Parameters
        ----------
        columns : published names of columns
        start, stop : entry numbers, `stop` exclusive
        step : most jets at a time
        """
        for entry, batch in self._batches(self._wanted(columns), start, stop, step):
            yield self._cast(entry, columns, batch)

    def _wanted(self, columns: Sequence[str]) -> list[str]:
        """Names of `columns` and of the label, all of which the file has, with the right types."""
        wanted = [*columns, *([] if self._label is None else [self._label])]
        schema = self._file.schema_arrow
        missing = sorted(set(wanted) - set(schema.names))
        if missing:
            raise JetDataError(f"{self._path}: no column {', '.join(missing)}")
        check_columns(self._path, schema, wanted)
        if self._label is not None:
            kind = _plain_type(schema.field(self._label).type)
            if not pa.types.is_integer(kind):
                raise JetDataError(f"{self._path}: column {self._label} is {kind}, not an integer")
        return wanted

    def _batches(self, wanted: list[str], start: int, stop: int, step: int) -> Iterator[tuple[int, Any]]:
        """First entry and columns of some jets after the other, those of a range of entries."""
        groups, entry = _row_groups(self._file.metadata, start, stop)
        for batch in self._file.iter_batches(
            batch_size=step, row_groups=groups, columns=wanted, use_threads=False
        ):
            low, high = max(start, entry), min(stop, entry + batch.num_rows)
            if low < high:
                yield low, batch.slice(low - entry, high - low)
            entry += batch.num_rows

    def _cast(self, entry: int, columns: Sequence[str], batch: Any) -> RawJets:
        path = self._path
        return assemble(
            path,
            entry,
            columns,
            lambda name: _jagged(path, entry, name, batch.column(name)),
            lambda name: numbers(path, entry, name, batch.column(name)),
            self._labels(entry, batch),
        )

    def _labels(self, entry: int, batch: Any) -> npt.NDArray[np.uint8] | None:
        if self._label is None:
            return None
        labels = numbers(self._path, entry, self._label, batch.column(self._label))
        bad = np.flatnonzero((labels < 0) | (labels >= self._n_labels))
        if len(bad):
            raise JetDataError(
                f"{self._path}: entry {entry + bad[0]}: {self._label} is {labels[bad[0]]}, "
                f"outside 0 to {self._n_labels - 1}"
            )
        index: npt.NDArray[np.uint8] = labels.astype(np.uint8)
        return index

    def leave_labels_out(self) -> bool:
        """Read no labels from now on, if the file has none; returns whether."""
        if self._label in self._file.schema_arrow.names:
            return False
        self.ignore_labels()
        return True

    def ignore_labels(self) -> None:
        """Read no labels from now on."""
        self._label = None

    def check_labels(self, step: int) -> None:
        """Read the labels of all jets alone, at most `step` at a time.

        Raises
        ------
        JetDataError
            They are missing or cannot be used.
        """
        for entry, batch in self._batches(self._wanted(()), 0, self.n_jets, step):
            self._labels(entry, batch)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _row_groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """Row groups that hold entries `start` to `stop`, and the first entry of the first of them."""
    ends = np.cumsum([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)])
    first = int(np.searchsorted(ends, start, side="right"))
    last = int(np.searchsorted(ends, stop, side="left"))
    return list(range(first, min(last + 1, len(ends)))), int(ends[first - 1]) if first else 0


def _plain_type(kind: Any) -> Any:
    """Type of the values themselves: awkward wraps its own types around them, others keep dictionaries."""
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return _plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def _plain(array: Any) -> Any:
    """Values of an array without wrapping (see `_plain_type`)."""
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return _plain(array.dictionary_decode()) if isinstance(array, pa.DictionaryArray) else array


def check_columns(path: File, schema: Any, wanted: Sequence[str]) -> None:
    """Check that columns which are there are there once, and hold numbers, or lists of these where `part_*`.

    Parameters
    ----------
    path : the file, for errors
    schema : Arrow schema of the file
    wanted : names of columns, all of them in the schema

    Raises
    ------
    JetDataError
        A column has another type, or its name is that of a second one.
    """
    names = schema.names
    for name in wanted:
        if names.count(name) > 1:
            raise JetDataError(f"{path}: several columns are named {name}; keep one of them")
        _check_type(path, name, schema.field(name).type)


def _check_type(path: File, name: str, stored: Any) -> None:
    kind = _plain_type(stored)
    is_list = any(one(kind) for one in _LISTS)
    values = _plain_type(kind.value_type) if is_list else kind
    numeric = pa.types.is_integer(values) or pa.types.is_floating(values) or pa.types.is_boolean(values)
    if not numeric or is_list != name.startswith("part_"):
        wanted = "a list of numbers" if name.startswith("part_") else "one number"
        raise JetDataError(f"{path}: column {name} is {stored}, not {wanted} per jet")


def _jagged(path: File, entry: int, name: str, stored: Any) -> tuple[npt.NDArray[np.int64], Array]:
    column = _plain(stored)
    _check_nulls(path, entry, name, column)
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = _plain(column.flatten())
    if values.null_count:
        at = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        inside = int(np.searchsorted(offsets, at, side="right")) - 1
        raise JetDataError(f"{path}: entry {entry + inside}: {name} holds a null")
    return offsets, values.to_numpy(zero_copy_only=False)


def numbers(path: File, entry: int, name: str, stored: Any) -> Array:
    """One number per jet, (B,).

    Parameters
    ----------
    path : the file, for errors
    entry : entry number of the first jet
    name : of the column
    stored : Arrow array of B numbers

    Raises
    ------
    JetDataError
        One of them is null; the message names the entry.
    """
    column = _plain(stored)
    _check_nulls(path, entry, name, column)
    found: Array = column.to_numpy(zero_copy_only=False)
    return found


def _check_nulls(path: File, entry: int, name: str, column: Any) -> None:
    if column.null_count:
        at = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise JetDataError(f"{path}: entry {entry + at}: {name} is null")
