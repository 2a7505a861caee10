"""The run directory: what marks a run as new, interrupted, failed or done, and who may write in it.

``multirun/<study>/<subset>/dim=<d>/seed=<s>/`` holds ``config.yaml``, ``metrics.jsonl``,
``test_blocks.parquet``,
``checkpoints/`` and, written last, ``done.json``. ``failed.json`` and ``failed.log`` tell of the last
failure.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jetscale.common.files import WriteError, atomic_path, writing
from jetscale.common.masking import masked
from jetscale.runs import done as runs
from jetscale.runs.ownership import LOCK, LocksUnsupported, Owned, owning
from jetscale.runs.sealed import write_json_sealed

log = logging.getLogger(__name__)


class RunDirectoryError(RuntimeError):
    """The directory belongs to another run, or cannot be held."""


class RunBusy(RunDirectoryError):
    """Another process is writing in the directory."""


class DamagedRunError(RunDirectoryError):
    """A file of a finished or interrupted run is damaged; the message names it and the way out."""


def _any_data(path: Path, content: dict[str, Any]) -> None:
    """Accept a finished run whatever jets it was made on."""


class RunDirectory:
    """One run's files.

    Parameters
    ----------
    path : the directory; made by `claim`
    identity : fingerprint of the settings that decide the run's numbers
    same_data : told the path and ``done.json`` of a finished run, raises `RunDirectoryError` where the jets
        are other ones now
    """

    def __init__(
        self,
        path: Path,
        identity: str,
        same_data: Callable[[Path, dict[str, Any]], None] = _any_data,
    ) -> None:
        self.path = path
        self.identity = identity
        self._same_data = same_data

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
        """Content of ``done.json``, or None where the run is not finished; every file is compared with it.

        Raises
        ------
        RunDirectoryError
            It is finished, but with other settings or on other jets.
        DamagedRunError
            One of its files is damaged.
        """
        with self._damage_named():
            found = runs.read_done(self.path)
        if found is None:
            return None
        if not found.verified:
            log.warning("%s is of an earlier version: its files could not be verified", self.path)
        marker = self.path / runs.DONE
        self._check_identity(str(found.content.get("identity")), marker)
        self._same_data(self.path, found.content)
        return found.content

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except runs.DamagedRun as error:
            raise DamagedRunError(
                f"{error}; put back an undamaged copy of it, or remove {self.path} to make the run anew, "
                "to the same numbers"
            ) from error

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the directory for writing (`jetscale.runs.ownership`): a dead owner is taken over from.

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
        DamagedRunError
            ``identity.json`` or ``config.yaml`` is damaged.
        """
        with self._damage_named():
            begun = runs.read_identity(self.path)
        if begun is not None:
            self._check_identity(begun, self.path / runs.IDENTITY)
        runs.write_identity(self.path, self.identity, config_yaml.encode())
        with atomic_path(self.path / runs.CONFIG) as aside:
            aside.write_text(config_yaml)
        for leftover in ("failed.json", "failed.log"):
            (self.path / leftover).unlink(missing_ok=True)

    def finish(self, content: dict[str, Any]) -> None:
        """Write ``done.json`` over the files that are there now: from here on the run is skipped."""
        runs.write_done(self.path, {"identity": self.identity, **content})

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
        told = {"error": type(error).__name__, "message": masked(str(error))}
        write_json_sealed(directory / "failed.json", told)
    except WriteError as unwritable:
        log.warning("%s", unwritable)
