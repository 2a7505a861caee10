"""The manifest beside a simulated jet file: how it was made, and the checksum of its bytes.

The simulator writes it; whoever reads the jets compares them with it. Published files have none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jetscale.common.files import SEAL, DamagedFile, read_sealed, sha256_file
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import File

_MARKS = (b'"made_by": "jetscale', b'"sha256": "', f'"{SEAL}": "'.encode())
"""Any of them shows that a JSON file is a manifest: one damaged bit leaves the others."""
VERSION_KEY = "simulator version"
"""Name of the simulator's version among the settings of a manifest."""
MPI_KEY = "mpi"
"""Name of the setting that multiparton interactions were simulated."""
OLD_VERSION_KEY = "physics"
"""Its name in the manifests of the first simulator, which were written without a checksum."""


def manifest_path(file: Path) -> Path:
    """Where the manifest of a jet file is, if it has one."""
    return file.with_suffix(".json")


def manifest_content(path: Path) -> dict[str, Any]:
    """Content of a manifest.

    Raises
    ------
    JetDataError
        Its content does not fit its checksum.
    """
    try:
        return read_sealed(path)
    except DamagedFile as error:
        if (first := _of_the_first_simulator(path)) is not None:
            return first
        raise JetDataError(f"{error}; remove it and its jet file, and simulate them again") from error


def maker_of(file: Path) -> str:
    """What made a jet file, in words, by the manifest beside it; the file itself is not read.

    Raises
    ------
    JetDataError
        The manifest is damaged.
    """
    beside = manifest_path(file)
    if not beside.exists() or _is_foreign(beside.read_bytes()):
        return "files without a manifest of the simulator"
    settings = manifest_content(beside).get("settings", {})
    version = settings.get(VERSION_KEY, settings.get(OLD_VERSION_KEY, "not recorded"))
    without = " without multiparton interactions" if settings.get(MPI_KEY) is False else ""
    return f"jetscale's simulator, version {version}{without}"


def _of_the_first_simulator(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        return content if SEAL not in content and OLD_VERSION_KEY in content["settings"] else None
    except (ValueError, KeyError, TypeError):
        return None


def _is_foreign(content: bytes) -> bool:
    """Whether this is JSON that no simulator wrote. What is no JSON is taken for a damaged manifest."""
    try:
        json.loads(content)
    except ValueError:
        return False
    return not any(mark in content for mark in _MARKS)


def compare_with_manifest(path: Path, called: File) -> None:
    """Compare a jet file with the manifest beside it, if it has one.

    Parameters
    ----------
    called : what errors call the file

    Raises
    ------
    JetDataError
        One of the two is damaged.
    """
    beside = manifest_path(path)
    if not beside.exists() or _is_foreign(beside.read_bytes()):
        return
    expected, found = manifest_content(beside).get("sha256"), sha256_file(path)
    if found != expected:
        raise JetDataError(
            f"{called}: damaged, SHA-256 {found} instead of {expected} in {beside.name}; remove both and "
            "simulate them again, or remove the manifest alone if you changed the jets yourself"
        )
