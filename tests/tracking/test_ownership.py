from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jetscale.runs import ownership
from jetscale.runs.layout import OWNER
from jetscale.runs.ownership import Owned, is_free, machine, owning, read_owner

HOLDER = (
    "import sys; from pathlib import Path; from jetscale.runs.ownership import owning\n"
    "with owning(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
)


def hold(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_an_owner_is_named_and_a_killed_one_is_taken_over_from(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "PATIENCE_SECONDS", 0.1)
    with hold(tmp_path) as process:
        assert not is_free(tmp_path)
        with pytest.raises(Owned, match=f"process {process.pid} on"), owning(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    assert is_free(tmp_path)
    assert read_owner(tmp_path)["pid"] == process.pid  # what it left
    with owning(tmp_path):
        pass
    assert read_owner(tmp_path) is None


def test_who_only_looks_does_not_keep_a_claim_out(tmp_path):
    (tmp_path / ".lock").touch()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            is_free(tmp_path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(50):
            with owning(tmp_path):
                pass
    finally:
        over.set()
        looker.join()


def test_the_record_counts_while_held(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.02)
    with owning(tmp_path):
        deadline = time.monotonic() + 20
        while (read_owner(tmp_path) or {"beat": 0})["beat"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        record = read_owner(tmp_path)
    assert (record["pid"], record["machine"]) == (os.getpid(), machine())


def test_a_living_owner_on_a_machine_that_locks_do_not_reach_is_respected(tmp_path, monkeypatch):
    """Its lock is invisible here, its count moves."""
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.1)
    over = threading.Event()

    def elsewhere() -> None:
        beat = 0
        while not over.is_set():
            content = {"host": "nid001", "machine": "nid001/x", "pid": 1, "job": "77", "beat": beat}
            aside = tmp_path / "aside"
            aside.write_text(json.dumps(content))
            aside.replace(tmp_path / OWNER)
            beat += 1
            time.sleep(0.02)

    other = threading.Thread(target=elsewhere)
    other.start()
    try:
        while read_owner(tmp_path) is None:
            time.sleep(0.01)
        with pytest.raises(Owned, match="process 1 on nid001, Slurm job 77"), owning(tmp_path):
            pass
    finally:
        over.set()
        other.join()
    with owning(tmp_path):  # it is dead: its count stands still
        pass


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ownership.LocksUnsupported, match="no locks"), owning(tmp_path):
        pass
