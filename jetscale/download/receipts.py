"""What this command put into a dataset's folder: every file with its checksum, in one sealed hidden file.

It makes a second start cheap: a file whose size and time of change are those of the receipt is not read
again. A file that changed since is compared with its checksum.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jetscale.common.files import (
    DamagedFile,
    checksum_file,
    fsync_directory,
    read_sealed,
    write_sealed,
    writing,
)
from jetscale.download.published import DownloadError, Published, verify
from jetscale.jets.datasets.base import Dataset
from jetscale.jets.reading.locations import files_below
from jetscale.jets.reading.manifests import manifest_path

_LOCK = ".download.lock"
_RECEIPT = ".download.json"


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Hold `folder` alone: two downloads would write one partial file.

    Where nothing was put into it, nothing is left of it, such as after a start without a network.

    Raises
    ------
    DownloadError
        Another process holds it, or the file system has no locks.
    jetscale.common.files.WriteError
        The folder cannot be made.
    """
    with _made(folder), _locked(folder):
        yield


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make `folder`; of the folders made for it, those that are empty in the end are removed."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for one in made:
            with suppress(OSError):  # it is not empty, or somebody has removed it
                one.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / _LOCK, timeout=0, fallback_to_soft=False)
    try:
        with writing(folder / _LOCK):
            lock.acquire()
    except Timeout:
        raise DownloadError(f"{folder}: another download works here; wait for it, or stop it") from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        raise DownloadError(
            f"{folder}: this file system has no locks (flock), so two downloads could not be kept apart; "
            "choose another one (dir=FOLDER; on a cluster: the scratch file system)"
        ) from error
    try:
        yield
    finally:
        # filelock sees that a file it has opened is gone, and makes another
        (folder / _LOCK).unlink(missing_ok=True)
        lock.release()


class Receipt:
    """Files that this command put below a folder, and the archives that they came from.

    Parameters
    ----------
    folder : of the dataset

    Raises
    ------
    DownloadError
        The receipt is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / _RECEIPT
        self._files: dict[str, dict[str, Any]] = {}
        self._archives: dict[str, dict[str, Any]] = {}
        try:
            content = read_sealed(self._path)
        except FileNotFoundError:
            return
        except DamagedFile as error:
            raise DownloadError(
                f"{error}; remove it: the files are then compared with the host's again"
            ) from error
        self._files, self._archives = content["files"], content["archives"]

    @property
    def names(self) -> list[str]:
        """Names of the files."""
        return list(self._files)

    def has(self, name: str) -> bool:
        """Whether the file is here as it was put, or was removed since (False).

        Raises
        ------
        DownloadError
            Its bytes are others.
        """
        entry = self._files.get(name)
        path = self._folder / entry["path"] if entry else None
        if entry is None or path is None or not path.exists():
            return False
        if entry["stamp"] != _stamp(path):
            if problem := self._difference(path, entry):
                raise DownloadError(problem)
            entry["stamp"] = _stamp(path)
        return True

    def checksum(self, name: str) -> str:
        """Checksum of a file, ``sha256:...``."""
        return str(self._files[name]["checksum"])

    def put(self, path: Path, checksum: str) -> None:
        """Note a file that is in place.

        Parameters
        ----------
        path : of the file
        checksum : ``sha256:...`` or ``xxh3_128:...``
        """
        place = path.relative_to(self._folder).as_posix()
        self._files[path.name] = {"path": place, "checksum": checksum, "stamp": _stamp(path)}

    def put_archive(self, archive: Published, names: Iterable[str]) -> None:
        """Note an archive of which all files are in place.

        Parameters
        ----------
        archive : as it is published
        names : of its files
        """
        self._archives[archive.name] = {
            "checksum": archive.checksum,
            "url": archive.url,
            "files": list(names),
        }

    def has_archive(self, archive: Published) -> bool:
        """Whether all files of this archive are here.

        Raises
        ------
        DownloadError
            The bytes of one of them are others.
        """
        entry = self._archives.get(archive.name, {"checksum": None})
        if entry["checksum"] != archive.checksum:
            return False
        here = [
            self.has(name) for name in entry["files"]
        ]  # a changed file is told, another one missing or not
        return all(here)

    def save(self) -> None:
        """Write it."""
        write_sealed(self._path, {"files": self._files, "archives": self._archives})

    def problems(self) -> Iterator[str]:
        """One message for each file that is not here or whose bytes are others; all of them are read."""
        for entry in self._files.values():
            path = self._folder / entry["path"]
            if not path.exists():
                yield f"{path}: was fetched and is not here any more; to fetch it again, leave check out"
            elif problem := self._difference(path, entry):
                yield problem

    def _difference(self, path: Path, entry: dict[str, Any]) -> str | None:
        algorithm, _, digest = entry["checksum"].partition(":")
        if algorithm == "sha256":
            found = verify(Published(path.name, "", 0, algorithm, digest), path)
        else:
            found = f"{algorithm}:{checksum_file(path)}"
        if found in (None, entry["checksum"]):
            return None
        return (
            f"{path}: changed since it was fetched, checksum {found} instead of {entry['checksum']}; "
            "move it away, and run the same command again"
        )


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def jet_files(folder: Path, dataset: Dataset) -> dict[str, Path]:
    """Published jet files below a folder, by name; those of other names are left to `jetscale.jets`.

    Raises
    ------
    DownloadError
        One of them comes from the simulator: its jets would be taken for public ones.
    """
    found: dict[str, Path] = {}
    for item in files_below(folder, dataset.suffixes).files:
        path = item.file
        if not isinstance(path, Path):
            continue
        try:
            dataset.file_of(path.name)
        except ValueError:
            continue
        if manifest_path(path).exists():
            raise DownloadError(
                f"{path}: made by jetscale's simulator ({manifest_path(path).name} is beside it); public "
                f"jets must not be mixed with it: move {folder} away, or download elsewhere (dir=FOLDER)"
            )
        found[path.name] = path
    return found


def move_into_place(part: Path, path: Path) -> None:
    """Give a complete file its name.

    Parameters
    ----------
    part : the file under its hidden name, on the same file system
    path : its place

    Raises
    ------
    DownloadError
        Something is there already.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise DownloadError(
                f"{path}: appeared during the download; move it away and run the same command again"
            )
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.rename(path)
        fsync_directory(path.parent)
