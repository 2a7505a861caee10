"""Loops compiled by numba, and where their machine code is kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, without the interpreter lock, and keep the machine code on disk.

    Numba's cache looks at the file of the function alone, not at the files of what it calls. So the name of
    the cache's folder changes with any source file beside that of the function, and a compiled function may
    call only functions of the same folder. Numba writes the cache atomically, so processes may share it.

    Parameters
    ----------
    function : a loop that numba can compile

    Returns
    -------
    The compiled function, to be called like `function`. Where no folder can be written to, every process
    compiles it again.
    """
    folder = cache_folder(Path(function.__code__.co_filename).parent)
    if folder is None:
        return _njit(function, on_disk=False)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        return _njit(function, on_disk=True)
    finally:
        numba.config.CACHE_DIR = before


def _njit(function: Callable[..., Any], on_disk: bool) -> Callable[..., Any]:
    made: Callable[..., Any] = numba.njit(nogil=True, cache=on_disk)(function)
    return made


@cache
def cache_folder(sources: Path) -> Path | None:
    """Folder of the machine code of the Python files in the folder `sources`, in their present state.

    It is in ``NUMBA_CACHE_DIR``, or else in the user's cache; None where that cannot be written to.
    """
    content = b"".join(path.read_bytes() for path in sorted(sources.glob("*.py")))
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = Path(os.environ.get("NUMBA_CACHE_DIR") or user)
    folder = base / "jetscale" / f"{sources.name}-{hashlib.sha256(content).hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
