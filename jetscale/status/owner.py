"""Whether the process that wrote a directory's ``owner.json`` still lives."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jetscale.status.reading import Reader, whole

FRESH_SECONDS = 60.0
"""A living owner rewrites its record every 15 s; four beats missed and it is taken for dead."""


@dataclass(frozen=True)
class Owner:
    """Who is writing a directory; `job` is Slurm's, where there is one."""

    host: str
    pid: int
    job: str | None


@dataclass
class Owners:
    """Finds living owners; on a shared file system it remembers beats, which no clock can falsify."""

    reader: Reader
    _beats: dict[Path, tuple[Any, float | None]] = field(default_factory=dict)

    def of(self, directory: Path) -> Owner | None:
        """The living owner of `directory`, or None."""
        path = directory / "owner.json"
        record = self.reader.json_object(path)
        if record is None:
            return None
        host, pid = record.get("host"), whole(record, "pid")
        if not isinstance(host, str) or pid is None or pid <= 0:
            self.reader.note(f"{path} names no host and process; taken for left behind")
            return None
        beats = self._beats_seen(path, record.get("beat")) or _is_fresh(path)
        alive = _lives(pid, record.get("started"), beats) if host == socket.gethostname() else beats
        job = record.get("job")
        return Owner(host, pid, None if job is None else str(job)) if alive else None

    def _beats_seen(self, path: Path, beat: Any) -> bool:
        """Whether the beat has changed under our eyes within `FRESH_SECONDS`."""
        now = time.monotonic()
        last, changed = self._beats.get(path, (beat, None))
        if last != beat:
            changed = now
        self._beats[path] = (beat, changed)
        return changed is not None and now - changed < FRESH_SECONDS


def _is_fresh(path: Path) -> bool:
    try:
        return abs(time.time() - path.stat().st_mtime) < FRESH_SECONDS
    except OSError:
        return False


def _lives(pid: int, started: Any, beats: bool) -> bool:
    """Whether `pid` exists on this machine and is not a later process that got the same number."""
    stat = Path("/proc", str(pid), "stat")
    if not Path("/proc/self").exists():  # no /proc: a signal that does nothing tells whether it exists
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return beats
    try:
        fields = stat.read_text().rpartition(")")[2].split()  # the name before it may hold anything
    except OSError:
        return False
    if fields[0] in ("Z", "X"):
        return False
    try:
        record_time = datetime.fromisoformat(str(started)).timestamp()
    except ValueError:
        return beats
    # the record is written by the process, so after its start; a set clock moves this, so beats count too
    return _boot_time() + float(fields[19]) / os.sysconf("SC_CLK_TCK") < record_time + 5 or beats


def _boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
