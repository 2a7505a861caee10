"""Files of weights, as bytes that carry their own checksum. Reading them as tensors is left to the caller.

The checksum of a checkpoint is inside it, as the comment that ends a ZIP archive (which torch's files are),
so that no kill can part the two; `torch.load` reads such a file as any other. The JSON beside it is for
people; where it is there, it must fit.
"""

from __future__ import annotations

import struct
from pathlib import Path

import xxhash

from jetscale.common.files import CHECKSUM, DamagedFile, sha256_file
from jetscale.runs.sealed import read_json

_ZIP_END = b"PK\5\6"
_END_BYTES = 22  # of a ZIP archive without a comment; the last two are the comment's length
_LABEL = f"{CHECKSUM}:".encode()
_COMMENT_BYTES = len(_LABEL) + 32


class CheckpointError(RuntimeError):
    """No checkpoint of this phase can be read although there are some."""


def meta_of(path: Path) -> Path:
    """Where the JSON of a checkpoint is."""
    return path.with_suffix(".json")


def with_checksum(archive: memoryview) -> tuple[list[memoryview | bytes], str]:
    """A ZIP archive with a comment that is the checksum of all that is before it.

    Parameters
    ----------
    archive : bytes, without a comment; not copied, since those of a large model take longer to copy than to
        check

    Returns
    -------
    What to write, one part after the other, and the checksum.
    """
    assert bytes(archive[-_END_BYTES:]).startswith(_ZIP_END)
    body: list[memoryview | bytes] = [archive[:-2], struct.pack("<H", _COMMENT_BYTES)]
    checksum = xxhash.xxh3_128()
    for part in body:
        checksum.update(part)
    return [*body, _LABEL + checksum.hexdigest().encode()], checksum.hexdigest()


def verified_content(path: Path) -> bytes:
    """Bytes of a checkpoint or of final weights, for `torch.load` with ``weights_only=True``.

    Raises
    ------
    CheckpointError
        Damaged: its content does not fit its checksum or the JSON beside it; or of an earlier version,
        without its JSON.
    """
    content = path.read_bytes()
    if content[-_COMMENT_BYTES:].startswith(_LABEL):
        body, found = memoryview(content)[:-_COMMENT_BYTES], content[-32:].decode(errors="replace")
        if xxhash.xxh3_128_hexdigest(body) != found:
            raise CheckpointError(f"{path} is damaged: its content does not fit its checksum")
        _check_meta(path, found)
    else:
        _check_earlier(path)
    return content


def _check_meta(path: Path, checksum: str) -> None:
    """Stop where the JSON beside a checkpoint is damaged or belongs to another one."""
    meta = meta_of(path)
    if not meta.exists():  # killed between the two files, a checkpoint is whole and has no JSON yet
        return
    try:
        stated = read_json(meta)[0].get(CHECKSUM)
    except DamagedFile as error:
        raise CheckpointError(str(error)) from error
    if stated != checksum:
        raise CheckpointError(f"{meta} is damaged: it is not that of {path.name}")


def _check_earlier(path: Path) -> None:
    """A checkpoint without a checksum inside: its SHA-256 is in the JSON, or nothing vouches for it."""
    meta = meta_of(path)
    try:
        expected = read_json(meta)[0].get("sha256")
    except FileNotFoundError:
        expected = None
    except DamagedFile as error:
        raise CheckpointError(str(error)) from error
    if expected is None:
        raise CheckpointError(
            f"{path} is damaged or cannot be read: it has no checksum, neither inside nor in {meta.name}"
        )
    if sha256_file(path) != expected:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in {meta.name}")
