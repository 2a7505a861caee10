"""Top tagging: the Top Quark Tagging Reference Dataset, top quarks against QCD.

Zenodo record 2603256 (Butter, Kasieczka, Plehn, Russell, arXiv:1707.08966): anti-kT jets of R = 0.8,
550 < pT < 650 GeV, the four-momenta of up to 200 constituents, leading in pT, padded with zeros.
``train.h5``, ``val.h5`` and ``test.h5`` are pandas tables under the key ``table``; parquet files with the
same columns are read too. Neither charge, particle identity nor displacement is there, nor jet substructure:
the feature set is ``kinematics``. Columns of jets follow from the sum of the constituents.

No published file was at hand when this was written: it was tested on files of the published layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jetscale.common.usage import install_extra
from jetscale.jets.datasets.base import FROM_MOMENTA, Anatomy, Dataset, JetFile, JetReader
from jetscale.jets.errors import JetDataError

if TYPE_CHECKING:
    from jetscale.jets.reading.locations import File
    from jetscale.jets.reading.raw import RawJets

LABELS = ("QCD", "top")
"""Names of the values 0 and 1 of ``is_signal_new``."""
LABEL = "is_signal_new"
MOMENTA = ("E", "PX", "PY", "PZ")
N_CONSTITUENTS = 200
KEY = "table"
"""Where pandas keeps the table in an HDF5 file."""


class _Reader:
    """One open file."""

    def __init__(self, path: Path, called: File) -> None:
        self._called = called
        self._table: _HdfTable | _ParquetTable = (
            _HdfTable(path, called) if path.suffix == ".h5" else _ParquetTable(path, called)
        )
        self.n_jets = self._table.n_rows
        names = [f"{name}_{number}" for number in range(N_CONSTITUENTS) for name in MOMENTA]
        self._names, self._label = names, [LABEL]
        try:
            self._require(names)
        except JetDataError:
            self._table.close()
            raise

    def read(self, columns: Sequence[str], start: int, stop: int, step: int) -> Iterator[RawJets]:
        """Jets of an entry range, at most `step` at a time.

        Parameters
        ----------
        columns : published names of columns
        start, stop : entry numbers, `stop` exclusive
        step : most jets at a time
        """
        from jetscale.jets.reading.momenta import jets_from_momenta

        self._require(self._label)
        for low in range(start, stop, step):
            rows = self._table.rows(low, min(low + step, stop), [*self._names, *self._label])
            flat = np.stack([rows[name] for name in self._names], axis=1)
            p4 = flat.reshape(len(flat), N_CONSTITUENTS, len(MOMENTA))
            is_there = (p4 != 0).any(axis=2)  # the rest is padding
            labels = rows[LABEL] if self._label else None
            yield jets_from_momenta(
                self._called, low, columns, is_there.sum(axis=1), p4[is_there], labels, len(LABELS)
            )

    def leave_labels_out(self) -> bool:
        """Read no labels from now on, if the file has none; returns whether."""
        if LABEL in self._table.columns:
            return False
        self.ignore_labels()
        return True

    def ignore_labels(self) -> None:
        """Read no labels from now on."""
        self._label = []

    def check_labels(self, step: int) -> None:
        """Read the labels of all jets alone, at most `step` at a time.

        Raises
        ------
        JetDataError
            They are missing or cannot be used.
        """
        from jetscale.jets.reading.momenta import check_labels

        self._require(self._label)
        for low in range(0, self.n_jets, step):
            rows = self._table.rows(low, min(low + step, self.n_jets), self._label)
            check_labels(self._called, low, rows[LABEL], len(LABELS))

    def _require(self, names: list[str]) -> None:
        if missing := sorted(set(names) - set(self._table.columns)):
            raise JetDataError(
                f"{self._called}: no column {', '.join(missing[:3])}{', ...' if missing[3:] else ''}"
            )
        self._table.check(names)

    def close(self) -> None:
        """Close the file."""
        self._table.close()


class _HdfTable:
    """The table of an HDF5 file that pandas wrote. PyTables, not h5py, reads its column names and filters."""

    def __init__(self, path: Path, called: File) -> None:
        import pandas as pd

        try:
            self._store = cast("Any", pd.HDFStore(str(path), mode="r"))
        except ImportError as error:
            raise JetDataError(
                f"{called}: HDF5 files are read with PyTables, which is not installed: "
                f"{install_extra('hdf5')}, or write it as parquet"
            ) from error
        try:
            self.n_rows = self._n_rows(called)
        except JetDataError:
            self._store.close()
            raise
        self._called = called
        self._types = self._store.select(KEY, start=0, stop=1).dtypes
        self.columns = list(self._types.index)

    def _n_rows(self, called: File) -> int:
        if f"/{KEY}" not in self._store:
            keys = ", ".join(self._store.keys()) or "nothing"
            raise JetDataError(f"{called}: no pandas table under the key {KEY!r}; it holds {keys}")
        storer = self._store.get_storer(KEY)
        if not storer.is_table:
            raise JetDataError(
                f"{called}: what it holds under the key {KEY!r} is in pandas' fixed format, which is not "
                f"read in pieces; write it with to_hdf(..., key={KEY!r}, format='table')"
            )
        return int(storer.nrows)

    def check(self, names: list[str]) -> None:
        """Check that columns which are there hold numbers.

        Parameters
        ----------
        names : of the columns
        """
        from pandas.api.types import is_numeric_dtype

        for name in names:
            if not is_numeric_dtype(self._types[name]):
                raise JetDataError(
                    f"{self._called}: column {name} is {self._types[name]}, not one number per jet"
                )

    def rows(self, start: int, stop: int, columns: list[str]) -> Mapping[str, Any]:
        """Some rows, an array for each column.

        Parameters
        ----------
        start, stop : row numbers, `stop` exclusive
        columns : names of columns
        """
        frame = self._store.select(KEY, start=start, stop=stop)
        return {name: frame[name].to_numpy() for name in columns}

    def close(self) -> None:
        """Close the file."""
        self._store.close()


class _ParquetTable:
    """A parquet file with the same columns; rows come in ascending order."""

    def __init__(self, path: Path, called: File) -> None:
        import pyarrow.parquet as pq

        self._called = called
        self._file = pq.ParquetFile(path)
        self.n_rows = int(self._file.metadata.num_rows)
        self.columns = list(self._file.schema_arrow.names)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.metadata.num_row_groups)]
        self._ends = np.cumsum(sizes)

    def check(self, names: list[str]) -> None:
        """Check that columns which are there are there once, and hold numbers.

        Parameters
        ----------
        names : of the columns
        """
        from jetscale.jets.reading.parquet_reader import check_columns

        check_columns(self._called, self._file.schema_arrow, names)

    def rows(self, start: int, stop: int, columns: list[str]) -> Mapping[str, Any]:
        """Some rows, an array for each column.

        Parameters
        ----------
        start, stop : row numbers, `stop` exclusive
        columns : names of columns
        """
        from jetscale.jets.reading.parquet_reader import numbers

        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._ends, stop, side="left"))
        before = int(self._ends[first - 1]) if first else 0
        table = self._file.read_row_groups(range(first, last + 1), columns=columns, use_threads=False)
        table = table.slice(start - before, stop - start)
        return {name: numbers(self._called, start, name, table[name].combine_chunks()) for name in columns}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _file_of(name: str) -> JetFile:
    match = re.fullmatch(r"(train|val|test)(?:_([0-9]+))?\.(?:h5|parquet)", name)
    if not match:
        raise ValueError(f"{name}: not named train.h5, val.h5, test.h5, or train_{{N}}.parquet and so on")
    return JetFile("top_tagging", "TopTagging", int(match[2] or 0), match[1], Path("TopTagging", name))


def _open(path: Path, called: File) -> JetReader:
    return _Reader(path, called)


TOP_TAGGING = Dataset(
    name="top_tagging",
    title="top tagging",
    origin="Zenodo record 2603256 (Top Quark Tagging Reference Dataset: train.h5, val.h5, test.h5)",
    folder="TopTagging",
    suffixes=(".h5", ".parquet"),
    file_names="{split}.h5 or {split}_{N}.parquet",
    layout="pandas tables train.h5, val.h5, test.h5, or parquet files of the same columns",
    labels=LABELS,
    columns=FROM_MOMENTA,
    file_of=_file_of,
    open=_open,
    anatomy={"QCD": Anatomy(1, frozenset()), "top": Anatomy(3, frozenset("b"))},
)
