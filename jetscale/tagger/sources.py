"""Jets to score: files in the formats of the datasets, or arrays, with labels or without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import Dataset, all_datasets
from jetscale.jets.datasets.files import STEP, JetFileReader
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.array_reader import ARRAYS, ArrayReader
from jetscale.jets.reading.locations import files_below
from jetscale.jets.reading.raw import RawJets
from jetscale.jets.reading.sanity import check_jets


@dataclass(frozen=True)
class OpenJets:
    """Jets that are ready to be read.

    Attributes
    ----------
    path : the file, or ``arrays``
    n_jets : jets in it
    label_names : names of the published labels; None where the jets have no labels
    dataset : whose format the file has; None for arrays
    chunks : the jets, at most `STEP` at a time, in order
    """

    path: Path
    n_jets: int
    label_names: tuple[str, ...] | None
    dataset: Dataset | None
    chunks: Iterator[RawJets]


def files_named(words: str | Path | Sequence[str | Path]) -> list[Path]:
    """Files that a user names.

    Parameters
    ----------
    words : a file, a folder (every jet file below it, by name) or a pattern with ``*``; or several of them, a
        list or one text with commas between

    Returns
    -------
    Files in the order given.

    Raises
    ------
    UsageError
        Nothing is there.
    """
    several = [words] if isinstance(words, (str, Path)) else list(words)
    found = [path for word in several for part in _parted(str(word)) for path in _files_of(part)]
    if not found:
        raise UsageError("no files are named; give files=jets.root, a folder, or a pattern, 'x_*.root'")
    return found


def _parted(text: str) -> list[str]:
    """Names with commas between; what is there under its whole name stays whole."""
    return [text] if text and Path(text).exists() else [word for word in text.split(",") if word]


def _files_of(word: str) -> list[Path]:
    path = Path(word).expanduser()
    if "://" in word:
        raise UsageError(f"{word}: only local files can be scored; download it first")
    if path.is_dir():
        suffixes = tuple({suffix for dataset in all_datasets() for suffix in dataset.suffixes})
        listing = files_below(path, suffixes)
        inside = sorted(found.file for found in listing.files if isinstance(found.file, Path))
        if not inside:
            raise UsageError(f"{path}: no {', '.join(sorted(suffixes))} files are in this folder")
        return inside
    if path.exists():
        return [path]
    anchor = Path(path.anchor) if path.is_absolute() else Path()
    matching = sorted(anchor.glob(str(path.relative_to(anchor)))) if any(c in word for c in "*?[") else []
    if not matching:
        raise UsageError(f"{word}: no such file")
    return matching


@contextmanager
def open_file(path: Path, columns: Sequence[str], own: Dataset) -> Iterator[OpenJets]:
    """Open a jet file in the format of any dataset, that of the run first.

    Parameters
    ----------
    path : the file
    columns : published names of the columns that are needed
    own : dataset of the run

    Raises
    ------
    JetDataError
        No dataset has files of this format with these columns, or the file is damaged.
    """
    dataset = _format_of(path, columns, own)
    with JetFileReader(dataset, path, scoring=True) as reader:
        labels = dataset.labels if reader.is_labelled else None
        yield OpenJets(path, reader.n_jets, labels, dataset, reader.jets(columns))


def open_arrays(arrays: Any, columns: Sequence[str]) -> OpenJets:
    """Jets in memory, checked like those of a file.

    Parameters
    ----------
    arrays : see `ArrayReader`
    columns : published names of the columns that are needed
    """
    reader = ArrayReader(arrays)
    return OpenJets(ARRAYS, reader.n_jets, None, None, _checked(reader, columns))


def is_named(jets: Any) -> bool:
    """Whether `jets` names files, rather than being arrays."""
    if isinstance(jets, (str, Path)):
        return True
    several = isinstance(jets, Sequence) and not isinstance(jets, Mapping)
    return several and all(isinstance(one, (str, Path)) for one in jets)


def _checked(reader: ArrayReader, columns: Sequence[str]) -> Iterator[RawJets]:
    for raw in reader.read(columns, 0, reader.n_jets, STEP):
        check_jets(raw)
        yield raw


def _format_of(path: Path, columns: Sequence[str], own: Dataset) -> Dataset:
    """Dataset whose reader finds these columns in the file; the only one of the suffix is not tried out."""
    known = sorted(all_datasets(), key=lambda dataset: dataset is not own)  # the run's own first
    possible = [dataset for dataset in known if path.suffix in dataset.suffixes]
    if not possible:
        suffixes = sorted({suffix for dataset in known for suffix in dataset.suffixes})
        raise JetDataError(f"{path}: jets are read from {', '.join(suffixes)} files")
    problems = []
    for dataset in possible:
        lacking = [name for name in columns if name not in dataset.columns]
        if lacking:
            problems.append(f"the inputs need {', '.join(lacking)}, which {dataset.title} does not have")
            continue
        if len(possible) == 1:
            return dataset
        try:
            with JetFileReader(dataset, path, scoring=True) as reader:
                next(reader.jets(columns, 0, 1, 1))
            return dataset
        except JetDataError as error:
            problems.append(str(error).removeprefix(f"{path}: "))
    raise JetDataError(f"{path}: {problems[0]}")
