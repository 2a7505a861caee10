"""Saved chunks of a file that is being made: complete or absent, and refused if a byte has changed."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import xxhash

from jetscale.common.files import DamagedFile, atomic_path

_SEAL_BYTES = 16

log = logging.getLogger(__name__)


def write_part(path: Path, jets: pa.Table) -> None:
    """Save the jets of a chunk as an Arrow stream, with its XXH3-128 checksum after its end.

    Parameters
    ----------
    path : file of the chunk; it appears when it is complete
    jets : table of the published columns
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, jets.schema) as writer:
        writer.write_table(jets)
    content = sink.getvalue()
    with atomic_path(path) as aside, aside.open("wb") as stream:
        stream.write(content)
        stream.write(xxhash.xxh3_128_digest(content))


def read_part(path: Path) -> pa.Table:
    """Jets of a saved chunk.

    Raises
    ------
    DamagedFile
        The content does not fit the checksum.
    """
    data = path.read_bytes()
    content, checksum = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    if xxhash.xxh3_128_digest(content) != checksum:
        raise DamagedFile(f"{path} is damaged: its content does not fit its checksum")
    return pa.ipc.open_stream(content).read_all()


def has_part(path: Path) -> bool:
    """Whether a chunk is saved and undamaged; the log names a damaged one, and it is made again."""
    try:
        read_part(path)
    except FileNotFoundError:
        return False
    except DamagedFile as error:
        log.warning("%s; its jets are made again", error)
        return False
    return True
