"""One writer a directory: a kernel lock, and a sign of life for file systems whose locks do not reach far.

The lock (flock) goes with the process: a killed owner frees it at once. Between hosts it holds where the
file
system carries it (NFS 4, GPFS, Lustre mounted with ``flock``). Where it does not, the owner's record
``owner.json`` protects: it counts up every `BEAT_SECONDS`, and whoever finds a record of another machine
watches whether it moves before taking over. Counts are compared, never clocks.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LOCK = ".lock"
RECORD = "owner.json"
BEAT_SECONDS = 15.0
WATCH_BEATS = 3
"""A record of another machine that stays still this many beats belongs to a dead process."""
PATIENCE_SECONDS = 2.0
"""How long a claim tries: longer than anybody needs who only looks whether the lock is free."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

log = logging.getLogger(__name__)


class Owned(RuntimeError):
    """Another process holds the directory."""


class LocksUnsupported(RuntimeError):
    """The file system has no locks."""


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
    lock = FileLock(directory / LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)
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
        _refuse_living_owner(directory)
        with _beating(directory / RECORD):
            yield
    finally:
        lock.release()


def is_free(directory: Path) -> bool:
    """Whether nobody on this machine (or within reach of its locks) holds `directory`."""
    if not (directory / LOCK).exists():
        return True
    lock = FileLock(directory / LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def machine() -> str:
    """Name this machine since its last start: within it, locks reach everywhere."""
    with suppress(OSError):
        return f"{platform.node()}/{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return platform.node()


def read_owner(directory: Path) -> dict[str, Any] | None:
    """The owner's record; None where there is none, or an unreadable one."""
    try:
        record: dict[str, Any] = json.loads((directory / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record


def _described(directory: Path) -> str:
    record = read_owner(directory)
    if record is None:
        return "no record of it"
    job = f", Slurm job {record['job']}" if record.get("job") else ""
    return f"process {record['pid']} on {record['host']}{job}"


def _refuse_living_owner(directory: Path) -> None:
    """Return once it is clear that no process of another machine is at it, whose lock does not reach here."""
    before = read_owner(directory)
    if before is None or before.get("machine") == machine():
        return  # this machine's lock is ours: whoever wrote the record is dead
    log.info("%s: was held by %s; watching for signs of life", directory, _described(directory))
    for _ in range(WATCH_BEATS):
        time.sleep(BEAT_SECONDS)
        if read_owner(directory) != before:
            raise Owned(_described(directory))
    log.warning("%s: %s is dead, taking over", directory, _described(directory))


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
                aside = record.with_name(f".{RECORD}.{os.getpid()}")
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
