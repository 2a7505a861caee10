"""What a result must be able to say of its making: versions, commit, machine."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jetscale

_PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "pyarrow", "numba", "wandb")


def versions() -> dict[str, str]:
    """Versions of jetscale, Python and the packages that touch the numbers."""
    found = {"jetscale": jetscale.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout jetscale runs from and whether it has changes; None for an installed wheel."""
    here = Path(jetscale.__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "HEAD")
        dirty = bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _git(where: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True)
    return done.stdout.strip()
