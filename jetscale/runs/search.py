"""Folders below a sweep, those on other disks that are linked to included."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from jetscale.common.usage import UsageError
from jetscale.runs.layout import CHECKPOINTS, MARKS, NOT_RUNS


def refuse(problem: str) -> None:
    """Raise what `folders_below` could not see, for readers whose result must be complete.

    Raises
    ------
    UsageError
    """
    raise UsageError(problem)


def folders_below(
    root: Path, unseen: Callable[[str], None] = refuse, left_out: Collection[str] = NOT_RUNS
) -> Iterator[tuple[Path, set[str]]]:
    """Every folder from `root` down in which runs may be, with the names of its files.

    Links are followed, because runs are often moved to a larger disk and linked to. A folder with several
    names appears once, under the name without links where it has one. Hidden folders, and those of certain
    names, are left out with all that is below them.

    Parameters
    ----------
    root : the topmost folder
    unseen : called with a line for each link that leads nowhere and each folder that cannot be listed
    left_out : names of folders

    Yields
    ------
    The folder, as a path that begins with `root`, and the names of the files in it.
    """
    seen: set[str] = set()
    links = [root]
    while links:
        for folder, below, files in os.walk(links.pop(0), onerror=lambda error: _told(error, unseen)):
            place = os.path.realpath(folder)
            if place in seen:
                below.clear()
                continue
            seen.add(place)
            below[:] = sorted(name for name in below if name not in left_out and not name.startswith("."))
            linked = [name for name in below if Path(folder, name).is_symlink()]
            links += [Path(folder, name) for name in linked]
            below[:] = [name for name in below if name not in linked]
            for lost in _lost(Path(folder), files, left_out):
                unseen(f"{lost}: a link to {lost.readlink()}, which leads nowhere; repair or remove the link")
            yield Path(folder), set(files)


def to_remove(path: Path) -> str:
    """What to remove to have the run in `path` made anew, as the words that follow ``remove``.

    Variants of a run are folders inside its own: where there are any, the folder is not to be removed.

    Parameters
    ----------
    path : a run directory, or the folder of a backbone
    """
    below = sum(
        folder != path and not MARKS.isdisjoint(files)
        for folder, files in folders_below(path, unseen=lambda _: None)
    )
    if not below:
        return str(path)
    runs = "another run is" if below == 1 else f"{below} other runs are"
    return f"{path / CHECKPOINTS} and the files in {path} (not the folder, {runs} below it)"


def _lost(folder: Path, files: list[str], left_out: Collection[str]) -> list[Path]:
    """Links that lead nowhere, which `os.walk` counts as files."""
    paths = [folder / name for name in sorted(files) if name not in left_out and not name.startswith(".")]
    return [path for path in paths if path.is_symlink() and not path.exists()]


def _told(error: OSError, unseen: Callable[[str], None]) -> None:
    if not isinstance(error, FileNotFoundError):  # a folder may be removed while it is looked at
        unseen(f"{error.filename}: the folder cannot be listed ({error.strerror}); make it a readable folder")
