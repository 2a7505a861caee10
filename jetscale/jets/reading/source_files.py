"""Which jet files there are for a dataset and split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jetscale.jets.datasets.schemas import FOLDERS, SPLITS, SUFFIXES, JetFile, parse_name
from jetscale.jets.errors import JetDataError, raise_problems
from jetscale.jets.reading.locations import File, Folder, Found, files_below
from jetscale.jets.reading.unread import mention_misplaced, seen_elsewhere, unread_jets

ORIGINS = {
    "jetclass": "Zenodo record 6619768 (JetClass, folders train_100M, val_5M, test_20M)",
    "jetclass2": "the Hugging Face dataset jet-universe/jetclass2",
}


@dataclass(frozen=True)
class SourceFile:
    """One jet file: where it is, its published name and its size in bytes."""

    path: File
    name: str
    process: str
    number: int
    size: int


def find_sources(directory: Folder, dataset: str, split: str) -> list[SourceFile]:
    """Jet files of one split below ``directory/JetClass`` or ``directory/JetClassII``, sorted by name.

    The split follows from the published file numbers alone; sub-folders do not matter, and may be links.

    Raises
    ------
    JetDataError
        Files whose names are not published ones, empty files, one file or name at two places, files that look
        like jets but are not read (all are named); a folder that cannot be listed, a link that leads nowhere.
    """
    if dataset not in FOLDERS or split not in SPLITS:
        raise JetDataError(
            f"no {split!r} of {dataset!r}; there are {', '.join(SPLITS)} of {', '.join(FOLDERS)}"
        )
    folder = directory / FOLDERS[dataset]
    listing = files_below(folder, SUFFIXES[dataset])
    problems = unread_jets(listing.others, dataset, folder)
    chosen = _Chosen(problems)
    for item in listing.files:
        try:
            file = parse_name(item.file.name)
        except ValueError as error:
            problems.append(f"{item.file}: {error}; rename it, or move it out of {folder}")
            continue
        chosen.add(item, file, split)
    raise_problems(problems)
    mention_misplaced(directory)
    return [chosen.of_split[name] for name in sorted(chosen.of_split)]


class _Chosen:
    """Files of a split; a file that is there twice, whatever split it is there for, becomes a problem."""

    def __init__(self, problems: list[str]) -> None:
        self.of_split: dict[str, SourceFile] = {}
        self._problems = problems
        self._at: dict[tuple[int, int], File] = {}

    def add(self, item: Found, file: JetFile, split: str) -> None:
        """Take a file, if it is one of the split."""
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


def missing_message(directory: Folder, dataset: str, split: str, store: Path) -> str:
    """What to say where there is neither a store nor a file to make it from."""
    looked = directory / FOLDERS[dataset]
    message = (
        f"no {split} jets of {dataset}: looked for a packed store at {store} and for "
        f"{{name}}_{{number}}{SUFFIXES[dataset]} files of the {split} split below {looked}. "
        f"The public files come from {ORIGINS[dataset]}; put them below {looked}."
    )
    if isinstance(directory, Path):
        message += seen_elsewhere(directory, dataset, split)
        message += (
            " A stand-in is made by: "
            f"python -m jetscale.simulate dataset={dataset} n_jets=100000 out={directory}"
        )
    return message
