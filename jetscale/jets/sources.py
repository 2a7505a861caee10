"""Which jet files there are for a dataset and split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jetscale.jets.errors import JetDataError, raise_problems
from jetscale.jets.locations import File, Folder, files_below
from jetscale.jets.schemas import SPLITS, parse_name

FOLDERS = {"jetclass": "JetClass", "jetclass2": "JetClassII"}
SUFFIXES = {"jetclass": ".root", "jetclass2": ".parquet"}
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

    The split follows from the published file numbers alone; sub-folders do not matter.

    Raises
    ------
    JetDataError
        Files whose names are not published ones, empty files, one name at two places (all are named); a
        remote folder that cannot be listed.
    """
    if dataset not in FOLDERS or split not in SPLITS:
        raise JetDataError(
            f"no {split!r} of {dataset!r}; there are {', '.join(SPLITS)} of {', '.join(FOLDERS)}"
        )
    found: dict[str, SourceFile] = {}
    problems: list[str] = []
    for item in files_below(directory / FOLDERS[dataset], SUFFIXES[dataset]):
        path, name = item.file, item.file.name
        if any(part.startswith(".") for part in item.below.parts):
            continue  # a hidden file is somebody's unfinished download or simulation
        try:
            file = parse_name(name)
        except ValueError as error:
            problems.append(f"{path}: {error}; rename it, or move it out of {directory / FOLDERS[dataset]}")
            continue
        if file.split != split:
            continue
        if item.size == 0:
            problems.append(f"{path}: the file is empty (0 bytes); download or simulate it again")
        elif name in found:
            problems.append(f"{path}: duplicated file, also at {found[name].path}; remove one of them")
        else:
            found[name] = SourceFile(path, name, file.process, file.number, item.size)
    raise_problems(problems)
    return [found[name] for name in sorted(found)]


def missing_message(directory: Folder, dataset: str, split: str, store: Path) -> str:
    """What to say where there is neither a store nor a file to make it from."""
    looked = directory / FOLDERS[dataset]
    message = (
        f"no {split} jets of {dataset}: looked for a packed store at {store} and for "
        f"{{name}}_{{number}}{SUFFIXES[dataset]} files of the {split} split below {looked}. "
        f"The public files come from {ORIGINS[dataset]}; put them below {looked}."
    )
    if isinstance(directory, Path):
        message += (
            " A stand-in is made by: "
            f"python -m jetscale.simulate dataset={dataset} n_jets=100000 out={directory}"
        )
    return message
