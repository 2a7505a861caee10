"""A file as its host publishes it, and whether the bytes that are here are its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from jetscale.common.usage import UsageError


class DownloadError(UsageError):
    """A file cannot be fetched or is another one; the message names URL or file, what came, the way out."""


@dataclass(frozen=True)
class Published:
    """A file as its host publishes it.

    Attributes
    ----------
    name : of the file, without folders
    url : where it is
    size : bytes
    algorithm : of the checksum, ``md5`` or ``sha256``
    digest : the checksum, hexadecimal
    """

    name: str
    url: str
    size: int
    algorithm: str
    digest: str

    @property
    def checksum(self) -> str:
        """Algorithm and digest, ``md5:...``."""
        return f"{self.algorithm}:{self.digest}"


def verify(file: Published, path: Path) -> str | None:
    """Compare a file's bytes with the published checksum.

    Parameters
    ----------
    file : what is published
    path : the file here

    Returns
    -------
    None where they agree, else the checksum that was found.
    """
    with path.open("rb") as stream:  # not for security, which a FIPS machine would not grant MD5
        found = hashlib.file_digest(
            stream, lambda: hashlib.new(file.algorithm, usedforsecurity=False)
        ).hexdigest()
    return None if found == file.digest else f"{file.algorithm}:{found}"


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
