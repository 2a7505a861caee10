"""The real wandb client, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jetscale.tracking.metrics import MetricsLine
from jetscale.tracking.wandb_run import WandbRun

LINE = MetricsLine("finetune", 5, 40, 1600, 1e9, "test", "ema", 2.25, 0.25, 1e-3, 0.5)


def start(mode: str, directory: Path) -> WandbRun:
    names: dict[str, Any] = {
        "project": "p",
        "entity": None,
        "group": "s/bsm_all/dim=8",
        "name": "n",
        "tags": ["s"],
    }
    return WandbRun(mode, directory, {"seed": 0}, **names)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.slow
def test_without_a_key_a_run_is_kept_offline_under_one_id(tmp_path):
    blocks = tmp_path / "test_blocks.parquet"
    for _ in range(2):  # the second start is what a resumed run does
        run = start("auto", tmp_path)
        assert run.active
        run.log(LINE)
        blocks.write_bytes(b"any file")
        run.finish({"n_params": 2946}, blocks)
    fragments = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert fragments
    assert len({path.name for path in fragments}) == 1
    assert b"finetune/test_loss_ema" in fragments[0].read_bytes()
    assert f"test-blocks-{fragments[0].stem.removeprefix('run-')}".encode() in fragments[0].read_bytes()


def test_disabled_writes_nothing(tmp_path):
    run = start("disabled", tmp_path)
    run.log(LINE)
    run.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_unreachable_server_leaves_the_run_offline(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    run = start("auto", tmp_path)
    assert run.active
    run.log(LINE)
    run.finish()
    assert "W&B start online failed" in caplog.text
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_a_failure_while_logging_is_one_warning(tmp_path, caplog):
    run = start("disabled", tmp_path)

    class Broken:
        def log(self, values: Any) -> None:
            raise ConnectionError("gone")

    run._run = Broken()
    run.log(LINE)
    run.log(LINE)
    assert caplog.text.count("gone") == 1
