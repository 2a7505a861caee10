"""What an unfinished build keeps of each file it has made: a sealed record, so that damage is found later.

A file counts as made when its record is there too. One that was damaged while the build was interrupted is
made anew.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from jetscale.common.files import DamagedFile, read_sealed, write_sealed
from jetscale.jets.errors import JetDataError
from jetscale.jets.stores.checked import ArrowFile

RECORDS = "records"
"""Folder of the records, inside that of the build."""
REMEDY = "start again, what is damaged is made anew"

log = logging.getLogger(__name__)


def keep_record(folder: Path, name: str, record: dict[str, Any]) -> None:
    """Keep the record of the file `name` (made by `checked.describe`) of the build in `folder`."""
    write_sealed(_place(folder, name), record)


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """Record of a file.

    Raises
    ------
    JetDataError
        It is missing or damaged.
    """
    try:
        return read_sealed(_place(folder, name))
    except (DamagedFile, FileNotFoundError) as error:
        raise JetDataError(f"{error}; {REMEDY}") from error


def whole_record(folder: Path, path: Path) -> dict[str, Any] | None:
    """Record of the file `path` of the build in `folder`, if each of its bytes is as it was written."""
    if not (path.exists() and _place(folder, path.name).exists()):
        return None
    try:
        record = read_record(folder, path.name)
        ArrowFile(path, record, REMEDY).verify_all()
    except JetDataError as error:
        log.warning("left by an interrupted build: %s", error)
        return None
    return record


def _place(folder: Path, name: str) -> Path:
    return folder / RECORDS / f"{name}.json"
