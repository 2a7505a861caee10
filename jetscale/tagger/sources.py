"""Jets to score: files in the formats of the datasets, or arrays, with labels or without."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import Dataset, all_datasets
from jetscale.jets.datasets.files import STEP, JetFileReader
from jetscale.jets.datasets.unread import looks_like_jets
from jetscale.jets.errors import JetDataError, raise_problems
from jetscale.jets.reading.array_reader import ARRAYS, ArrayReader
from jetscale.jets.reading.locations import files_below
from jetscale.jets.reading.raw import RawJets
from jetscale.jets.reading.sanity import check_jets
from jetscale.tagger.score_files import holds_scores

log = logging.getLogger(__name__)


class Labels(Enum):
    """What the published labels of a file are read for."""

    UNUSED = auto()
    """They are not read."""
    IF_USABLE = auto()
    """A file whose labels cannot be used has none; a warning says so."""
    NEEDED = auto()
    """Labels that cannot be used are an error."""


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
    words : a file, a folder (every jet file below it, by name) or a pattern with ``*``, of files or folders;
        or several of them, a list or one text with commas between

    Returns
    -------
    Files in the order given; scores that `predict` wrote are left out of what a folder or pattern finds.

    Raises
    ------
    UsageError
        Nothing is there, or a folder holds jets in a form that is not read.
    """
    several = [words] if isinstance(words, (str, Path)) else list(words)
    found = [path for word in several for part in _parted(str(word)) for path in _files_of(part)]
    if not found and any(str(word) for word in several):
        named = ",".join(map(str, several))
        raise UsageError(f"files={named}: names no file with jets, only scores that predict wrote")
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
        return _files_in(path)
    if path.exists():
        return [path]
    # unlike Path.glob, this leaves hidden files out, as a shell does
    matching = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207
    if not matching:
        raise UsageError(f"{word}: no such file")
    files = _without_scores([one for one in matching if not one.is_dir()], word)
    return sorted({*files, *(file for one in matching if one.is_dir() for file in _files_in(one))})


def _files_in(folder: Path) -> list[Path]:
    """Every jet file below a folder, through links, as `jetscale.prepare` finds them; none is passed over."""
    suffixes = tuple(sorted({suffix for dataset in all_datasets() for suffix in dataset.suffixes}))
    listing = files_below(folder, suffixes)
    raise_problems(
        [
            f"{file}: looks like jets but is not read: files must end in {', '.join(suffixes)}; rename, "
            f"unpack or convert it, or move it out of {folder}"
            for file in listing.others
            if looks_like_jets(file.name)
        ],
        "files are not read",
    )
    files = _without_scores(sorted(Path(str(found.file)) for found in listing.files), folder)
    if not files:
        raise UsageError(f"{folder}: no {', '.join(suffixes)} files with jets are in this folder")
    return files


def _without_scores(files: list[Path], searched: str | Path) -> list[Path]:
    """Files that were found by searching, but for the scores that `predict` wrote among them."""
    scores = [file for file in files if holds_scores(file)]
    if scores:
        log.warning(
            "%s: %d file(s) with scores instead of jets are left out, %s first",
            searched,
            len(scores),
            scores[0],
        )
    return [file for file in files if file not in scores]


@contextmanager
def open_file(
    path: Path, columns: Sequence[str], own: Dataset, labels: Labels = Labels.UNUSED
) -> Iterator[OpenJets]:
    """Open a jet file in the format of any dataset, that of the run first.

    Parameters
    ----------
    path : the file
    columns : published names of the columns that are needed
    own : dataset of the run
    labels : what they are read for; a file without any can be read for all

    Raises
    ------
    JetDataError
        No dataset has files of this format with these columns, or the file is damaged.
    """
    dataset = _format_of(path, columns, own)
    with JetFileReader(dataset, path, scoring=True) as reader:
        if labels is Labels.UNUSED:
            reader.ignore_labels()
        elif labels is Labels.IF_USABLE:
            reader.ignore_bad_labels()
        names = dataset.labels if reader.is_labelled else None
        yield OpenJets(path, reader.n_jets, names, dataset, reader.jets(columns))


def open_arrays(arrays: Any, columns: Sequence[str]) -> OpenJets:
    """Jets in memory, checked like those of a file.

    Parameters
    ----------
    arrays : see `ArrayReader`
    columns : published names of the columns that are needed
    """
    reader = ArrayReader(arrays, columns)
    return OpenJets(ARRAYS, reader.n_jets, None, None, _checked(reader))


def is_named(jets: Any) -> bool:
    """Whether `jets` names files, rather than being arrays."""
    if isinstance(jets, (str, Path)):
        return True
    several = isinstance(jets, Sequence) and not isinstance(jets, Mapping)
    return several and all(isinstance(one, (str, Path)) for one in jets)


def _checked(reader: ArrayReader) -> Iterator[RawJets]:
    for raw in reader.read(STEP):
        check_jets(raw, reader.source)
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
                reader.ignore_labels()
                next(reader.jets(columns, 0, min(1, reader.n_jets), 1), None)
            return dataset
        except JetDataError as error:
            problems.append(str(error).removeprefix(f"{path}: "))
    raise JetDataError(f"{path}: {problems[0]}")
