"""The run directory: what marks a run as new, interrupted, failed or done, and who may write in it.

`jetscale.runs.layout` names its files.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jetscale.common.files import DamagedFile, WriteError, atomic_path, writing
from jetscale.common.masking import masked
from jetscale.runs import layout
from jetscale.runs.done import (
    DamagedRun,
    Done,
    Record,
    read_identity,
    read_record,
    write_done,
    write_identity,
)
from jetscale.runs.ownership import LocksUnsupported, Owned, locked, owning
from jetscale.runs.record import PretrainRecord, RunRecord
from jetscale.runs.sealed import read_json, write_json_sealed
from jetscale.runs.search import to_remove

log = logging.getLogger(__name__)


class RunDirectoryError(RuntimeError):
    """The directory belongs to another run, or cannot be held."""


class RunBusy(RunDirectoryError):
    """Another process is writing in the directory."""


class DamagedRunError(RunDirectoryError):
    """A file of a finished or interrupted run is damaged; the message names it and the way out."""


def _any_data(path: Path, record: RunRecord) -> None:
    """Accept a finished run whatever jets it was made on."""


class RunDirectory:
    """One run's files.

    Parameters
    ----------
    path : the directory; made by `claim`
    identity : fingerprint of the settings that decide the run's numbers
    same_data : called with the path and the record of a finished run; raises `RunDirectoryError` where it was
        made on other jets than those of today
    """

    def __init__(
        self, path: Path, identity: str, same_data: Callable[[Path, RunRecord], None] = _any_data
    ) -> None:
        self.path = path
        self.identity = identity
        self._same_data = same_data

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``."""
        return self.path / layout.METRICS

    @property
    def blocks(self) -> Path:
        """``test_blocks.parquet``."""
        return self.path / layout.BLOCKS

    @property
    def checkpoints(self) -> Path:
        """``checkpoints/``."""
        return self.path / layout.CHECKPOINTS

    @property
    def weights(self) -> Path:
        """The final weights, in ``checkpoints/``."""
        return self.path / layout.WEIGHTS

    def done(self) -> RunRecord | None:
        """The record of the finished run, every file compared with it; None where it is not finished.

        Raises
        ------
        RunDirectoryError
            It is finished, but with other settings or on other jets.
        DamagedRunError
            One of its files is damaged.
        """
        record = self._finished(RunRecord)
        if record is not None:
            self._same_data(self.path, record)
        return record

    def done_pretraining(self) -> PretrainRecord | None:
        """As `done`, where the directory is that of a backbone; its jets are part of its identity."""
        return self._finished(PretrainRecord)

    def _finished(self, kind: type[Record]) -> Record | None:
        with self._damage_named():
            found: Done[Record] | None = read_record(self.path, kind)
        if found is None:
            return None
        if not found.verified:
            log.warning("%s is of an earlier version: its files could not be verified", self.path)
        self._check_identity(str(found.identity), self.path / layout.DONE)
        return found.record

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except DamagedRun as error:
            raise DamagedRunError(
                f"{error}; put back an undamaged copy of it, or remove {to_remove(self.path)} to make the "
                "run anew, to the same numbers"
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
        with writing(self.path / layout.LOCK):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / layout.LOCK).touch()
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
            begun = read_identity(self.path)
        if begun is not None:
            self._check_identity(begun, self.path / layout.IDENTITY)
        write_identity(self.path, self.identity, config_yaml.encode())
        with atomic_path(self.path / layout.CONFIG) as aside:
            aside.write_text(config_yaml)
        for leftover in (layout.FAILED, layout.TRACEBACK):
            (self.path / leftover).unlink(missing_ok=True)

    def finish(self, record: RunRecord | PretrainRecord) -> None:
        """Write ``done.json`` over the files that are there now: from here on the run is skipped."""
        write_done(self.path, record, self.identity)

    def _check_identity(self, found: str, where: Path) -> None:
        if found != self.identity:
            raise RunDirectoryError(
                f"{where} was written with other settings ({found[:12]}, now {self.identity[:12]}; see "
                f"{layout.CONFIG} beside it). Give this sweep another name (study=NAME), or remove "
                f"{to_remove(self.path)} to run it anew."
            )


@contextmanager
def holding_library(library: Path) -> Iterator[None]:
    """Hold a library of backbones, which is made where there is none, while a folder in it is chosen.

    Raises
    ------
    RunDirectoryError
        Its file system has no locks.
    WriteError
        It cannot be made or written in.
    """
    with writing(library / layout.LOCK):
        library.mkdir(parents=True, exist_ok=True)
        (library / layout.LOCK).touch()
    try:
        with locked(library):
            yield
    except LocksUnsupported as error:
        raise RunDirectoryError(str(error)) from error


def leave_traceback(directory: Path, error: BaseException) -> None:
    """Write ``failed.log`` and ``failed.json`` into a run's own folder: Hydra shows only the first failure.

    Where they cannot be written (the disk is full), the log tells so, and the caller raises `error` as it is.

    Parameters
    ----------
    directory : the run directory
    error : what stopped the run
    """
    try:
        with atomic_path(directory / layout.TRACEBACK) as aside:
            aside.write_text(masked("".join(traceback.format_exception(error))))
        told = {"error": type(error).__name__, "message": masked(str(error))}
        write_json_sealed(directory / layout.FAILED, told)
    except WriteError as unwritable:
        log.warning("%s", unwritable)


def read_failure(directory: Path) -> tuple[str, str] | None:
    """Name and message of the error that `leave_traceback` wrote; None where there is none.

    Raises
    ------
    DamagedFile
        The file is not what was written, or lacks one of the two.
    """
    path = directory / layout.FAILED
    try:
        content = read_json(path)[0]
    except FileNotFoundError:
        return None
    try:
        return str(content["error"]), str(content["message"])
    except KeyError as error:
        raise DamagedFile(f"{path} lacks the key {error}") from error
