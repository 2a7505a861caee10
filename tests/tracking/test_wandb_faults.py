"""The real wandb client against a server, and a service process, that fail in every way: the run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jetscale.runs.metrics import MetricsLine
from jetscale.tracking import wandb_run
from jetscale.tracking.wandb_environment import Destination
from jetscale.tracking.wandb_run import WandbRun
from jetscale.tracking.wandb_service import forget_service
from tests.runs import TINY, quiet_environment, runs_under
from tests.tracking.wandb_server import KEY, WandbServer, served
from tests.warm import WarmProcess

PATIENCE = 200.0  # far beyond what is allowed, far below what a hanging server would take


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr(wandb_run, "START_SECONDS", 1.0)
    monkeypatch.setattr(wandb_run, "UPLOAD_SECONDS", 1.0)
    with served() as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://{server.host}")
        forget_service()  # it keeps the address of the server before
        yield server
        forget_service()


def begin(directory: Path) -> WandbRun:
    directory.mkdir(exist_ok=True)
    return WandbRun("auto", directory, {"seed": 0}, Destination("proj", None, "g", "n", ()))


def lines(first: int, last: int) -> list[MetricsLine]:
    return [
        MetricsLine("finetune", step, 8 * step, 1, 1e9 * step, "train", "raw", 2.0, None, 1e-3, 0.1 * step)
        for step in range(first, last)
    ]


def synced(directory: Path, kind: str) -> bytes:
    """What ``wandb sync`` would send; whole once the service has ended, 0.1 s after a run's finish."""
    forget_service()
    (content,) = (path.read_bytes() for path in (directory / "wandb").glob(f"{kind}-*/run-*.wandb"))
    return content


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["unreachable", "hang", "slow", "500", "429", "401", "403"])
def test_a_server_that_does_not_take_the_run(fault, server, tmp_path, caplog, monkeypatch):
    if fault == "unreachable":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    else:
        server.fault = fault
        server.slow_seconds = 3.0  # longer than the client is allowed to wait
    began = time.monotonic()
    run = begin(tmp_path / "run")
    assert run.active
    for line in lines(1, 20):
        run.log(line)
    run.finish({"n_params": 1})
    assert time.monotonic() - began < PATIENCE
    assert caplog.text.count("W&B start online failed") == 1
    assert synced(tmp_path / "run", "offline-run").count(b"finetune/train_loss") >= 19
    assert KEY not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang", "drop", "500", "401"])
def test_a_server_that_fails_in_mid_run(fault, server, tmp_path, caplog):
    run = begin(tmp_path / "run")
    assert "UpsertBucket" in server.calls
    server.fault = fault
    began = time.monotonic()
    for line in lines(1, 2000):
        run.log(line)
    run.finish({"n_params": 1})
    assert time.monotonic() - began < PATIENCE
    assert synced(tmp_path / "run", "run").count(b"finetune/train_loss") >= 1999
    server.fault = ""
    again = begin(tmp_path / "next")  # the next run of a sweep in this process
    again.log(lines(1, 2)[0])
    again.finish()
    assert "W&B start online failed" not in caplog.text


CLIENT = """
import logging, sys, time
from pathlib import Path
from jetscale.tracking import wandb_run
from jetscale.tracking.wandb_service import service_processes
from tests.tracking.test_wandb_faults import begin, lines
logging.basicConfig(level=logging.WARNING)
wandb_run.CLOSE_SECONDS = 2.0
run = begin(Path("run"))
for line in lines(1, 100):
    run.log(line)
time.sleep(0.5)
(service,) = service_processes()
service.send_signal(int(sys.argv[1]))
for line in lines(100, 5000):
    run.log(line)
run.finish({"n_params": 1})
again = begin(Path("next"))
again.log(lines(1, 2)[0])
again.finish()
print("the end")
"""


@pytest.mark.slow
@pytest.mark.parametrize("fatal", [signal.SIGKILL, signal.SIGSTOP])
def test_the_clients_service_killed_or_hung(fatal, server, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(int(fatal))], cwd=tmp_path, capture_output=True, text=True,
        timeout=PATIENCE, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = "W&B log failed" if fatal == signal.SIGKILL else "W&B did not close the run within 2 s"
    assert said in done.stderr
    assert "teardown_atexit" not in done.stderr  # the client's hook at exit went with its service
    assert b"finetune/train_loss" in synced(tmp_path / "next", "run")
    assert done.stdout == "the end\n"


@pytest.mark.slow
def test_a_real_run_loses_nothing_and_shows_no_secret(simulated_data, server: WandbServer, warm, tmp_path):
    url = f"http://user:hunter2hunter2@{server.host}"
    environment = {**quiet_environment(), "HOME": str(tmp_path), "WANDB_API_KEY": KEY, "WANDB_BASE_URL": url}
    words = [
        f"data.dir={simulated_data}", "+experiment=scratch", *TINY, "tracking.wandb=auto",
        "finetune.steps=48", "tracking.log_every=1", "data.repeat=true",
    ]  # fmt: skip
    process = warm.start("jetscale.train", words, tmp_path, environment)
    killed = kill_service_once_training(process, tmp_path)
    output = "".join(process.communicate(timeout=PATIENCE))
    assert process.returncode == 0, output
    assert killed
    (run,) = runs_under(tmp_path)
    steps = [json.loads(text)["step"] for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert set(steps) == set(range(1, 49))
    assert (run / "done.json").exists()
    assert output.count("the run goes on without it") == 1
    written = [path for path in run.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    for secret in (KEY, "hunter2"):
        assert secret not in output
        assert [path for path in written if secret.encode() in path.read_bytes()] == []
        assert not any(secret in body for body in server.bodies)


def kill_service_once_training(process: WarmProcess, root: Path) -> bool:
    """SIGKILL the W&B service of `process` as soon as its run has written a metrics line."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if any(path.stat().st_size for path in root.glob("multirun/**/metrics.jsonl")):
            for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
                for child in children.read_text().split():
                    if Path("/proc", child, "comm").read_text().strip() == "wandb-core":
                        os.kill(int(child), signal.SIGKILL)
                        return True
        time.sleep(0.02)
    return False
