"""Scores of any number of jets, in order, in memory that does not grow.

A thread reads and unpacks the next jets while the network works on the present ones.

Shapes: B jets of a chunk, K classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import uproot

from jetscale.common.files import atomic_path
from jetscale.common.progress import Progress
from jetscale.common.usage import UsageError
from jetscale.jets.batch import JetBatch
from jetscale.tagger.load import BATCH, Scores, Tagger, load
from jetscale.tagger.settings import Predict
from jetscale.tagger.sources import files_named, open_file

GROUP = 100_000
"""Jets written at once: a row group of parquet, a basket of ROOT."""


@dataclass(frozen=True)
class _Chunk:
    """Some jets of one file, ready for the network: their batches, first row, and labels where there are."""

    file: str
    row: int
    batches: list[JetBatch]
    labels_B: npt.NDArray[np.str_] | None


@dataclass(frozen=True)
class _Rows:
    """Scored jets of one file: `file`, rows (B,), labels (B,) or None, scores (B, K)."""

    file: str
    row_B: npt.NDArray[np.int64]
    labels_B: npt.NDArray[np.str_] | None
    scores_BK: Scores


def predict(settings: Predict) -> None:
    """Write the scores that `settings` asks for.

    Raises
    ------
    UsageError, JetDataError
        The run or a file cannot be used; nothing is written then.
    WriteError
        The scores cannot be written.
    """
    out = Path(settings.out)
    if out.suffix not in _WRITERS:
        raise UsageError(f"out={out}: must end in {' or '.join(_WRITERS)}")
    tagger = load(settings.run, settings.weights or None)
    paths = files_named(settings.files)
    if any(path.resolve() == out.resolve() for path in paths):
        raise UsageError(f"out={out}: is one of the files to score; choose another name")
    n_jets, progress = score_files(tagger, paths, out)
    sys.stdout.write(
        f"{out}: {n_jets:,} jets of {len(paths)} file(s), {progress.rate:,.0f} jets/s,"
        f" {tagger.weights} weights\n"
    )


def score_files(tagger: Tagger, paths: list[Path], out: Path) -> tuple[int, Progress]:
    """Write the scores of all jets of `paths`.

    Parameters
    ----------
    tagger : what scores them
    paths : jet files
    out : the file to write, .parquet or .root

    Returns
    -------
    Number of jets, and how it went.
    """
    columns = tagger.inputs.columns
    n_jets, labelled = 0, True
    for path in paths:  # before the first score: what cannot be read is found now
        with open_file(path, columns, tagger.run.dataset) as opened:
            n_jets += opened.n_jets
            labelled &= opened.label_names is not None
    with (
        atomic_path(out) as aside,
        Progress("predict", n_jets, "jets", rated=True, closing=False) as progress,
    ):
        writer = _WRITERS[out.suffix](aside, [str(path) for path in paths], tagger.class_names, labelled)
        try:
            for rows in _grouped(_counted(_scored(tagger, paths, labelled), progress)):
                writer.write(rows)
        finally:
            writer.close()
    return n_jets, progress


def _counted(chunks: Iterator[_Rows], progress: Progress) -> Iterator[_Rows]:
    for rows in chunks:
        progress.update(progress.done + len(rows.row_B))
        yield rows


def _chunks(tagger: Tagger, paths: list[Path], labelled: bool) -> Iterator[_Chunk]:
    for path in paths:
        with open_file(path, tagger.inputs.columns, tagger.run.dataset) as opened:
            names = np.array(opened.label_names) if labelled and opened.label_names else None
            for raw in opened.chunks:
                labels_B = None if names is None else names[raw.labels]
                yield _Chunk(str(path), raw.first_entry, tagger.inputs.batches(raw, BATCH), labels_B)


def _scored(tagger: Tagger, paths: list[Path], labelled: bool) -> Iterator[_Rows]:
    chunks = _chunks(tagger, paths, labelled)
    with ThreadPoolExecutor(max_workers=1) as reading:
        coming = reading.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = reading.submit(next, chunks, None)
            scores_BK = np.concatenate([tagger.score_batch(batch) for batch in chunk.batches])
            row_B = np.arange(chunk.row, chunk.row + len(scores_BK))
            yield _Rows(chunk.file, row_B, chunk.labels_B, scores_BK)


def _grouped(chunks: Iterator[_Rows]) -> Iterator[_Rows]:
    """The same rows, about `GROUP` of a file at a time."""
    held: list[_Rows] = []
    for rows in chunks:
        if held and (rows.file != held[0].file or sum(len(one.row_B) for one in held) >= GROUP):
            yield _joined(held)
            held = []
        held.append(rows)
    if held:
        yield _joined(held)


def _joined(held: list[_Rows]) -> _Rows:
    labels = [one.labels_B for one in held if one.labels_B is not None]
    return _Rows(
        held[0].file,
        np.concatenate([one.row_B for one in held]),
        np.concatenate(labels) if labels else None,
        np.concatenate([one.scores_BK for one in held]),
    )


class _ParquetWriter:
    def __init__(self, path: Path, files: list[str], class_names: tuple[str, ...], labelled: bool) -> None:
        self._files = pa.array(files)
        self._numbers = {name: number for number, name in enumerate(files)}
        words = pa.dictionary(pa.int32(), pa.string())
        self._names = [f"score_{name}" for name in class_names]
        fields = [pa.field("file", words), pa.field("row", pa.int64())]
        fields += [pa.field("label", words)] if labelled else []
        fields += [pa.field(name, pa.float32()) for name in self._names]
        self._schema = pa.schema([field.with_nullable(False) for field in fields])
        self._writer = pq.ParquetWriter(path, self._schema)

    def write(self, rows: _Rows) -> None:
        """Append some jets as a row group."""
        number_B = pa.array(np.full(len(rows.row_B), self._numbers[rows.file], np.int32))
        file_B = pa.DictionaryArray.from_arrays(number_B, self._files)
        columns: dict[str, Any] = {"file": file_B, "row": rows.row_B}
        columns |= {} if rows.labels_B is None else {"label": rows.labels_B}
        columns |= dict(zip(self._names, rows.scores_BK.T, strict=True))
        arrays = [_as(columns[field.name], field.type) for field in self._schema]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def _as(values: Any, kind: Any) -> Any:
    return (values if isinstance(values, pa.Array) else pa.array(values)).cast(kind)


class _RootWriter:
    """A TTree ``scores``, and a TTree ``files`` with the names that its branch ``file`` counts."""

    def __init__(self, path: Path, files: list[str], class_names: tuple[str, ...], labelled: bool) -> None:
        self._numbers = {name: number for number, name in enumerate(files)}
        self._names = [f"score_{name}" for name in class_names]
        types: dict[str, Any] = {"file": np.int32, "row": np.int64}
        types |= {"label": "string"} if labelled else {}
        types |= dict.fromkeys(self._names, np.float32)
        self._file = uproot.recreate(path)
        self._file.mktree("files", {"name": "string"}).extend({"name": files})
        self._tree = self._file.mktree("scores", types)

    def write(self, rows: _Rows) -> None:
        """Append some jets."""
        columns: dict[str, Any] = {
            "file": np.full(len(rows.row_B), self._numbers[rows.file], np.int32),
            "row": rows.row_B.astype(np.int64),
        }
        columns |= {} if rows.labels_B is None else {"label": rows.labels_B.tolist()}
        self._tree.extend(columns | dict(zip(self._names, rows.scores_BK.T.copy(), strict=True)))

    def close(self) -> None:
        """End the file."""
        self._file.close()


_WRITERS: dict[str, type[_ParquetWriter] | type[_RootWriter]] = {
    ".parquet": _ParquetWriter,
    ".root": _RootWriter,
}
