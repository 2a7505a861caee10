"""Workers of joblib stop with their driver, by whatever it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("joblib", reason="joblib comes with the extra `launchers`")


@pytest.mark.parametrize(
    ("number", "to_all", "status"),
    [
        (signal.SIGTERM, False, 75),
        (signal.SIGINT, True, 130),  # ctrl-C on a terminal
        (signal.SIGINT, False, 130),
        (signal.SIGHUP, True, 75),  # the terminal is closed
        (signal.SIGHUP, False, 75),
        (signal.SIGKILL, False, -signal.SIGKILL),
    ],
)
def test_workers_write_checkpoints_and_end_with_their_driver(number, to_all, status, tmp_path):
    command = [sys.executable, "-m", "tests.launch.stopped_sweep"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # under nohup it is ignored
    ) as driver:  # fmt: skip
        until(lambda: sum(bool(path.read_text()) for path in tmp_path.glob("*.pid")) == 2, driver)
        workers = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        (os.killpg if to_all else os.kill)(driver.pid, number)
        _, errors = driver.communicate(timeout=60)
    assert driver.returncode == status, errors
    if (number, to_all) != (
        signal.SIGHUP,
        True,
    ):  # it ends loky's tracker of resources, which is started again
        assert "Traceback" not in errors
    until(lambda: not any(map(lives, workers)))
    assert sorted(path.name for path in tmp_path.glob("*.checkpoint")) == ["0.checkpoint", "1.checkpoint"]
    assert len(list(tmp_path.glob("*.pid"))) == 2  # the other two were not begun


def until(condition, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process is None or process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
