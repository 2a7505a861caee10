from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs import TINY, metrics_of, quiet_environment, runs_under
from tests.terminal import Terminal
from tests.warm import WarmProcess, WarmServer

LONG = (*TINY, "+experiment=bsm_all", "pretrain.steps=400", "finetune.steps=400", "data.repeat=true",
        "checkpoint_every=1000", "eval.every=200")  # fmt: skip


def started(warm: WarmServer, words: list[str], root: Path, phase: str, step: int) -> WarmProcess:
    process = warm.start("jetscale.train", words, root, quiet_environment())
    deadline = time.monotonic() + 120
    while _reached(root, phase) < step:
        assert process.poll() is None, process.printed("stderr")
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def _reached(root: Path, phase: str) -> int:
    where = "backbones/*" if phase == "pretrain" else "smoke/bsm_all/**"
    steps = [0]
    for log in root.glob(f"multirun/{where}/metrics.jsonl"):
        lines = [
            json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]
        steps += [line["step"] for line in lines if line["phase"] == phase]
    return max(steps)


@pytest.mark.slow
def test_asked_to_stop_a_run_checkpoints_at_that_step_and_goes_on_the_same(
    train, warm, tmp_path, simulated_data
):
    """No checkpoint is due: all there is when the run goes on comes from the request to stop."""
    train(*LONG, f"hydra.run.dir={tmp_path}/whole", "pretrain.library=other")
    words = [f"data.dir={simulated_data}", *LONG]
    for number, phase, step, status in (
        (signal.SIGTERM, "pretrain", 50, 75),
        (signal.SIGUSR2, "finetune", 50, 75),
        (signal.SIGINT, "finetune", 200, 130),  # ctrl-C
    ):
        with started(warm, words, tmp_path, phase, step) as process:
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == status, errors
        assert "Traceback" not in errors
        (checkpoint,) = tmp_path.glob(f"multirun/**/{phase}.last.json")
        assert json.loads(checkpoint.read_text())["step"] >= step
        assert not list(tmp_path.glob("multirun/**/failed.json"))
    train(*LONG)
    (run,) = runs_under(tmp_path)
    assert metrics_of(run) == metrics_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_whose_terminal_is_closed_writes_a_checkpoint(simulated_data, tmp_path):
    """It had a progress bar there; what it still writes must not fail for want of the terminal."""
    command = [sys.executable, "-m", "jetscale.train", f"data.dir={simulated_data}", *LONG]
    terminal = Terminal(*command, cwd=tmp_path, env=quiet_environment())
    deadline = time.monotonic() + 120
    while _reached(tmp_path, "pretrain") < 50:
        assert terminal.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert terminal.hang_up() == 75
    (checkpoint,) = tmp_path.glob("multirun/**/pretrain.last.json")
    assert json.loads(checkpoint.read_text())["step"] >= 50
    assert not list(tmp_path.glob("multirun/**/failed.json"))


def test_a_run_under_nohup_does_not_hear_that_the_terminal_is_closed():
    with subprocess.Popen(
        [sys.executable, "-c", LISTENING], stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "noted\n"
        process.kill()


LISTENING = """
import time
from jetscale.training.preemption import NOTICE
NOTICE.listen()
print("ready", flush=True)
while not NOTICE.given: time.sleep(0.01)
print("noted", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_stops_at_once(first):
    """A ctrl-C after SIGTERM is the first one: joblib's workers may get both for one."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        assert process.stdout.readline() == "noted\n"
        if first == signal.SIGTERM:
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert errors.count("interrupted; stopping after this step") == 1
    assert "Traceback" not in errors
