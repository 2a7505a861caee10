"""Parquet files that hold a checksum of their bytes, because pyarrow reads changed bytes without an error.

The checksum is in the file's key-value metadata, which parquet stores as plain text. It is written as zeros
first, computed over the file with these zeros, and put in their place. Files without one (of earlier
versions, or of other programs) are read as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from jetscale.common.files import DamagedFile, atomic_path

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_KEY = b"jetscale-sealed"
_VALUE = b"jetscale-xxh3-128:"
_ZEROS = b"0" * 32
_SEAL = re.compile(re.escape(_VALUE) + rb"([0-9a-f]{32})")


def write_table(table: pa.Table, path: Path, **options: Any) -> None:
    """Write a table with its checksum, atomically.

    Parameters
    ----------
    table : the table
    path : the file
    options : of `pyarrow.parquet.write_table`
    """
    import pyarrow.parquet as pq

    metadata = {**(table.schema.metadata or {}), _KEY: _VALUE + _ZEROS}
    with atomic_path(path) as aside:
        pq.write_table(table.replace_schema_metadata(metadata), aside.absolute(), **options)
        content = bytearray(aside.read_bytes())
        (place,) = [found.start(1) for found in _SEAL.finditer(content)]
        content[place : place + 32] = xxhash.xxh3_128_hexdigest(content).encode()
        aside.write_bytes(content)


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a data frame with a checksum, atomically.

    Parameters
    ----------
    frame : written without its index but with its `attrs`, as pandas does
    path : the file
    """
    import json

    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    attributes = {b"PANDAS_ATTRS": json.dumps(frame.attrs).encode()}
    write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **attributes}), path)


def check(path: Path) -> None:
    """Compare a parquet file with its checksum, where it has one.

    Raises
    ------
    DamagedFile
        Its bytes are not those that were written.
    """
    content = bytearray(path.read_bytes())
    seals = list(_SEAL.finditer(content))
    if not seals and _KEY not in content and _VALUE not in content:
        return  # one changed byte cannot damage both the key and the value
    if len(seals) == 1:
        place, found = seals[0].start(1), seals[0][1]
        content[place : place + 32] = _ZEROS
        if xxhash.xxh3_128_hexdigest(content).encode() == found:
            return
    raise DamagedFile(f"{path} is damaged: its content does not fit its checksum")


def is_sealed(path: Path) -> bool:
    """Whether the file has a checksum, damaged or not."""
    content = path.read_bytes()
    return _KEY in content or _VALUE in content
