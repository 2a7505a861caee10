"""The run directory: what marks a run as new, interrupted, failed or done, and who may write in it.

``multirun/<study>/<subset>/dim=<d>/seed=<s>/`` holds ``config.yaml``, ``metrics.jsonl``,
``test_blocks.parquet``,
``checkpoints/`` and, written last, ``done.json``. ``failed.json`` and ``failed.log`` tell of the last
failure.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jetscale.files import WriteError, atomic_path, write_json, writing
from jetscale.secrets import masked
from jetscale.tracking.ownership import LOCK, LocksUnsupported, Owned, owning

log = logging.getLogger(__name__)


class RunDirectoryError(RuntimeError):
    """The directory belongs to another run, or cannot be held."""


class RunBusy(RunDirectoryError):
    """Another process is writing in the directory."""


class RunDirectory:
    """One run's files.

    Parameters
    ----------
    path : the directory; made by `claim`
    identity : fingerprint of the settings that decide the run's numbers
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.identity = identity

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``."""
        return self.path / "metrics.jsonl"

    @property
    def blocks(self) -> Path:
        """``test_blocks.parquet``."""
        return self.path / "test_blocks.parquet"

    @property
    def checkpoints(self) -> Path:
        """``checkpoints/``."""
        return self.path / "checkpoints"

    def done(self) -> dict[str, Any] | None:
        """Content of ``done.json``, or None where the run is not finished.

        Raises
        ------
        RunDirectoryError
            It is finished, but with other settings.
        """
        marker = self.path / "done.json"
        if not marker.exists():
            return None
        content: dict[str, Any] = json.loads(marker.read_text())
        self._check_identity(content["identity"], marker)
        return content

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the directory for writing (`jetscale.tracking.ownership`): a dead owner is taken over from.

        Raises
        ------
        RunBusy
            Another process holds it.
        RunDirectoryError
            Its file system has no locks.
        WriteError
            It cannot be made or written in.
        """
        with writing(self.path / LOCK):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / LOCK).touch()
        try:
            with owning(self.path):
                yield
        except Owned as owner:
            raise RunBusy(
                f"{self.path}: another process is writing this run ({owner}); wait for it, or stop it first"
            ) from None
        except LocksUnsupported as error:
            raise RunDirectoryError(str(error)) from error

    def start(self, config_yaml: str) -> None:
        """Begin or go on: write ``config.yaml``, forget the last failure. Call it inside `claim`.

        Raises
        ------
        RunDirectoryError
            What is there was written with other settings.
        """
        owner = self.path / "identity.json"
        if owner.exists():
            self._check_identity(json.loads(owner.read_text())["identity"], owner)
        with atomic_path(self.path / "config.yaml") as aside:
            aside.write_text(config_yaml)
        write_json(owner, {"identity": self.identity})
        for leftover in ("failed.json", "failed.log"):
            (self.path / leftover).unlink(missing_ok=True)

    def finish(self, content: dict[str, Any]) -> None:
        """Write ``done.json``: from here on the run is skipped."""
        write_json(self.path / "done.json", {"identity": self.identity, **content})

    def _check_identity(self, found: str, where: Path) -> None:
        if found != self.identity:
            raise RunDirectoryError(
                f"{where} was written with other settings ({found[:12]}, now {self.identity[:12]}; see "
                "config.yaml beside it). Give this sweep another name (study=NAME), or remove the "
                "directory to run it anew."
            )


def leave_traceback(directory: Path, error: BaseException) -> None:
    """Write ``failed.log`` and ``failed.json`` into a run's own folder: Hydra shows only the first.

    Where they cannot be written (the disk is full), the log says so and `error` stays the one to tell.
    """
    try:
        with atomic_path(directory / "failed.log") as aside:
            aside.write_text(masked("".join(traceback.format_exception(error))))
        write_json(directory / "failed.json", {"error": type(error).__name__, "message": masked(str(error))})
    except WriteError as unwritable:
        log.warning("%s", unwritable)
