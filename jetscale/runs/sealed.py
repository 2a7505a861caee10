"""JSON files that jetscale writes and reads back: with a checksum since format 2, without one in format 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jetscale.common.files import SEAL, DamagedFile, read_sealed, write_sealed

FORMAT = 2
"""Version of these files; version 1 has no number and no checksum."""


def write_json_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with the number of the format and a checksum, atomically.

    Parameters
    ----------
    path : the file
    content : keys and values
    """
    write_sealed(path, {"format": FORMAT, **content})


def read_json(path: Path) -> tuple[dict[str, Any], bool]:
    """Read a JSON object.

    Parameters
    ----------
    path : the file

    Returns
    -------
    Its content without format and checksum, and whether it was compared with a checksum. A file counts as one
    of format 1 only if it has neither key, so that damage to one of them is found.

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
