"""``done.json``, written last, with length and checksum of every file beside it; and ``identity.json``.

Every reader of a finished run uses `read_done`, which compares all files with their checksums. The identity
file does the same for the ``config.yaml`` of a run that is not finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import xxhash

from jetscale.common.files import CHECKSUM, DamagedFile, checksum_file
from jetscale.runs.layout import CONFIG, DONE, IDENTITY, KEPT
from jetscale.runs.record import PretrainRecord, RunRecord, from_json, to_json
from jetscale.runs.sealed import read_json, write_json_sealed

Record = TypeVar("Record", RunRecord, PretrainRecord)


class DamagedRun(DamagedFile):
    """A file of a run is not the one that was written; the message names it."""


@dataclass(frozen=True)
class Done(Generic[Record]):
    """A finished run or pretraining.

    Attributes
    ----------
    record : what it was and cost
    identity : fingerprint of the settings that decide its numbers; None in a file of an earlier version
    verified : whether all files were compared with their checksums; False for a run of an earlier version
    """

    record: Record
    identity: str | None
    verified: bool


def write_done(folder: Path, record: RunRecord | PretrainRecord, identity: str) -> None:
    """Mark the run in `folder` as finished.

    Parameters
    ----------
    folder : the run directory, whose other files are all written
    record : what the run was and cost
    identity : fingerprint of the settings that decide its numbers
    """
    files = {name: _facts(folder / name) for name in KEPT if (folder / name).is_file()}
    write_json_sealed(folder / DONE, {"identity": identity, **to_json(record), "files": files})


def read_done(folder: Path) -> Done[RunRecord] | None:
    """Read ``done.json`` and compare every file of the run with it.

    Parameters
    ----------
    folder : the run directory

    Returns
    -------
    The finished run; None where it is not finished.

    Raises
    ------
    DamagedRun
        ``done.json`` or a file beside it is damaged, missing, or was not there when the run finished; or
        ``done.json`` has an unknown key or lacks one.
    """
    return read_record(folder, RunRecord)


def read_either(folder: Path) -> Done[RunRecord] | Done[PretrainRecord] | None:
    """As `read_done`, for a run or a backbone: ``done.json`` tells which it is."""
    try:
        content, _ = read_json(folder / DONE)
    except (OSError, DamagedFile):
        content = {}  # what is wrong with the file is said below
    if "fingerprint" in content:  # a key that `RunRecord` does not have
        return read_record(folder, PretrainRecord)
    return read_record(folder, RunRecord)


def read_record(folder: Path, kind: type[Record]) -> Done[Record] | None:
    """As `read_done`, for any kind of record: `PretrainRecord` in the folder of a backbone."""
    path = folder / DONE
    try:
        content, sealed = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedFile as error:
        raise DamagedRun(str(error)) from error
    except OSError as error:
        raise DamagedRun(f"{path} cannot be read ({error})") from error
    if sealed:
        _compare_all(folder, content)
    else:
        _refuse_newer_neighbours(folder, content)
    identity = content.pop("identity", None)
    if isinstance(content.get("pretrain"), dict):
        # it was written there too where the backbone was found, not made; it is the fingerprint
        content["pretrain"].pop("identity", None)
    try:
        record = from_json(kind, content, path, complete=sealed)
    except DamagedFile as error:
        raise DamagedRun(str(error)) from error
    return Done(record, None if identity is None else str(identity), verified=sealed)


def write_identity(folder: Path, identity: str, config_yaml: bytes) -> None:
    """Write ``identity.json`` for a ``config.yaml`` that is to be written next.

    The ``config.yaml`` that is there stays valid, so that a process killed between the two files leaves a
    folder that fits its identity.

    Parameters
    ----------
    folder : the run directory
    identity : fingerprint of the settings that decide the run's numbers
    config_yaml : content of the file to come
    """
    configs = [_facts_of(config_yaml)]
    if (folder / CONFIG).is_file():
        before = _facts(folder / CONFIG)
        configs += [before] if before != configs[0] else []
    write_json_sealed(folder / IDENTITY, {"identity": identity, "config": configs})


def read_identity(folder: Path) -> str | None:
    """Identity of the run that was begun in `folder`, whose ``config.yaml`` must fit; None where none was.

    Raises
    ------
    DamagedRun
        ``identity.json`` or ``config.yaml`` is damaged.
    """
    path, config = folder / IDENTITY, folder / CONFIG
    try:
        content, sealed = read_json(path)
        identity = content["identity"]
        if sealed and config.exists() and _facts(config) not in content["config"]:
            raise DamagedRun(f"{config} is damaged: it is not the one that {IDENTITY} was written for")
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise DamagedRun(f"{path} is damaged: it lacks {error}") from error
    except DamagedRun:
        raise
    except DamagedFile as error:
        raise DamagedRun(str(error)) from error
    return str(identity)


def _compare_all(folder: Path, content: dict[str, Any]) -> None:
    """Compare the files beside ``done.json`` with its `content`, and take their checksums out of that."""
    files = content.pop("files", None)
    if not isinstance(files, dict):
        raise DamagedRun(f"{folder / DONE} is damaged: it lists no files")
    for name in (*files, *(name for name in KEPT if name not in files)):
        _compare(folder / name, files.get(name))
    if read_identity(folder) not in (None, content.get("identity")):
        raise DamagedRun(f"{folder / IDENTITY} is not of this run: {DONE} has another identity")


def _compare(path: Path, expected: dict[str, Any] | None) -> None:
    if expected is None:
        if path.exists():
            raise DamagedRun(f"{path} is not of this run: it was not there when the run finished")
        return
    if not path.is_file():
        raise DamagedRun(f"{path} is missing: {DONE} lists it")
    if _facts(path) != expected:
        raise DamagedRun(f"{path} is damaged: its content does not fit its checksum in {DONE}")


def _refuse_newer_neighbours(folder: Path, content: dict[str, Any]) -> None:
    """Raise where ``done.json`` has no checksum and ``identity.json`` has one: it was removed by damage."""
    newer = "files" in content
    if (folder / IDENTITY).is_file() and not newer:
        try:
            newer = read_json(folder / IDENTITY)[1]
        except DamagedFile as error:
            raise DamagedRun(str(error)) from error
    if newer:
        raise DamagedRun(f"{folder / DONE} is damaged: its checksum is missing")


def _facts(path: Path) -> dict[str, Any]:
    try:
        return {"bytes": path.stat().st_size, CHECKSUM: checksum_file(path)}
    except OSError as error:
        raise DamagedRun(f"{path} cannot be read ({error})") from error


def _facts_of(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), CHECKSUM: xxhash.xxh3_128_hexdigest(content)}
