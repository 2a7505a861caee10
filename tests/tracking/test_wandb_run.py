"""The real wandb client, offline, and what its files give to a server."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from jetscale.analysis.tables.sources.wandb_offline import read_fragment
from jetscale.runs.layout import WANDB_ID
from jetscale.runs.metrics import MetricsLine
from jetscale.tracking.wandb_environment import Destination, chosen_mode
from jetscale.tracking.wandb_run import Speed, WandbRun, kept_id, values_of
from jetscale.tracking.wandb_service import forget_service
from jetscale.training import watched
from jetscale.training.settings import from_config
from tests.tracking.wandb_server import KEY, served

LINE = MetricsLine("finetune", 5, 40, 1600, 6 * 2946 * 40.0 * 40, "test", "ema", 2.25, 0.25, 1e-3, 0.5)
DOCS = Path(__file__).resolve().parents[2] / "docs/tracking.md"


def start(mode: str, directory: Path, config: dict[str, Any] | None = None, before: int = 0) -> WandbRun:
    destination = Destination(None, None, "s/bsm_all/dim=8", "n", ("s",))
    return WandbRun(mode, directory, config or {"seed": 0, "model": {"dim": 8}}, destination, before)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch, tmp_path):
    forget_service()  # it keeps the environment that it began with
    for name in [name for name in os.environ if name.startswith(("WANDB", "NETRC"))]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield
    forget_service()


@pytest.mark.parametrize(
    ("setting", "environment", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "disabled"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_DISABLED": "true"}, "disabled"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_DISABLED": "false"}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "run"}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "wrong"}, "disabled"),
        ("offline", {"WANDB_API_KEY": KEY, "WANDB_MODE": "online"}, "offline"),
        ("online", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled", "WANDB_DISABLED": "1"}, "online"),
        ("auto", {"WANDB_MODE": "online"}, "offline"),  # no key: the client would ask for one
        ("online", {}, "offline"),
    ],
)
def test_a_setting_wins_over_the_environment_and_that_over_the_key(
    setting, environment, expected, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert chosen_mode(setting) == expected


def test_what_users_of_wandb_set_in_the_environment_is_obeyed(monkeypatch):
    ours = Destination(None, None, "g", "n", ("s",))
    assert ours.obeying() == Destination("jetscale", None, "g", "n", ("s",))
    for name in ("PROJECT", "ENTITY", "RUN_GROUP", "NAME", "JOB_TYPE", "NOTES"):
        monkeypatch.setenv(f"WANDB_{name}", name.lower())
    monkeypatch.setenv("WANDB_TAGS", "new, s,,x")
    theirs = ("run_group", "name", ("s", "new", "x"), "job_type", "notes")
    assert ours.obeying() == Destination("project", "entity", *theirs)
    assert Destination("mine", "me", "g", "n", ("s",)).obeying() == Destination("mine", "me", *theirs)


def folder(path: Path) -> None:
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe machine")


def no_netrc(path: Path) -> None:
    path.write_text("password hunter2hunter2 machine")


@pytest.mark.parametrize("write", [folder, link_to_itself, no_text, no_netrc])
def test_an_odd_netrc_is_one_warning(write, tmp_path, caplog):
    write(tmp_path / "home/.netrc")
    assert chosen_mode("auto") == "offline"
    (record,) = caplog.records
    assert f"{tmp_path}/home/.netrc cannot be read for a key" in record.getMessage()
    assert "hunter2" not in caplog.text


def test_a_key_for_the_server_in_netrc_is_found_with_its_port_and_without(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:8080")
    for machine, expected in (("127.0.0.1:8080", "online"), ("127.0.0.1", "online"), ("other", "offline")):
        (tmp_path / "home/.netrc").write_text(f"machine {machine} login user password {KEY}\n")
        (tmp_path / "home/.netrc").chmod(0o600)
        assert chosen_mode("auto") == expected


def test_an_id_is_made_once_for_a_directory_and_never_twice(tmp_path, caplog, monkeypatch):
    (tmp_path / "run").mkdir()
    first = kept_id(tmp_path / "run")
    assert kept_id(tmp_path / "run") == first
    shutil.rmtree(tmp_path / "run")  # the same path in another container, or a run made anew
    (tmp_path / "run").mkdir()
    second = kept_id(tmp_path / "run")
    assert second != first
    assert not caplog.records
    (tmp_path / "run" / WANDB_ID).write_text((tmp_path / "run" / WANDB_ID).read_text().replace(second, first))
    assert kept_id(tmp_path / "run") not in (first, second)
    assert "is damaged" in caplog.text
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    (tmp_path / "other").mkdir()
    assert kept_id(tmp_path / "other") != "mine"
    assert "WANDB_RUN_ID is not used" in caplog.text


def documented_sync() -> str:
    """The command of docs/tracking.md that sends the offline runs of a sweep."""
    (command,) = re.findall(r"^wandb sync multirun/paper[^#\n]*", DOCS.read_text(), re.MULTILINE)
    return str(command)


@pytest.mark.slow
def test_an_offline_run_that_goes_on_is_one_run_with_one_history_when_sent(tmp_path, monkeypatch, caplog):
    """Also the folder of a further override, the documented command, and the user's environment."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_TAGS", "new")
    directory = tmp_path / "multirun/paper/bsm_all/dim=8/seed=0/finetune.lr=0.003"
    directory.mkdir(parents=True)

    def lines(phase: str, *steps: int) -> list[MetricsLine]:
        return [
            MetricsLine(phase, step, 8 * step, 1, 1e3 * step, "train", "raw", 2.0, None, 1e-3, 0.1)
            for step in steps
        ]

    # the second start goes on from the checkpoint after step 20 of fine-tuning
    begun = [*lines("pretrain", 10, 20, 30, 40), *lines("finetune", 10, 20, 30)]
    for logged in (begun, lines("finetune", 30, 40, 50)):
        run = start("auto", directory, before=40)
        assert run.active
        for line in logged:
            run.log(line)
        run.finish({"n_params": 2946})
    assert caplog.text.count(f"wandb sync {directory}/wandb/offline-run-*-{kept_id(directory)}") == 2
    with served() as server:
        environment = {**os.environ, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"http://{server.host}",
                       "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # fmt: skip
        command = ["bash", "-O", "globstar", "-c", documented_sync()]
        sent = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert sent.returncode == 0, sent.stdout + sent.stderr
    ((run_id, history),) = server.history.items()
    assert run_id == kept_id(directory)
    assert server.runs[run_id]["project"] == "theirs"
    assert server.runs[run_id]["tags"] == ["s", "new"]
    steps = [row["_step"] for row in history]
    assert steps == sorted(set(steps))
    assert steps[:7] == [10, 20, 30, 40, 50, 60, 70]
    assert [row["finetune/step"] for row in history[4:]] == [10, 20, 30, 30, 40, 50]


def test_lines_of_one_step_are_one_row_and_a_copy_that_cannot_be_made_is_one_warning(tmp_path, caplog):
    run = start("offline", tmp_path)
    for _ in range(2):
        run.log(LINE)
    run.finish({"n_params": 2946}, done=True)  # which it is not
    assert not run.active
    assert caplog.text.count("W&B copy of the run directory failed") == 1
    forget_service()
    (log,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert log.read_bytes().count(b"finetune/test_loss_ema") == 2  # one row, and the summary
    assert read_fragment(log).finished


def test_the_curve_of_a_found_backbone_is_sent_once(tmp_path):
    lines = [
        MetricsLine("pretrain", step, 8 * step, 1, 1e3 * step, "train", "raw", 2.0, None, 1e-3, 0.1 * step)
        for step in (10, 20)
    ]
    for _ in range(2):  # the second start goes on from a checkpoint of fine-tuning
        run = start("offline", tmp_path, before=20)
        run.log_pretraining(map(asdict, lines))
        run.log(LINE)
        run.finish()
    (tmp_path / "other").mkdir()
    run = start("offline", tmp_path / "other", before=20)  # which pretrains itself
    for line in lines:
        run.log(line)
    run.log_pretraining(map(asdict, lines))
    run.finish()
    forget_service()
    told = {
        path.parent.name: [row["pretrain/step"] for row in read_fragment(path).rows if "pretrain/step" in row]
        for path in sorted({path.resolve() for path in tmp_path.rglob("*.wandb")})
    }
    assert sorted(told.values()) == [[], [10, 20], [10, 20]]


@pytest.mark.slow
def test_what_the_dashboard_groups_by_and_why_a_run_failed(tmp_path):
    data = {"dir": "s3://me:hush@b/x", "store": "/home/jane/store"}
    run = start("offline", tmp_path, {"seed": 0, "dim": 24, "data": data})
    run.log(LINE)
    run.finish({"error": "OSError: http://me:hush@host is gone, and /home/jane/jets"}, exit_code=1)
    forget_service()
    (content,) = (path.read_bytes() for path in (tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    for expected in (b"\x03dim", b"24", b"n_params", b"2946", b"train", b"OSError: http://***@host is gone"):
        assert expected in content
    assert b"s3://***@b/x" in content
    assert b"***/store" in content
    for secret in (b"hush", b"/home/jane"):
        assert not any(secret in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_failure_while_logging_is_one_warning(tmp_path, caplog):
    run = start("offline", tmp_path)
    real = run._run

    class Broken:
        id = real.id

        def log(self, values: Any, step: int) -> None:
            raise ConnectionError("http://me:hush@host is gone")

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    run._run = Broken()
    run.log(LINE)
    run.log(LINE)
    run.finish()
    assert caplog.text.count("http://***@host is gone") == 1
    assert not run.active


def test_speed_leaves_evaluations_and_other_phases_out():
    def line(phase: str, jets: int, seconds: float) -> MetricsLine:
        return MetricsLine(phase, jets, jets, 1, 1.0, "train", "raw", 2.0, None, 1e-3, seconds)

    speed = Speed()
    assert speed.after(line("pretrain", 100, 1.0)) is None
    assert speed.after(line("pretrain", 200, 3.0)) == 50.0
    assert speed.after(line("pretrain", 200, 9.0)) is None  # an evaluation
    assert speed.after(line("pretrain", 300, 10.0)) == 100.0
    assert speed.after(line("finetune", 400, 11.0)) is None
    assert speed.after(line("finetune", 500, 11.0)) is None  # no time has passed: not infinite


def test_keys_of_a_line():
    assert values_of(LINE, 80.0) == {
        "finetune/step": 5, "finetune/test_loss_ema": 2.25, "finetune/test_accuracy_ema": 0.25,
        "finetune/lr": 1e-3, "step": 5, "jets": 40, "flops": LINE.flops, "finetune/jets_per_second": 80.0,
    }  # fmt: skip


@pytest.mark.parametrize(("max_flops", "steps"), [(None, 24), (3.5e7, 4), (1e30, 24)])
def test_steps_of_the_fine_tuning_follow_those_that_the_pretraining_makes(
    tmp_path, monkeypatch, max_flops, steps
):
    """A cap on the compute cuts them."""
    content = {
        "subset": "qcd",
        "model": {"dim": 8},
        "pretrain": {
            "composition": {"QCD": 1}, "steps": 24, "batch_size": 8, "warmup": 0, "max_flops": max_flops,
        },
    }  # fmt: skip
    monkeypatch.setattr(watched, "WandbRun", lambda *arguments: arguments[-1])
    assert watched.wandb_of(from_config(content), tmp_path, "") == steps
    assert watched.wandb_of(from_config({}), tmp_path, "") == 0, "from scratch"
