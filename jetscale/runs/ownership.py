"""One writer a directory: a kernel lock, and a counter for file systems whose locks do not reach far.

The lock (flock) goes with the process: a killed owner frees it at once. Between machines it works where the
file system carries it (NFS 4, GPFS, Lustre mounted with ``flock``). Where it does not, the owner's record
``owner.json`` protects: its counter grows every `BEAT_SECONDS`.

Whether an owner lives is decided here alone: it is dead once its counter stands still for `DEAD_BEATS` beats,
or once its process is known to have ended. A claim holds the lock, so every earlier owner on its machine has
ended; for the record of another machine it waits and watches the counter, and compares no clocks. A display
(`living`) takes no lock and does not wait: on the record's own machine it looks the process up.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from jetscale.runs.layout import LOCK, OWNER

BEAT_SECONDS = 15.0
"""How often a living owner counts up its record."""
DEAD_BEATS = 3
"""An owner whose counter stands still for this many beats is dead."""
PATIENCE_SECONDS = 2.0
"""How long a claim tries to get the lock: longer than a process needs that tests whether it is free."""
_START_SECONDS = 5.0  # the record is written by the process, so after its start; what clocks may differ

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

log = logging.getLogger(__name__)


class Owned(RuntimeError):
    """Another process holds the directory."""


class LocksUnsupported(RuntimeError):
    """The file system has no locks."""


@dataclass(frozen=True)
class Owner:
    """The process that writes in a directory.

    Attributes
    ----------
    host : name of its machine
    pid : its process id there
    job : its Slurm job; None where there is none
    """

    host: str
    pid: int
    job: str | None


@dataclass
class Beats:
    """The counters of records as they were seen, to find out which ones move.

    Needs no clock of another machine: counters are compared with those seen before.
    """

    _seen: dict[Path, tuple[dict[str, Any] | None, float | None]] = field(default_factory=dict)

    def moved(self, directory: Path, record: dict[str, Any] | None) -> bool:
        """Whether an owner's record changed between two calls within the last `dead_seconds`.

        Parameters
        ----------
        directory : which the owner holds
        record : content of its ``owner.json`` now; None where there is none
        """
        now = time.monotonic()
        last, changed = self._seen.get(directory, (record, None))
        if last != record:
            changed = now
        self._seen[directory] = (record, changed)
        return changed is not None and now - changed < dead_seconds()


def dead_seconds() -> float:
    """How long a living owner's counter stands still at most."""
    return DEAD_BEATS * BEAT_SECONDS


@contextmanager
def owning(directory: Path) -> Iterator[None]:
    """Hold `directory` (which exists) while the context lasts.

    Raises
    ------
    Owned
        Another process holds it.
    LocksUnsupported
        The file system has no locks, so that two writers could not be kept apart.
    """
    with locked(directory, PATIENCE_SECONDS):
        _refuse_living_owner(directory)
        with _beating(directory / OWNER):
            yield


@contextmanager
def locked(directory: Path, patience: float = -1) -> Iterator[None]:
    """Hold the lock of `directory` (which exists), and nothing more, while the context lasts.

    Parameters
    ----------
    patience : seconds to wait for another process; below 0 for ever

    Raises
    ------
    Owned
        Another process holds it for longer.
    LocksUnsupported
        The file system has no locks.
    """
    lock = FileLock(directory / LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise Owned(_described(directory)) from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        raise LocksUnsupported(
            f"{directory}: this file system has no locks (flock), so two writers could not be kept apart; "
            "put the study on another one (on a cluster: the scratch file system)"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_free(directory: Path) -> bool:
    """Whether no process on this machine (or within reach of its locks) holds `directory`."""
    if not (directory / LOCK).exists():
        return True
    lock = FileLock(directory / LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def living(directory: Path, record: dict[str, Any], beats: Beats) -> Owner | None:
    """The owner of a directory, where it lives; takes no lock.

    Parameters
    ----------
    directory : which it holds
    record : content of its ``owner.json``
    beats : what was seen of the records before

    Returns
    -------
    The owner; None where it is dead.

    Raises
    ------
    ValueError
        The record names no host and process.
    """
    host, pid, job = record.get("host"), record.get("pid"), record.get("job")
    if not isinstance(host, str) or not isinstance(pid, int) or pid <= 0:
        raise ValueError("it names no host and process")
    beating = beats.moved(directory, record) or _is_fresh(directory / OWNER)
    alive = _runs(pid, record.get("started"), beating) if host == socket.gethostname() else beating
    return Owner(host, pid, None if job is None else str(job)) if alive else None


def machine() -> str:
    """Name of this machine and its last start: a lock reaches every process with the same name."""
    with suppress(OSError):
        return f"{platform.node()}/{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return platform.node()


def read_owner(directory: Path) -> dict[str, Any] | None:
    """The owner's record; None where there is none, or an unreadable one."""
    try:
        record: dict[str, Any] = json.loads((directory / OWNER).read_text())
    except (OSError, ValueError):
        return None
    return record


def _described(directory: Path) -> str:
    record = read_owner(directory)
    if record is None:
        return "it left no record"
    job = f", Slurm job {record['job']}" if record.get("job") else ""
    return f"process {record['pid']} on {record['host']}{job}"


def _refuse_living_owner(directory: Path) -> None:
    """Return once it is clear that no process of another machine, which locks may not reach, holds it."""
    record, beats = read_owner(directory), Beats()
    if record is None or record.get("machine") == machine():
        return  # we hold this machine's lock: the process that wrote the record is dead
    log.info("%s: was held by %s; watching whether its counter moves", directory, _described(directory))
    beats.moved(directory, record)
    for _ in range(DEAD_BEATS):
        time.sleep(BEAT_SECONDS)
        if beats.moved(directory, read_owner(directory)):
            raise Owned(_described(directory))
    log.warning("%s: %s is dead, taking over", directory, _described(directory))


def _runs(pid: int, started: Any, beating: bool) -> bool:
    """Whether process `pid` of this machine runs, and is not a later one that got the same number.

    Parameters
    ----------
    pid : of the record
    started : when the record was begun, as ISO 8601
    beating : whether the record's counter moves: it decides where the times do not, as after a clock was set
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
        begun = process.create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return beating
    try:
        record_time = datetime.fromisoformat(str(started)).timestamp()
    except ValueError:
        return beating
    return begun < record_time + _START_SECONDS or beating


def _is_fresh(record: Path) -> bool:
    try:
        return abs(time.time() - record.stat().st_mtime) < dead_seconds()
    except OSError:
        return False


@contextmanager
def _beating(record: Path) -> Iterator[None]:
    """Keep `record` counting up in a background thread; remove it at the end."""
    content = {
        "host": platform.node(),
        "machine": machine(),
        "pid": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "job": os.environ.get("SLURM_JOB_ID"),
    }
    over = threading.Event()

    def beat() -> None:
        count = 0
        while True:
            with suppress(OSError):  # a full disk stops the run where it loses something, not here
                aside = record.with_name(f".{OWNER}.{os.getpid()}")
                aside.write_text(json.dumps({**content, "beat": count}) + "\n")
                aside.replace(record)
            count += 1
            if over.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, name="owner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            record.unlink(missing_ok=True)
