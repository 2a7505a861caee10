"""Where jet files lie: a local folder, or a URL that fsspec understands (``https://``, ``s3://``, ``root://``).

A remote file is fetched whole, in one pass, and read from that copy. Its checksum takes every byte anyway, so
nothing is moved that range requests would have spared; and a server that knows no ranges will do.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from jetscale.common.usage import install_extra
from jetscale.jets.errors import JetDataError

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

QUIET_SECONDS = 60
"""A server that sends nothing for so long is given up; fsspec's own limit is 5 minutes for a whole file."""


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind a URL."""

    url: str

    def __truediv__(self, name: str) -> RemoteFolder:
        return RemoteFolder(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL."""

    url: str

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return self.url.rpartition("/")[2]

    def __str__(self) -> str:
        return self.url


Folder = Path | RemoteFolder
File = Path | RemoteFile


@dataclass(frozen=True)
class Found:
    """A file of a listing: where it is, its size in bytes, and device and inode where it has them."""

    file: File
    size: int
    identity: tuple[int, int] | None


@dataclass(frozen=True)
class Listing:
    """Files below a folder, by path: those of the suffix asked for, and the names of all others."""

    files: list[Found]
    others: list[File]


def folder_of(location: str) -> Folder:
    """Folder that a setting names: a path, or a URL (``file://`` is a path too)."""
    if location.startswith("file://"):
        return Path(unquote(urlsplit(location).path))
    return RemoteFolder(location) if "://" in location else Path(location)


def files_below(folder: Folder, suffix: str | tuple[str, ...]) -> Listing:
    """Files in `folder` and its sub-folders, linked ones too, but no hidden ones; none if it is absent.

    Parameters
    ----------
    folder : local or remote
    suffix : of the files that are wanted, or several

    Raises
    ------
    JetDataError
        The server does not answer or refuses, or does not tell the size of a file. A local link leads nowhere
        or back to a folder that it lies in, a folder cannot be listed, or a file is none that can be read.
    """
    return _remote_listing(folder, suffix) if isinstance(folder, RemoteFolder) else _listing(folder, suffix)


def _listing(folder: Path, suffix: str | tuple[str, ...]) -> Listing:
    listing = Listing([], [])
    for path, status in _walk_local(folder, ()):
        if path.name.endswith(suffix):
            listing.files.append(Found(path, status.st_size, (status.st_dev, status.st_ino)))
        else:
            listing.others.append(path)
    return listing


def _walk_local(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below `folder`, through links. What pathlib and os walk by leaves out in silence what fails.

    Parameters
    ----------
    above : what identifies the folders on the way here
    """
    status = _status(folder)
    if status is None:
        return
    identity = status.st_dev, status.st_ino
    if identity in above:
        raise JetDataError(
            f"{folder}: a link to {folder.resolve()}, a folder that it lies in itself; remove the link"
        )
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise JetDataError(
            f"{folder}: the folder cannot be listed ({error.strerror}); make it a readable folder"
        ) from error
    for path in inside:
        its = None if _is_hidden(path.name) else _status(path)
        if its is None:
            continue  # hidden, or removed meanwhile
        if stat.S_ISDIR(its.st_mode):
            yield from _walk_local(path, (*above, identity))
        elif stat.S_ISREG(its.st_mode):
            yield path, its
        else:
            raise JetDataError(f"{path}: neither a file nor a folder; move it out of {folder}")


def _is_hidden(name: str) -> bool:
    """Whether a file is an unfinished download or simulation, or what a system or tool keeps for itself."""
    return name.startswith(".")


def _status(path: Path) -> os.stat_result | None:
    """Status of what `path` leads to; None if nothing is there, not even a link on the way to it."""
    try:
        return path.stat()
    except OSError as error:
        for link in (path, *path.parents):
            if link.is_symlink() and not _is_there(link):
                raise JetDataError(
                    f"{link}: a link to {link.readlink()}, which leads nowhere; repair or remove the link"
                ) from error
        if isinstance(error, FileNotFoundError):
            return None
        raise JetDataError(f"{path}: cannot be looked at ({error.strerror})") from error


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _remote_listing(folder: RemoteFolder, suffix: str | tuple[str, ...]) -> Listing:
    with _remote(folder.url):
        system, root = _file_system(folder.url)
        system.invalidate_cache()
        entries = sorted(_walk(system, root), key=lambda entry: str(entry["name"]))
        sizes = {str(entry["name"]): entry["size"] for entry in entries}
        seen = [name for name in sizes if not any(map(_is_hidden, _below(name, root)))]
        names = [name for name in seen if name.endswith(suffix)]
        unknown = [name for name in names if sizes[name] is None]  # an HTML index tells none
        sizes.update(zip(unknown, system.sizes(unknown), strict=True))
        others: list[File] = [
            RemoteFile(system.unstrip_protocol(name)) for name in seen if not name.endswith(suffix)
        ]
    for name in names:
        if sizes[name] is None:
            raise JetDataError(
                f"{name}: the server does not tell the file's size; download it, and name a folder"
            )
    found = [Found(RemoteFile(system.unstrip_protocol(name)), int(sizes[name]), None) for name in names]
    return Listing(found, others)


def _below(name: str, root: str) -> tuple[str, ...]:
    return PurePosixPath(name.removeprefix(root).lstrip("/")).parts


def stamp(file: File, size: int) -> str:
    """What changes when a file is replaced: size and time of change; of a remote file the size alone.

    Parameters
    ----------
    file : local or remote
    size : of a remote file, bytes
    """
    if isinstance(file, RemoteFile):
        return str(size)
    now = file.stat()
    return f"{now.st_size} {now.st_mtime_ns}"


@contextmanager
def local_copy(file: File, size: int, folder: Path) -> Iterator[Path]:
    """Path to read: a local file's own, or that of a remote file's copy in `folder`, removed afterwards.

    Parameters
    ----------
    file : local or remote
    size : of the file, bytes
    folder : for the copy

    Raises
    ------
    JetDataError
        The file cannot be fetched, or other than `size` bytes of it came.
    """
    if isinstance(file, Path):
        yield file
        return
    copy = folder / f".{os.getpid()}.part.{file.name}"
    try:
        with _remote(file.url):
            system, path = _file_system(file.url)
            system.get_file(path, str(copy))
        came = copy.stat().st_size
        if came != size:
            raise JetDataError(
                f"{file}: truncated, {came} of {size} bytes came; start again to fetch it again"
            )
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _walk(system: Any, path: str) -> Iterator[dict[str, Any]]:
    """Every file below `path`. fsspec's own walk leaves out silently what cannot be listed."""
    try:
        entries = system.ls(path, detail=True)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry["type"] != "directory":
            yield entry
        elif entry["name"].rstrip("/") != path.rstrip("/"):
            yield from _walk(system, entry["name"])


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec  # a quarter of a second that local files need not wait for

    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        limit = aiohttp.ClientTimeout(total=None, sock_connect=QUIET_SECONDS, sock_read=QUIET_SECONDS)
        options = {"client_kwargs": {"timeout": limit}}
    system, path = fsspec.url_to_fs(url, **options)
    return system, str(path)


@contextmanager
def _remote(url: str) -> Iterator[None]:
    """Any failure of a protocol's library (of many types) becomes a `JetDataError` that names the URL."""
    try:
        yield
    except (JetDataError, MemoryError):
        raise
    except ImportError as error:
        raise JetDataError(
            f"{url}: {error}; what s3:// and root:// need comes with {install_extra('remote')}"
        ) from error
    except OSError as error:
        if error.errno in _DISK:
            raise  # the disk that the copy goes to
        raise _failure(url, error) from error
    except Exception as error:
        raise _failure(url, error) from error


def _failure(url: str, error: Exception) -> JetDataError:
    reason = str(error).strip().splitlines()
    detail = f"{type(error).__name__}: {reason[0] if reason else 'no message'}"
    return JetDataError(
        f"{url}: cannot be fetched ({detail}); see that the server answers and start again, "
        "what was fetched is not fetched again"
    )
