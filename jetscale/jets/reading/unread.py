"""Files that look like jets but are not read: none is passed over in silence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jetscale.jets.datasets.schemas import FOLDERS, JETCLASS2_NUMBERS, JETCLASS_PREFIXES, SUFFIXES
from jetscale.jets.errors import mention_once
from jetscale.jets.reading.locations import File, Folder, files_below

_PROCESSES = "|".join(map(re.escape, (*JETCLASS_PREFIXES.values(), *JETCLASS2_NUMBERS)))
_LIKE_JETS = re.compile(rf"(?:{_PROCESSES})_\d+\b.*|.*\.(?:root|parquet)(?:\..*)?", re.IGNORECASE)
_ARCHIVE = re.compile(r".*\.(?:tar|tgz|zip|7z|tar\.\w+)", re.IGNORECASE)
_BESIDE = re.compile(
    r".*\.(?:json|txt|md|md5|sha\d+|xxh\w*|sum|ya?ml|log|csv|png|pdf|html?|py)", re.IGNORECASE
)
"""Small files that people and programs put beside data."""

_EXPECTED = {
    "jetclass": "JetClass is read as ROOT files {Process}_{NNN}.root with a TTree `tree`",
    "jetclass2": "JetClass-II is read as parquet files {Bucket}_{NNNN}.parquet",
}
_DEPTH = 5
_MOST_FOLDERS = 2_000
"""How far to look for jets that were put elsewhere: in ``Pythia/train_100M`` of any folder, in a second."""


def unread_jets(others: Sequence[File], dataset: str, folder: Folder) -> list[str]:
    """What to say of a dataset's files that do not end as its files do; of archives there is a warning."""
    problems = []
    for file in others:
        if looks_like_jets(file.name):
            problems.append(
                f"{file}: looks like jets but is not read: {_EXPECTED[dataset]}; "
                f"{_way_out(file.name, dataset)}, or move it out of {folder}"
            )
        elif _ARCHIVE.fullmatch(file.name):
            mention_once(str(file), f"{file}: an archive is not read; unpack it, if its jets are wanted")
    return problems


def looks_like_jets(name: str) -> bool:
    """Whether a file of this name may hold jets, in whatever format, packed or unfinished."""
    return bool(_LIKE_JETS.fullmatch(name)) and not _BESIDE.fullmatch(name)


def _way_out(name: str, dataset: str) -> str:
    low, suffix = name.lower(), SUFFIXES[dataset]
    if low.endswith(suffix):
        return f"rename it to end in {suffix}"
    if low.endswith(tuple(SUFFIXES.values())):
        return "convert it (docs/formats.md)"
    if low.endswith((".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tar", ".tgz", ".7z")):
        return "unpack it"
    return f"finish its download or convert it, so that its name ends in {suffix}"


def mention_misplaced(directory: Folder) -> None:
    """Warn of jets beside the folders of the datasets, where nothing looks for them; of local ones only."""
    if not isinstance(directory, Path) or not directory.is_dir():
        return
    read = [(directory / name).resolve() for name in FOLDERS.values()]
    for path in sorted(directory.iterdir()):
        alike = path.name.lower().startswith("jetclass") if path.is_dir() else looks_like_jets(path.name)
        if alike and not any(folder.is_relative_to(path.resolve()) for folder in read):
            mention_once(
                str(path),
                f"{path}: looks like jets but is not read; JetClass belongs in "
                f"{directory / FOLDERS['jetclass']}, JetClass-II in {directory / FOLDERS['jetclass2']}",
            )


def seen_elsewhere(directory: Path, dataset: str, split: str) -> str:
    """A sentence on files that may be what was looked for in vain; empty if there are none."""
    seen = []
    theirs = files_below(directory / FOLDERS[dataset], SUFFIXES[dataset]).files
    if theirs:
        seen.append(f"the {len(theirs)} files there belong to other splits than {split} by their numbers")
    stray = list(_stray(directory))
    if stray:
        more = f" and {len(stray) - 3} more" if len(stray) > 3 else ""
        seen.append(f"not read, for their place, are {', '.join(map(str, stray[:3]))}{more}")
    return f" Seen: {'; '.join(seen)}." if seen else ""


def _stray(directory: Path) -> Iterator[Path]:
    """Files that look like jets below `directory` but outside the datasets' folders."""
    for number, (folder, folders, names) in enumerate(os.walk(directory, followlinks=True)):
        depth = len(Path(folder).relative_to(directory).parts)
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and depth < _DEPTH and (depth or name not in FOLDERS.values())
        ]
        yield from (Path(folder, name) for name in sorted(names) if looks_like_jets(name) and name[0] != ".")
        if number == _MOST_FOLDERS:
            return
