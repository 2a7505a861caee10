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

import numpy as np

from jetscale.common.files import atomic_path, remove_leftovers_of
from jetscale.common.progress import Progress
from jetscale.common.usage import UsageError
from jetscale.jets.batch import JetBatch
from jetscale.tagger.load import BATCH, Tagger, load
from jetscale.tagger.score_files import WRITERS, Named, Numbers, Rows, Writer, holds_scores
from jetscale.tagger.settings import Predict
from jetscale.tagger.sources import Labels, files_named, open_file

GROUP = 100_000
"""Jets written at once: a row group of parquet, a basket of ROOT."""


@dataclass(frozen=True)
class _Chunk:
    """Some jets of one file, ready for the network: number of the file, first row, labels, batches."""

    file: int
    row: int
    label_B: Numbers | None
    batches: list[JetBatch]


def predict(settings: Predict) -> None:
    """Write the scores that `settings` asks for.

    Raises
    ------
    UsageError, JetDataError
        The run or a file cannot be used, or a file of something else has the name of the output; nothing
        is written then.
    WriteError
        The scores cannot be written.
    """
    out = Path(settings.out)
    if out.suffix not in WRITERS:
        raise UsageError(f"out={out}: must end in {' or '.join(WRITERS)}")
    tagger = load(settings.run, settings.weights or None)
    paths = files_named(settings.files)
    if any(path.resolve() == out.resolve() for path in paths):
        raise UsageError(f"out={out}: is one of the files to score; choose another name")
    if out.is_file() and out.stat().st_size and not holds_scores(out):
        raise UsageError(
            f"out={out}: is there and is no file of scores as predict writes it; choose another name, or "
            "remove it"
        )
    remove_leftovers_of(out)
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
        with open_file(path, columns, tagger.run.dataset, Labels.IF_USABLE) as opened:
            n_jets += opened.n_jets
            labels |= dict.fromkeys(opened.label_names or ())
            labelled &= opened.label_names is not None
    files = tuple(dict.fromkeys(map(str, paths)))  # one may be named twice
    named = Named(files, tuple(labels) if labelled else None, tagger.class_names)
    with (
        atomic_path(out) as aside,
        Progress("predict", n_jets, "jets", rated=True, closing=False) as progress,
    ):
        writer = WRITERS[out.suffix](aside, named)
        try:
            _score(tagger, _chunks(tagger, paths, named), writer, progress)
        finally:
            writer.close()
    return n_jets, progress


def _chunks(tagger: Tagger, paths: list[Path], named: Named) -> Iterator[_Chunk]:
    labels = Labels.UNUSED if named.labels is None else Labels.NEEDED
    for path in paths:
        with open_file(path, tagger.inputs.columns, tagger.run.dataset, labels) as opened:
            file, numbers = named.files.index(str(path)), None
            if named.labels is not None and opened.label_names is not None:
                numbers = np.array([named.labels.index(name) for name in opened.label_names], np.int32)
            for raw in opened.chunks:
                label_B = None if numbers is None else numbers[raw.labels]
                yield _Chunk(file, raw.first_entry, label_B, tagger.inputs.batches(raw, BATCH))


def _score(tagger: Tagger, chunks: Iterator[_Chunk], writer: Writer, progress: Progress) -> None:
    """Score and write all jets; the thread beside takes one task after the other, so that none piles up."""
    held: list[Rows] = []
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


def _scored(tagger: Tagger, chunk: _Chunk) -> Rows:
    scores_BK = np.concatenate([tagger.score_batch(batch) for batch in chunk.batches])
    n_jets = len(scores_BK)
    row_B = np.arange(chunk.row, chunk.row + n_jets)
    return Rows(np.full(n_jets, chunk.file, np.int32), row_B, chunk.label_B, scores_BK)


def _joined(held: list[Rows]) -> Rows:
    labels = [rows.label_B for rows in held if rows.label_B is not None]
    return Rows(
        np.concatenate([rows.file_B for rows in held]),
        np.concatenate([rows.row_B for rows in held]),
        np.concatenate(labels) if labels else None,
        np.concatenate([rows.scores_BK for rows in held]),
    )
