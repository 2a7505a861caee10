"""The real wandb client, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jetscale.tracking.metrics import MetricsLine
from jetscale.tracking.wandb_run import Speed, WandbRun, values_of
from jetscale.tracking.wandb_service import forget_service

LINE = MetricsLine("finetune", 5, 40, 1600, 6 * 2946 * 40.0 * 40, "test", "ema", 2.25, 0.25, 1e-3, 0.5)


def start(mode: str, directory: Path, config: dict[str, Any] | None = None) -> WandbRun:
    names: dict[str, Any] = {
        "project": "proj",
        "entity": None,
        "group": "s/bsm_all/dim=8",
        "name": "n",
        "tags": ["s"],
    }
    return WandbRun(mode, directory, config or {"seed": 0, "model": {"dim": 8}}, **names)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.mark.slow
def test_without_a_key_a_run_is_kept_offline_under_one_id(tmp_path):
    blocks = tmp_path / "test_blocks.parquet"
    for _ in range(2):  # the second start is what a resumed run does
        run = start("auto", tmp_path)
        assert run.active
        run.log(LINE)
        blocks.write_bytes(b"any file")
        run.finish({"n_params": 2946}, blocks)
        assert not run.active
    forget_service()  # which writes the last of them
    fragments = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert fragments
    assert len({path.name for path in fragments}) == 1
    content = fragments[0].read_bytes()
    assert b"finetune/test_loss_ema" in content
    assert f"test-blocks-{fragments[0].stem.removeprefix('run-')}".encode() in content


def test_disabled_writes_nothing(tmp_path):
    run = start("disabled", tmp_path)
    run.log(LINE)
    run.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_the_dashboard_groups_by_and_why_a_run_failed(tmp_path):
    run = start("offline", tmp_path, {"seed": 0, "model": {"dim": 24}, "data": {"dir": "s3://me:hush@b/x"}})
    run.log(LINE)
    run.finish({"error": "OSError: http://me:hush@host is gone"}, exit_code=1)
    forget_service()
    (content,) = (path.read_bytes() for path in (tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    for expected in (b"\x03dim", b"24", b"n_params", b"2946", b"train", b"OSError: http://***@host is gone"):
        assert expected in content
    assert b"s3://***@b/x" in content
    assert not any(b"hush" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_failure_while_logging_is_one_warning(tmp_path, caplog):
    run = start("offline", tmp_path)
    real = run._run

    class Broken:
        id = real.id

        def log(self, values: Any) -> None:
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
