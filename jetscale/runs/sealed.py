"""JSON files that jetscale writes and reads back: sealed since format 2, read without a seal before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jetscale.common.files import SEAL, DamagedFile, read_sealed, write_sealed

FORMAT = 2
"""Version of these files; version 1 has no number and no checksum."""


def write_json_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write `content` with the number of the format and a checksum, atomically."""
    write_sealed(path, {"format": FORMAT, **content})


def read_json(path: Path) -> tuple[dict[str, Any], bool]:
    """Content of a file without format and checksum, and whether a checksum vouches for it.

    A file counts as one of an earlier version only where it has neither key: damage to one of them is damage.

    Raises
    ------
    DamagedFile
        No JSON object, or its content does not fit its checksum, or it is of a later version.
    FileNotFoundError
        There is none.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedFile(f"{path} is damaged: not the JSON that was written ({error})") from error
    if not isinstance(content, dict):
        raise DamagedFile(f"{path} is damaged: not a JSON object")
    if SEAL not in content and "format" not in content:
        return content, False
    content = read_sealed(path)
    found = content.pop("format", None)
    if found != FORMAT:
        raise DamagedFile(
            f"{path} has format {found!r}, and this version of jetscale reads {FORMAT}: "
            "use the version that wrote it"
        )
    return content, True
