"""Files that are either whole under their final name or not there at all, and checksums that find damage.

A checksum is XXH3-128, which runs at the speed of memory. It finds damage; it proves nothing about a forger.
A *sealed* JSON file ends in a key `SEAL` with the checksum of its text, so that no changed byte of it is
read as if nothing had happened.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

CHECKSUM = "xxh3_128"
"""Name of the checksum where it is stored."""
SEAL = "checksum"
"""Last key of a sealed JSON file."""
ABANDONED = 3600.0
"""Seconds without a write after which a temporary file is that of a writer which was killed."""
_BLOCK = 1 << 18  # stays in the core's own cache between read and hash


class DamagedFile(RuntimeError):
    """A file's bytes are not those that were written; the message names it."""


class WriteError(OSError):
    """A file cannot be written; the message names it, the reason and the remedy."""


_REMEDIES = {
    errno.ENOSPC: "free some space on its file system and run the same command again",
    errno.EDQUOT: "free some of your quota there and run the same command again",
    errno.EROFS: "mount it for writing, or choose another place",
    errno.EACCES: "make it writable for you, or choose another place",
    errno.EPERM: "make it writable for you, or choose another place",
    errno.EISDIR: "a folder has its name: move that away",
    errno.ENOTDIR: "a file has the name of a folder above it: move that away",
    errno.EEXIST: "a file, or a link that leads nowhere, has the name of a folder: move that away",
    errno.ELOOP: "it is a symbolic link, which is not followed: put a file there",
    errno.EIO: "the disk or the network behind it fails; run the same command again once it works",
    errno.ESTALE: "the network file system lost it; run the same command again once it is back",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name `path` and the remedy where the file system refuses what the body writes there.

    Raises
    ------
    WriteError
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        named = error.filename if isinstance(error.filename, str) else None
        if named is not None and not _concerns(Path(named), path):
            raise  # something that the body reads
        raise WriteError(
            error.errno, f"{path} cannot be written ({os.strerror(error.errno)}): {_REMEDIES[error.errno]}"
        ) from error


def _concerns(named: Path, path: Path) -> bool:
    """Return True if the file named in an error is beside `path`, or is a folder above it."""
    return named.absolute().parent == path.absolute().parent or named.absolute() in path.absolute().parents


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success fsync it and rename it to `path`.

    The temporary name keeps the suffix (writers choose formats by it) and carries the process id. When the
    body raises, the temporary file is removed and `path` is left as it was.

    Raises
    ------
    WriteError
        The disk is full, read-only, failing, ...
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
        try:
            yield aside
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(path)
        finally:
            with suppress(
                OSError
            ):  # a file system that turned read-only; the body's error is the one to tell
                aside.unlink(missing_ok=True)
        fsync_directory(path.parent)


def remove_leftovers(directory: Path) -> None:
    """Remove what killed writers left beside their files; only whoever owns `directory` may call."""
    for leftover in directory.glob(".*.part*"):
        leftover.unlink(missing_ok=True)


def remove_leftovers_of(path: Path) -> None:
    """Remove what killed writers of `path` left beside it: files unchanged for `ABANDONED` seconds.

    Whether a writer still runs cannot be told by its process: it may be on another machine.
    """
    temporary = re.compile(rf"\.{re.escape(path.stem)}\.\d+\.part{re.escape(path.suffix)}")
    for leftover in path.parent.glob(f".*.part{glob.escape(path.suffix)}"):
        with suppress(FileNotFoundError):  # its writer has just ended
            if temporary.fullmatch(leftover.name) and time.time() - leftover.stat().st_mtime > ABANDONED:
                leftover.unlink()


def fsync_directory(directory: Path) -> None:
    """Make a rename inside `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN and infinity are errors."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_path(path) as aside:
        aside.write_text(text)


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON that ends in a checksum of itself (`SEAL`), atomically; see `read_sealed`."""
    with atomic_path(path) as aside:
        aside.write_text(_sealed_text(content))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON file that `write_sealed` wrote; returns its content without the checksum.

    Raises
    ------
    DamagedFile
        A byte of it is another one than was written, or it was never sealed.
    FileNotFoundError
        There is none.
    """
    data = path.read_bytes()
    try:
        content = json.loads(data)
        seal = content.pop(SEAL)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f"{path} is damaged: not the JSON that was written ({error})") from error
    if _sealed_text(content).encode() != data:
        raise DamagedFile(f"{path} is damaged: its content does not fit its checksum {seal!r}")
    return dict(content)


def _sealed_text(content: dict[str, Any]) -> str:
    text = json.dumps(content, indent=2, allow_nan=False)
    seal = f"{CHECKSUM}:{xxhash.xxh3_128_hexdigest(text.encode())}"
    return json.dumps({**content, SEAL: seal}, indent=2, allow_nan=False) + "\n"


def checksum_file(path: Path) -> str:
    """XXH3-128 of a file's bytes, as 32 hex digits."""
    digest = xxhash.xxh3_128()
    block = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """SHA-256 of JSON-able `content` in canonical form (sorted keys), as 64 hex digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_name(name: str) -> str:
    """Part of a file's name for what a user calls `name`: safe, and another one for every other name.

    Lower-case letters, digits, ``.``, ``_`` and ``-`` stay as they are. Other names get ``~`` and a digest,
    so that ``x y``, ``x_y`` and ``X_Y`` never share a file, nor differ by what some file systems ignore.
    """
    if re.fullmatch(r"[a-z0-9_-][a-z0-9._-]{0,79}", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:60].lstrip(".")
    return f"{plain}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
