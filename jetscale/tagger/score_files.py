"""The files of scores that `predict` writes, and how they are recognised.

Shapes: B jets of a chunk, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import awkward as ak
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import uproot

Numbers = npt.NDArray[np.int32]

_SCORE = "score_"


@dataclass(frozen=True)
class Named:
    """What the numbers in scored rows stand for.

    Attributes
    ----------
    files : the jet files, each once
    labels : published labels of all files, each once; None where a file has no labels
    classes : names of the K classes
    """

    files: tuple[str, ...]
    labels: tuple[str, ...] | None
    classes: tuple[str, ...]

    @property
    def scores(self) -> list[str]:
        """Names of the columns of scores."""
        return [f"{_SCORE}{name}" for name in self.classes]


@dataclass(frozen=True)
class Rows:
    """Scored jets.

    Attributes
    ----------
    file_B : (B,) int32, number of the file
    row_B : (B,) int64, where the jet is in it
    label_B : (B,) int32, number of its label; None where not every file has labels
    scores_BK : (B, K) float32
    """

    file_B: Numbers
    row_B: npt.NDArray[np.int64]
    label_B: Numbers | None
    scores_BK: npt.NDArray[np.float32]


class Writer(Protocol):
    """A file of scores that is being written."""

    def write(self, rows: Rows) -> None:
        """Append some jets."""

    def close(self) -> None:
        """End the file."""


class _ParquetWriter:
    """One row group a call; words are numbers with a dictionary, which scores, all different, do without."""

    def __init__(self, path: Path, named: Named) -> None:
        self._named = named
        self._schema = _schema(named.scores, named.labels is not None)
        self._writer = pq.ParquetWriter(path.absolute(), self._schema, use_dictionary=["file", "label"])

    def write(self, rows: Rows) -> None:
        """Append some jets as a row group."""
        named = self._named
        columns = [pa.DictionaryArray.from_arrays(rows.file_B, list(named.files)), pa.array(rows.row_B)]
        if rows.label_B is not None and named.labels is not None:
            columns.append(pa.DictionaryArray.from_arrays(rows.label_B, list(named.labels)))
        columns += [pa.array(score_B) for score_B in rows.scores_BK.T]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """End the file."""
        self._writer.close()

    @staticmethod
    def wrote(path: Path) -> bool:
        """Whether a parquet file has exactly the columns that this class writes, in type too.

        pandas, for one, makes every column nullable, so a table of its own is another one.
        """
        found = pq.read_schema(path)
        scores = [name for name in found.names if name.startswith(_SCORE)]
        return bool(scores) and found.equals(_schema(scores, "label" in found.names))


def _schema(scores: Sequence[str], labelled: bool) -> Any:
    words = pa.dictionary(pa.int32(), pa.string())
    kinds = {"file": words, "row": pa.int64()}
    kinds |= {"label": words} if labelled else {}
    kinds |= dict.fromkeys(scores, pa.float32())
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])


class _RootWriter:
    """A TTree ``scores``, and a TTree ``files`` with the names that its branch ``file`` counts.

    Compressed as the published jet files are.
    """

    def __init__(self, path: Path, named: Named) -> None:
        self._named = named
        self._file = uproot.recreate(path, compression=uproot.LZ4(4))
        self._file.mktree("files", {"name": "string"}).extend({"name": list(named.files)})
        self._tree = self._file.mktree("scores", _branches(named.scores, named.labels is not None))

    def write(self, rows: Rows) -> None:
        """Append some jets as a basket of each branch."""
        named = self._named
        columns: dict[str, Any] = {"file": rows.file_B, "row": rows.row_B}
        if rows.label_B is not None and named.labels is not None:
            columns["label"] = ak.Array(list(named.labels))[rows.label_B]
        self._tree.extend(columns | dict(zip(named.scores, rows.scores_BK.T.copy(), strict=True)))

    def close(self) -> None:
        """End the file."""
        self._file.close()

    @staticmethod
    def wrote(path: Path) -> bool:
        """Whether a ROOT file has exactly the trees and branches that this class writes."""
        with uproot.open(path) as file:
            if file.classnames(cycle=False) != {"files": "TTree", "scores": "TTree"}:
                return False
            names = file["scores"].keys()
            scores = [name for name in names if name.startswith(_SCORE)]
            return bool(scores) and names == list(_branches(scores, "label" in names))


def _branches(scores: Sequence[str], labelled: bool) -> dict[str, Any]:
    kinds: dict[str, Any] = {"file": np.int32, "row": np.int64}
    kinds |= {"label": "string"} if labelled else {}
    return kinds | dict.fromkeys(scores, np.float32)


WRITERS: dict[str, type[_ParquetWriter] | type[_RootWriter]] = {
    ".parquet": _ParquetWriter,
    ".root": _RootWriter,
}
"""By the suffix of the file."""


def holds_scores(path: Path) -> bool:
    """Whether a file is one of scores, as `predict` wrote it, without anything that was added since."""
    writer = WRITERS.get(path.suffix)
    try:
        return writer is not None and writer.wrote(path)
    except Exception:  # uproot and pyarrow raise what they like on a file of another format
        return False
