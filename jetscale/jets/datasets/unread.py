"""Jet files that are not read, or perhaps not as meant: said, never passed over in silence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from jetscale.jets.datasets.base import DATASETS, Dataset, all_datasets
from jetscale.jets.errors import mention_once
from jetscale.jets.reading.locations import File, Folder, files_below

_ARCHIVE = re.compile(r".*\.(?:tar|tgz|zip|7z|tar\.\w+)", re.IGNORECASE)
_BESIDE = re.compile(
    r".*\.(?:json|txt|md|md5|sha\d+|xxh\w*|sum|ya?ml|log|csv|png|pdf|html?|py)", re.IGNORECASE
)
"""Small files that people and programs put beside data."""
_ALSO_CALLED = ("hdf", "hdf5", "parq", "pq")
"""Other suffixes of files in the formats of the datasets."""
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Beginnings of names of folders, up to what is no letter, and the splits that they stand for."""
_DEPTH = 5
_MOST_FOLDERS = 2_000
"""How far to look for jets that were put elsewhere: in ``Pythia/train_100M`` of any folder, in a second."""


def unread_jets(others: Sequence[File], dataset: Dataset, folder: Folder) -> list[str]:
    """One message for each file that looks like jets but has another suffix; archives are warned of."""
    problems = []
    for file in others:
        if looks_like_jets(file.name):
            problems.append(
                f"{file}: looks like jets but is not read: {dataset.title} is read as {dataset.layout}; "
                f"{_way_out(file.name, dataset)}, or move it out of {folder}"
            )
        elif _ARCHIVE.fullmatch(file.name):
            mention_once(str(file), f"{file}: an archive is not read; unpack it, if its jets are wanted")
    return problems


def looks_like_jets(name: str) -> bool:
    """Whether a file of this name may hold jets, in any format, packed or unfinished."""
    return bool(_like_jets(tuple(DATASETS.names())).fullmatch(name)) and not _BESIDE.fullmatch(name)


@lru_cache
def _like_jets(names: tuple[str, ...]) -> re.Pattern[str]:
    """Pattern of file names that the datasets of these names have, with any further suffix."""
    datasets = [DATASETS[name] for name in names]
    processes = "|".join(re.escape(process) for dataset in datasets for process in dataset.processes)
    known = {suffix[1:] for dataset in datasets for suffix in dataset.suffixes}
    suffixes = "|".join(sorted(re.escape(suffix) for suffix in known.union(_ALSO_CALLED)))
    return re.compile(rf"(?:{processes})_\d+\b.*|.*\.(?:{suffixes})(?:\..*)?", re.IGNORECASE)


def _way_out(name: str, dataset: Dataset) -> str:
    low, suffixes = name.lower(), " or ".join(dataset.suffixes)
    if low.endswith(dataset.suffixes):
        return f"rename it to end in {suffixes}"
    if low.endswith(tuple(suffix for other in all_datasets() for suffix in other.suffixes)):
        return "convert it (docs/formats.md)"
    if low.endswith((".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tar", ".tgz", ".7z")):
        return "unpack it"
    return f"finish its download or convert it, so that its name ends in {suffixes}"


def mention_misplaced(directory: Folder) -> None:
    """Warn of jets beside the folders of the datasets, where nothing looks for them; of local ones only."""
    if not isinstance(directory, Path) or not directory.is_dir():
        return
    folders = {dataset.title: directory / dataset.folder for dataset in all_datasets()}
    read = [folder.resolve() for folder in folders.values()]
    names = tuple(folder.name.lower() for folder in folders.values())
    for path in sorted(directory.iterdir()):
        alike = path.name.lower().startswith(names) if path.is_dir() else looks_like_jets(path.name)
        if alike and not any(folder.is_relative_to(path.resolve()) for folder in read):
            places = ", ".join(f"{title} belongs in {folder}" for title, folder in folders.items())
            mention_once(str(path), f"{path}: looks like jets but is not read; {places}")


def seen_elsewhere(directory: Path, dataset: Dataset, split: str) -> str:
    """A sentence on files that may be what was looked for in vain; empty if there are none."""
    seen = []
    splits = []
    for item in files_below(directory / dataset.folder, dataset.suffixes).files:
        with suppress(ValueError):
            splits.append(dataset.file_of(item.file.name).split)
    if theirs := len(splits) - splits.count(split):
        seen.append(f"the {theirs} files there belong to other splits than {split} by their names")
    stray = list(_stray(directory))
    if stray:
        more = f" and {len(stray) - 3} more" if len(stray) > 3 else ""
        seen.append(f"not read, for their place, are {', '.join(map(str, stray[:3]))}{more}")
    return f" Seen: {'; '.join(seen)}." if seen else ""


def _stray(directory: Path) -> Iterator[Path]:
    """Files that look like jets below `directory` but outside the datasets' folders."""
    known = {dataset.folder for dataset in all_datasets()}
    for number, (folder, folders, names) in enumerate(os.walk(directory, followlinks=True)):
        depth = len(Path(folder).relative_to(directory).parts)
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and depth < _DEPTH and (depth or name not in known)
        ]
        yield from (Path(folder, name) for name in sorted(names) if looks_like_jets(name) and name[0] != ".")
        if number == _MOST_FOLDERS:
            return


def mention_other_splits(files: Sequence[File], folder: Folder, split: str) -> None:
    """Warn where a folder is called by another split than the numbers of the files in it are of.

    Parameters
    ----------
    files : of the split
    folder : that all of them lie in
    split : train, val or test
    """
    for file in files:
        above = str(file).removeprefix(str(folder)).strip("/").split("/")[:-1]
        words = (re.match("[a-z]*", name.lower()) for name in reversed(above))
        named = next((_SPLIT_WORDS[word[0]] for word in words if word and word[0] in _SPLIT_WORDS), split)
        if named != split:
            place = str(file).rpartition("/")[0]
            mention_once(
                f"{place} {split}",
                f"{file}: a {split} file by its number, in a folder called like the {named} split; the "
                "number decides: rename what is wrong (said once a folder)",
            )
