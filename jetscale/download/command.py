"""What ``python -m jetscale.download`` does: list, fetch, compare, put in place, report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.filesize import decimal

from jetscale.common.progress import Progress, to_stderr, waiting
from jetscale.common.usage import UsageError
from jetscale.download.needs import files_needed
from jetscale.download.published import DownloadError, verify
from jetscale.download.receipts import only_here
from jetscale.download.settings import DATASET, DownloadSettings
from jetscale.download.sources import Fetch, Place, Source, bytes_to_fetch, space_needed
from jetscale.download.transfer import Client, Report
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.errors import raise_problems
from jetscale.jets.reading.locations import RemoteFolder, folder_of

_MB = 1e6


def download(settings: DownloadSettings) -> None:
    """Fetch, list or check what `settings` ask for.

    Raises
    ------
    UsageError
        A setting cannot be used; a file cannot be fetched, or is another one (`DownloadError`).
    jetscale.common.files.WriteError
        The disk is full, ...
    """
    if settings.dataset is None:
        raise UsageError(f"dataset= is needed: {DATASET}")
    if isinstance(folder_of(settings.dir), RemoteFolder):
        raise UsageError(f"dir={settings.dir}: files are fetched to a local folder; name one")
    folder = Path(settings.dir) / DATASETS[settings.dataset].folder
    needs = files_needed(settings.dataset, settings.budget, settings.split)
    with nullcontext() if settings.check or settings.dry else only_here(folder):
        place = Place(settings, DATASETS[settings.dataset], folder, needs, Client(settings.retries))
        if settings.check:
            _check(place)
        elif settings.dry:
            _show(_source(place), place)
        else:
            _fetch_all(_source(place), place)


def _source(place: Place) -> Source:
    if place.settings.dataset == "jetclass2":
        from jetscale.download.hub import JetClass2

        return JetClass2(place)
    from jetscale.download.zenodo import JetClass

    return JetClass(place)


def _fetch_all(source: Source, place: Place) -> None:
    while tasks := source.todo():  # what is inside an archive may ask for another one
        place.receipt.save()  # what was compared just now
        _require_space(tasks, place.folder)
        to_stderr(_sum(tasks, place.folder))
        for number, task in enumerate(tasks, 1):
            with shown(task) as report:
                if task.mine is None:
                    place.client.fetch(task.file, task.part, report)
            with waiting(f"{task.file.name}: comparing its checksum, putting it in place", to_stderr):
                _require_checksum(task)
                done = source.take(task)
            to_stderr(
                f"{number}/{len(tasks)} {task.file.name}: {decimal(task.file.size)}, "
                f"{task.file.algorithm} good, {done}"
            )
    place.receipt.save()
    _report(place)


def _require_checksum(task: Fetch) -> None:
    """Raise where the bytes of a whole file are not the published ones; what came is removed."""
    found = verify(task.file, task.path)
    if found is None:
        return
    message = f"{task.file.url}: {task.path} has checksum {found}, the host publishes {task.file.checksum}; "
    if task.mine:
        raise DownloadError(f"{message}move it away and run the same command again")
    task.part.unlink()
    raise DownloadError(
        f"{message}what came is removed: run the same command again; if that is in vain, tell the host"
    )


def _require_space(tasks: Sequence[Fetch], folder: Path) -> None:
    needed, free = space_needed(tasks), _free(folder)
    if needed > free:
        raise DownloadError(
            f"{folder}: {decimal(needed)} are needed on its disk, {decimal(free)} are free; make room, "
            "choose another disk (dir=FOLDER) or a smaller budget"
        )


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _show(source: Source, place: Place) -> None:
    """Print what would be fetched."""
    tasks = source.todo()
    for task in tasks:
        begun = f", {decimal(task.bytes_here)} of it are here" if task.bytes_here else ""
        to_stderr(f"{task.file.name}: {decimal(task.file.size)}{begun}")
    if tasks:
        to_stderr(_sum(tasks, place.folder))
    else:
        _report(place)


def _sum(tasks: Sequence[Fetch], folder: Path) -> str:
    return (
        f"{folder}: {len(tasks)} files to fetch, {decimal(bytes_to_fetch(tasks))}; "
        f"{decimal(space_needed(tasks))} are needed on the disk, {decimal(_free(folder))} are free"
    )


def _report(place: Place) -> None:
    """Print what is here, and the next command."""
    unknown = []
    for split, needs in place.needs.items():
        have = [name for name in place.here() if place.dataset.file_of(name).split == split]
        unknown += [name for name in have if name not in place.receipt.names]
        to_stderr(f"{place.folder}: {len(have)} {split} files, {sum(needs.values())} are needed: complete")
    if unknown:
        to_stderr(
            f"  {len(unknown)} of the files here were not fetched by this command and not compared with the "
            f"host's: {', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''}"
        )
    to_stderr(f"next: python -m jetscale.prepare dataset={place.dataset.name} dir={place.settings.dir}")


def _check(place: Place) -> None:
    """Compare every file that was fetched with its checksum.

    Raises
    ------
    DownloadError
        None was fetched.
    jetscale.jets.errors.JetDataError
        Some are not here any more, or have other bytes; all are named.
    """
    if not place.receipt.names:
        raise DownloadError(f"{place.folder}: this command has fetched no file of {place.dataset.title} here")
    raise_problems(list(place.receipt.problems()), "files are not as they were fetched")
    to_stderr(f"{place.folder}: {len(place.receipt.names)} files, checksums good")


@contextmanager
def shown(task: Fetch) -> Iterator[Report]:
    """Show how much of a file is here, as every command shows its work.

    Parameters
    ----------
    task : the file

    Returns
    -------
    To be called with the bytes that are here.
    """
    size, here = task.file.size / _MB, task.bytes_here / _MB
    with Progress(task.file.name, size, "MB", done=here, rated=True, closing=False) as bar:
        yield lambda count: bar.update(count / _MB)
