"""Which jet files there are for a dataset and split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jetscale.jets.errors import JetDataError
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

    path: Path
    name: str
    process: str
    number: int
    size: int


def find_sources(directory: Path, dataset: str, split: str) -> list[SourceFile]:
    """Jet files of one split below ``directory/JetClass`` or ``directory/JetClassII``, sorted by name.

    The split follows from the published file numbers alone; sub-folders do not matter.

    Raises
    ------
    JetDataError
        A file whose name is not a published one, an empty file, or one name at two places.
    """
    if dataset not in FOLDERS or split not in SPLITS:
        raise JetDataError(
            f"no {split!r} of {dataset!r}; there are {', '.join(SPLITS)} of {', '.join(FOLDERS)}"
        )
    found: dict[str, SourceFile] = {}
    for path in sorted((directory / FOLDERS[dataset]).rglob(f"*{SUFFIXES[dataset]}")):
        if any(part.startswith(".") for part in path.relative_to(directory).parts):
            continue  # a hidden file is somebody's unfinished download or simulation
        try:
            file = parse_name(path)
        except ValueError as error:
            raise JetDataError(
                f"{error}; rename it, or move it out of {directory / FOLDERS[dataset]}"
            ) from error
        if file.split != split:
            continue
        size = path.stat().st_size
        if size == 0:
            raise JetDataError(f"{path}: the file is empty (0 bytes); download or simulate it again")
        if path.name in found:
            raise JetDataError(
                f"{path}: duplicated file, also at {found[path.name].path}; remove one of them"
            )
        found[path.name] = SourceFile(path, path.name, file.process, file.number, size)
    return [found[name] for name in sorted(found)]


def missing_message(directory: Path, dataset: str, split: str, store: Path) -> str:
    """What to say where there is neither a store nor a file to make it from."""
    looked = directory / FOLDERS[dataset]
    return (
        f"no {split} jets of {dataset}: looked for a packed store at {store} and for "
        f"{{name}}_{{number}}{SUFFIXES[dataset]} files of the {split} split below {looked}. "
        f"The public files come from {ORIGINS[dataset]}; put them below {looked}. A stand-in is made by: "
        f"python -m jetscale.simulate dataset={dataset} n_jets=100000 out={directory}"
    )
