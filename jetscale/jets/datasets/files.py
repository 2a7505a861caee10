"""The jet files of a dataset and split: which there are, and each of them opened, with every value checked.

Files that look like jets but are not read are reported, never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jetscale.jets.datasets.base import DATASETS, SPLITS, Dataset, JetFile
from jetscale.jets.datasets.unread import (
    mention_misplaced,
    mention_other_splits,
    seen_elsewhere,
    unread_jets,
)
from jetscale.jets.errors import JetDataError, mention_once, raise_problems, read_errors_named
from jetscale.jets.reading.contents import check_contents
from jetscale.jets.reading.locations import File, Folder, Found, files_below
from jetscale.jets.reading.manifests import compare_with_manifest
from jetscale.jets.reading.raw import IDENTITY, JET_COLUMNS, MOMENTUM, RawJets
from jetscale.jets.reading.sanity import check_jets

STEP = 5_000
"""Jets read at once: 15 MB of JetClass. With larger steps the arrays leave cache and heap: slower."""

_LABELS_AT_ONCE = 20_000  # some formats read all columns for it


@dataclass(frozen=True)
class SourceFile:
    """One jet file: where it is, its published name and its size in bytes."""

    path: File
    name: str
    process: str
    number: int
    size: int


def needed_columns(dataset: Dataset, features: Sequence[str]) -> tuple[str, ...]:
    """Columns to read of a dataset for inputs that need `features`: those, what is checked, what is kept.

    Parameters
    ----------
    dataset : whose files are read
    features : columns that the inputs are made of
    """
    checked = (*MOMENTUM, *(IDENTITY if all(name in dataset.columns for name in IDENTITY) else ()))
    return tuple(dict.fromkeys((*checked, *features, *kept_columns(dataset))))


def kept_columns(dataset: Dataset) -> tuple[str, ...]:
    """Columns of jets that a store of the dataset keeps."""
    return tuple(name for name in JET_COLUMNS if name in dataset.columns)


class JetFileReader:
    """An open jet file: its number of jets, and any range of them.

    Columns are selected by name and judged by what they hold, never by the type's name: ROOT files written by
    uproot have counter branches and ``float[]`` where the published ones have ``vector<float>``.

    Parameters
    ----------
    dataset : whose file it is
    path : the file
    called : the name for errors, where `path` is a copy of another file
    scoring : read for the scores of a trained network: no column that is not asked for, and labels only where
        the file has them

    Attributes
    ----------
    n_jets : jets in the file
    is_labelled : False for a file without labels, which is read for scores alone; those of its jets are 0

    Raises
    ------
    JetDataError
        The file cannot be opened, is truncated, or is not the one of the manifest beside it; or it holds no
        jets, of which scoring only warns.
    """

    def __init__(
        self, dataset: Dataset, path: Path, called: File | None = None, scoring: bool = False
    ) -> None:
        self.path = called or path
        self._dataset, self._scoring = dataset, scoring
        if path.suffix not in dataset.suffixes:
            raise JetDataError(f"{self.path}: {dataset.title} is read as {dataset.layout}")
        with read_errors_named(self.path):
            compare_with_manifest(path, self.path)
            check_contents(path, self.path)
            self._reader = dataset.open(path, self.path)
        leave_labels_out = getattr(self._reader, "leave_labels_out", None) if scoring else None
        self.is_labelled = leave_labels_out is None or not leave_labels_out()
        self.n_jets = self._reader.n_jets
        if self.n_jets == 0 and not scoring:
            raise JetDataError(f"{self.path}: the file holds no jets; download or simulate it again")
        if self.n_jets == 0:
            mention_once(f"no jets in {self.path}", f"{self.path}: the file holds no jets")

    def ignore_labels(self) -> None:
        """Read no labels from now on, where the reader of the format can do without."""
        if (ignore_labels := getattr(self._reader, "ignore_labels", None)) is not None:
            ignore_labels()
            self.is_labelled = False

    def ignore_bad_labels(self) -> None:
        """Read no labels from now on, with a warning, if those of any jet of the file cannot be used."""
        check_labels = getattr(self._reader, "check_labels", None)
        if not self.is_labelled or check_labels is None:
            return
        with read_errors_named(self.path):
            try:
                check_labels(_LABELS_AT_ONCE)
            except JetDataError as error:
                mention_once(f"labels of {self.path}", f"{error}; the labels of the file are not used")
                self.ignore_labels()

    def jets(
        self, features: Sequence[str], start: int = 0, stop: int | None = None, step: int = STEP
    ) -> Iterator[RawJets]:
        """Jets `start` to `stop`, at most `step` at a time, checked.

        Parameters
        ----------
        features : columns wanted beyond those always read (`needed_columns`); all of them for scores
        start, stop : entry numbers; None for the end of the file
        step : jets at a time

        Raises
        ------
        JetDataError
            A truncated file, a missing branch, a branch of the wrong type, constituent branches of different
            lengths, a non-finite input, an empty jet, labels that are not one-hot or out of range, an entry
            range outside the file.
        """
        stop = self.n_jets if stop is None else stop
        if not 0 <= start <= stop <= self.n_jets:
            raise JetDataError(f"{self.path}: entries {start} to {stop} asked, the file has {self.n_jets}")
        columns = tuple(features) if self._scoring else needed_columns(self._dataset, features)
        chunks = self._reader.read(columns, start, stop, step)
        while True:
            with read_errors_named(self.path):
                raw = next(chunks, None)
            if raw is None:
                break
            check_jets(raw)
            start += raw.n_jets
            yield raw
        if start != stop:
            raise JetDataError(f"{self.path}: ends at entry {start} instead of {stop}: it is truncated")

    def __enter__(self) -> JetFileReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()


def find_sources(directory: Folder, name: str, split: str) -> list[SourceFile]:
    """Jet files of one split in the folder that the dataset called `name` has below `directory`, by name.

    The split follows from the files' names alone; sub-folders do not matter, and may be links.

    Parameters
    ----------
    directory : data directory, perhaps remote
    name : of the dataset
    split : train, val or test

    Raises
    ------
    JetDataError
        Files whose names are not published ones, empty files, one file or name at two places, files that look
        like jets but are not read (all are named); a folder that cannot be listed, a link that leads nowhere.
    """
    dataset = DATASETS[name]
    if split not in SPLITS:
        raise JetDataError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    folder = directory / dataset.folder
    listing = files_below(folder, dataset.suffixes)
    problems = unread_jets(listing.others, dataset, folder)
    chosen = _Chosen(problems)
    for item in listing.files:
        try:
            file = dataset.file_of(item.file.name)
        except ValueError as error:
            problems.append(f"{item.file}: {error}; rename it, or move it out of {folder}")
            continue
        chosen.add(item, file, split)
    raise_problems(problems)
    mention_other_splits([file.path for file in chosen.of_split.values()], folder, split)
    mention_misplaced(directory)
    return [chosen.of_split[name] for name in sorted(chosen.of_split)]


class _Chosen:
    """Files of a split; a file that is there twice becomes a problem, even in another split."""

    def __init__(self, problems: list[str]) -> None:
        self.of_split: dict[str, SourceFile] = {}
        self._problems = problems
        self._at: dict[tuple[int, int], File] = {}

    def add(self, item: Found, file: JetFile, split: str) -> None:
        """Take a file, if it is one of the split.

        Parameters
        ----------
        item : the file as it was found
        file : what its name tells
        split : that is wanted
        """
        path, name = item.file, item.file.name
        if item.identity in self._at:
            self._problems.append(
                f"{path}: duplicated file, the same file as {self._at[item.identity]}; remove one of them"
            )
        elif file.split != split:
            pass
        elif item.size == 0:
            self._problems.append(f"{path}: the file is empty (0 bytes); download or simulate it again")
        elif name in self.of_split:
            self._problems.append(
                f"{path}: duplicated file, also at {self.of_split[name].path}; remove one of them"
            )
        else:
            self.of_split[name] = SourceFile(path, name, file.process, file.number, item.size)
        if item.identity is not None:
            self._at.setdefault(item.identity, path)


def missing_message(directory: Folder, name: str, split: str, store: Path) -> str:
    """Message for a dataset and split that has neither a store nor files to make it from.

    Parameters
    ----------
    directory : data directory, perhaps remote
    name : of the dataset
    split : train, val or test
    store : where the store would be
    """
    dataset = DATASETS[name]
    looked = directory / dataset.folder
    message = (
        f"no {split} jets of {name}: looked for a packed store at {store} and for "
        f"{dataset.file_names} files of the {split} split below {looked}. "
        f"The public files come from {dataset.origin}; put them below {looked}."
    )
    if isinstance(directory, Path):
        if dataset.downloadable:
            message += (
                f" They are fetched by: python -m jetscale.download dataset={name} dir={directory} "
                "(add --dry to see their sizes)."
            )
        message += seen_elsewhere(directory, dataset, split)
        if dataset.numbered:
            message += (
                " A stand-in is made by: "
                f"python -m jetscale.simulate dataset={name} n_jets=100000 out={directory}"
            )
    return message
