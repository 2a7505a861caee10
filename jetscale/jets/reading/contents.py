"""What a file holds by its first bytes, whatever its name: a server's error page, a pointer, an archive."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import File

FORMATS = {".root": "a ROOT file", ".parquet": "a parquet file", ".h5": "an HDF5 file"}
"""By suffix: what is expected in the file. Files of other suffixes are not checked."""

_HEAD = 4096
_EXCERPT = 60

_CONVERT = "write its jets in the published format of their dataset (docs/formats.md)"
_UNPACK = "unpack it"
_AGAIN = "download or simulate it again"
_SERVER = "a server sent it instead of the file: check the address and your login, and download it again"
_OTHER = "JetClass files are ROOT, JetClass-II files parquet: convert or rename it"


@dataclass(frozen=True)
class _Kind:
    """A kind of content: bytes at a place, what it is, and the way out."""

    magic: bytes
    what: str
    way_out: str
    at: int = 0


_BINARY = (
    _Kind(b"root", "a ROOT file", _OTHER),
    _Kind(
        b"PAR1", "a parquet file", "JetClass files are ROOT, JetClass-II files parquet: convert or rename it"
    ),
    _Kind(b"PARE", "an encrypted parquet file", "write it without encryption"),
    _Kind(b"\x1f\x8b", "a gzip archive", f"{_UNPACK} (gunzip, or tar xzf)"),
    _Kind(b"PK\x03\x04", "a zip archive", f"{_UNPACK} (unzip)"),
    _Kind(b"BZh", "a bzip2 archive", f"{_UNPACK} (bunzip2)"),
    _Kind(b"\xfd7zXZ\x00", "an xz archive", f"{_UNPACK} (unxz)"),
    _Kind(b"\x28\xb5\x2f\xfd", "a zstd archive", f"{_UNPACK} (unzstd)"),
    _Kind(b"\x04\x22\x4d\x18", "an lz4 archive", f"{_UNPACK} (unlz4)"),
    _Kind(b"7z\xbc\xaf\x27\x1c", "a 7z archive", f"{_UNPACK} (7z x)"),
    _Kind(b"ustar", "a tar archive", f"{_UNPACK} (tar xf)", at=257),
    _Kind(b"\x89HDF\r\n\x1a\n", "an HDF5 file", _CONVERT),
    _Kind(b"\x93NUMPY", "a numpy file", _CONVERT),
    _Kind(b"ARROW1", "an Arrow file", _CONVERT),
    _Kind(b"\x00" * 64, "zeros at its beginning, as an unfinished download is", _AGAIN),
)

_TEXT = (
    (rb"version https://git-lfs\.github\.com", "a Git LFS pointer", "fetch it with `git lfs pull`"),
    (rb"(\S*/)?annex/objects/", "a git-annex pointer", "fetch it with `git annex get`"),
    (rb"<!doctype html|<html|<head|<body", "an HTML page", _SERVER),
    (rb"<\?xml|<error|<[a-z]+ xmlns", "an XML document", _SERVER),
    (rb"[{\[]", "a JSON document", _SERVER),
)
"""Beginnings of text, in any case, after white space."""


def check_contents(path: Path, called: File) -> None:
    """Stop at a file that does not begin as its name says.

    Parameters
    ----------
    called : what errors call it, where `path` is a copy of it

    Raises
    ------
    JetDataError
        It is empty, or something else, which is named with the way out.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        raise JetDataError(f"{called}: the file is empty (0 bytes); {_AGAIN}")
    wanted = FORMATS.get(path.suffix)
    what, way_out = _kind_of(head)
    if wanted and what != wanted:
        raise JetDataError(f"{called}: cannot be read, it is {what}, not {wanted}; {way_out}")


def _kind_of(head: bytes) -> tuple[str, str]:
    for kind in _BINARY:
        if head[kind.at : kind.at + len(kind.magic)] == kind.magic:
            return kind.what, kind.way_out
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, what, way_out in _TEXT:
        if re.match(pattern, text, re.IGNORECASE):
            return f"{what} ({_excerpt(text)})", way_out
    if not re.search(rb"[\x00-\x08\x0e-\x1f\x7f-\xff]", text):
        return f"a text file ({_excerpt(text)})", _AGAIN
    return f"damaged: it begins with the bytes {head[:8].hex(' ')}", _AGAIN


def _excerpt(text: bytes) -> str:
    """What a page says of itself, or else its first words."""
    said = re.search(rb"<(title|code)>\s*([^<]+?)\s*</", text, re.IGNORECASE)
    words = " ".join((said[2] if said else text).decode("utf-8", "replace").split())
    return repr(words if len(words) <= _EXCERPT else f"{words[:_EXCERPT]}...")
