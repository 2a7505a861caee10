"""Scores of any number of jets, in order, in memory that does not grow.

A second thread reads and unpacks the next jets, and writes scores, while the network works on the present
ones.

Shapes: B jets of a chunk, K classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import awkward as ak
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

Numbers = npt.NDArray[np.int32]

GROUP = 100_000
"""Jets written at once: a row group of parquet, a basket of ROOT."""


@dataclass(frozen=True)
class _Named:
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
        return [f"score_{name}" for name in self.classes]


@dataclass(frozen=True)
class _Chunk:
    """Some jets of one file, ready for the network: number of the file, first row, labels, batches."""

    file: int
    row: int
    label_B: Numbers | None
    batches: list[JetBatch]


@dataclass(frozen=True)
class _Rows:
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
    scores_BK: Scores


def predict(settings: Predict) -> None:
    """Write the scores that `settings` asks for.

    Raises
    ------
    UsageError, JetDataError
        The run or a file cannot be used, or a file that holds no scores has the name of the output; nothing
        is written then.
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
    if out.is_file() and out.stat().st_size and not _WRITERS[out.suffix].holds_scores(out):
        raise UsageError(f"out={out}: is there and holds no scores; choose another name, or remove it")
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
    n_jets, labels, labelled = 0, dict[str, None](), True
    for path in paths:  # before the first score: what cannot be read is found now
        with open_file(path, columns, tagger.run.dataset) as opened:
            n_jets += opened.n_jets
            labels |= dict.fromkeys(opened.label_names or ())
            labelled &= opened.label_names is not None
    files = tuple(dict.fromkeys(map(str, paths)))  # one may be named twice
    named = _Named(files, tuple(labels) if labelled else None, tagger.class_names)
    with (
        atomic_path(out) as aside,
        Progress("predict", n_jets, "jets", rated=True, closing=False) as progress,
    ):
        writer = _WRITERS[out.suffix](aside, named)
        try:
            _score(tagger, _chunks(tagger, paths, named), writer, progress)
        finally:
            writer.close()
    return n_jets, progress


def _chunks(tagger: Tagger, paths: list[Path], named: _Named) -> Iterator[_Chunk]:
    for path in paths:
        with open_file(path, tagger.inputs.columns, tagger.run.dataset) as opened:
            file, numbers = named.files.index(str(path)), None
            if named.labels is not None and opened.label_names is not None:
                numbers = np.array([named.labels.index(name) for name in opened.label_names], np.int32)
            for raw in opened.chunks:
                label_B = None if numbers is None else numbers[raw.labels]
                yield _Chunk(file, raw.first_entry, label_B, tagger.inputs.batches(raw, BATCH))


def _score(tagger: Tagger, chunks: Iterator[_Chunk], writer: _Writer, progress: Progress) -> None:
    """Score and write all jets; the thread beside takes one task after the other, so that none piles up."""
    held: list[_Rows] = []
    with ThreadPoolExecutor(max_workers=1) as beside:
        coming, writing = beside.submit(next, chunks, None), beside.submit(lambda: None)
        while (chunk := coming.result()) is not None:
            coming = beside.submit(next, chunks, None)
            held.append(_scored(tagger, chunk))
            n_held = sum(len(rows.row_B) for rows in held)
            progress.update(progress.done + len(held[-1].row_B))
            if n_held >= GROUP:
                writing.result()
                writing = beside.submit(writer.write, _joined(held))
                held = []
        writing.result()
        if held:
            writer.write(_joined(held))


def _scored(tagger: Tagger, chunk: _Chunk) -> _Rows:
    scores_BK = np.concatenate([tagger.score_batch(batch) for batch in chunk.batches])
    n_jets = len(scores_BK)
    row_B = np.arange(chunk.row, chunk.row + n_jets)
    return _Rows(np.full(n_jets, chunk.file, np.int32), row_B, chunk.label_B, scores_BK)


def _joined(held: list[_Rows]) -> _Rows:
    labels = [rows.label_B for rows in held if rows.label_B is not None]
    return _Rows(
        np.concatenate([rows.file_B for rows in held]),
        np.concatenate([rows.row_B for rows in held]),
        np.concatenate(labels) if labels else None,
        np.concatenate([rows.scores_BK for rows in held]),
    )


class _Writer(Protocol):
    def write(self, rows: _Rows) -> None:
        """Append some jets."""

    def close(self) -> None:
        """End the file."""


class _ParquetWriter:
    """One row group a call; words are numbers with a dictionary, which scores, all different, do without."""

    def __init__(self, path: Path, named: _Named) -> None:
        self._named = named
        words = pa.dictionary(pa.int32(), pa.string())
        kinds = {"file": words, "row": pa.int64()}
        kinds |= {} if named.labels is None else {"label": words}
        kinds |= dict.fromkeys(named.scores, pa.float32())
        self._schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])
        self._writer = pq.ParquetWriter(path.absolute(), self._schema, use_dictionary=["file", "label"])

    def write(self, rows: _Rows) -> None:
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
    def holds_scores(path: Path) -> bool:
        """Whether a file that is there was written by this class."""
        try:
            return {"file", "row"} <= set(pq.read_schema(path).names)
        except (OSError, pa.ArrowException):
            return False


class _RootWriter:
    """A TTree ``scores``, and a TTree ``files`` with the names that its branch ``file`` counts.

    Compressed as the published jet files are.
    """

    def __init__(self, path: Path, named: _Named) -> None:
        self._named = named
        kinds: dict[str, Any] = {"file": np.int32, "row": np.int64}
        kinds |= {} if named.labels is None else {"label": "string"}
        kinds |= dict.fromkeys(named.scores, np.float32)
        self._file = uproot.recreate(path, compression=uproot.LZ4(4))
        self._file.mktree("files", {"name": "string"}).extend({"name": list(named.files)})
        self._tree = self._file.mktree("scores", kinds)

    def write(self, rows: _Rows) -> None:
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
    def holds_scores(path: Path) -> bool:
        """Whether a file that is there was written by this class."""
        try:
            with uproot.open(path) as file:
                return {"files", "scores"} <= set(file.keys(cycle=False))
        except Exception:  # uproot raises what it likes on a file that is none of ROOT's
            return False


_WRITERS: dict[str, type[_ParquetWriter] | type[_RootWriter]] = {
    ".parquet": _ParquetWriter,
    ".root": _RootWriter,
}
