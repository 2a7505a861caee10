"""A real sweep, kept offline for W&B: what a dashboard shows of it, and the analysis of its folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import load_losses
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.sources.wandb_offline import read_fragment, records
from jetscale.analysis.tables.test_blocks import resampled_blocks
from tests.analysis import wandb_server as api
from tests.analysis.test_wandb_files import assert_same
from tests.runs import TINY, metrics_of, quiet_environment
from tests.tracking.wandb_server import KEY, WandbServer, served
from tests.warm import WarmServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wandb")]  # in one process: the sweep takes long
SWEEP = (
    *TINY, "+experiment=bsm_all", "-m", "seed=0,1", "pretrain.seed=0", "tracking.wandb=offline",
    "ema.enabled=true", "finetune.lr={base: 1e-3, dim: 16, power: -1}",
)  # fmt: skip
"""Two runs that share a backbone: the first pretrains it, the second finds it."""


@pytest.fixture(scope="module")
def folder(simulated_data: Path, warm: WarmServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep in ``multirun/smoke``, and a copy of its W&B folders in ``moved``; the originals are gone."""
    folder = tmp_path_factory.mktemp("jane")
    words = [f"data.dir={simulated_data}", *SWEEP]
    environment = {**quiet_environment(), "WANDB_DIR": str(folder / "own"), "WANDB_ERROR_REPORTING": "false"}
    environment |= {"HOME": str(folder), "WANDB_NOTES": "first try", "SLURM_JOB_NAME": "secret-project"}
    process = warm.start("jetscale.train", words, folder, environment)
    printed = process.communicate(timeout=300)
    assert process.wait() == 0, printed
    shutil.copytree(folder / "own/wandb", folder / "moved/wandb", symlinks=True)
    shutil.rmtree(folder / "own")
    return folder


def run_of(folder: Path, seed: int) -> Path:
    (run,) = (folder / f"multirun/smoke/bsm_all/dim=8/seed={seed}").iterdir()  # named by its overrides
    return run


def log_of(folder: Path, seed: int) -> Path:
    run_id = json.loads((run_of(folder, seed) / "wandb.json").read_text())["id"]
    (log,) = (folder / "moved/wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb")
    return log


def test_a_dashboard_shows_both_phases_and_what_runs_are_grouped_by(folder: Path) -> None:
    for seed in (0, 1):  # the second found the backbone
        fragment = read_fragment(log_of(folder, seed))
        flat = {key: value for key, value in fragment.config.items() if not isinstance(value, dict)}
        expected = {
            "study": "smoke", "subset": "bsm_all", "dim": 8, "seed": seed, "arch": "transformer",
            "gpu": "none", "lr": 2e-3, "steps": 40, "batch_size": 8, "pretrain_steps": 24,
            "pretrain_lr": 1e-3,
        }  # fmt: skip
        assert expected.items() <= flat.items()
        for phase, split, weights in (
            ("pretrain", "train", "raw"), ("finetune", "train", "raw"),
            ("finetune", "test", "raw"), ("finetune", "test", "ema"),
        ):  # fmt: skip
            lines = [line for line in metrics_of(run_of(folder, seed)) if line["phase"] == phase]
            lines = [line for line in lines if (line["split"], line["weights"]) == (split, weights)]
            suffix = "" if weights == "raw" else "_ema"
            for kind in ("loss",) if split == "train" else ("loss", "accuracy"):
                key = f"{phase}/{split}_{kind}{suffix}"
                told = {row[f"{phase}/step"]: row[key] for row in fragment.rows if key in row}
                assert told == {line["step"]: line[kind] for line in lines}, key
                assert told
        steps = [row["_step"] for row in fragment.rows]
        assert steps == sorted(set(steps))


def test_system_metrics_are_in_it_and_neither_machine_nor_person_nor_path(folder: Path) -> None:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # generated

    kinds: dict[str, Any] = {}
    for payload in records(log_of(folder, 1)):
        record = Record()
        record.ParseFromString(payload)
        kinds[record.WhichOneof("record_type")] = record
    assert "stats" in kinds
    assert "environment" not in kinds
    assert kinds["run"].run.host == ""
    sent = [log_of(folder, 1), *(log_of(folder, 1).parent / "files").rglob("*")]
    content = b"".join(path.read_bytes() for path in sent if path.is_file())
    for private in (str(folder), "jane", "secret-project", "jetscale.train"):
        assert private.encode() not in content, private
    assert b"first try" in content


def bootstrap(losses: LossTable) -> np.ndarray:
    """Replicates of every test loss in the table, with the test jets resampled."""
    frame, blocks = losses.frame, losses.blocks
    assert blocks is not None
    wanted = list(zip(frame["run"], frame["step"], frame["weights"], strict=True))
    chosen = blocks.select(wanted)
    assert chosen is not None
    return chosen.log_losses(resampled_blocks(50, np.random.default_rng(1), chosen.count))


def test_copied_offline_folders_give_the_bootstrap_of_the_run_directories(folder: Path) -> None:
    local = load_losses(folder / "multirun/smoke")
    moved = load_losses(folder / "moved", "wandb-offline")
    pd.testing.assert_frame_equal(moved.frame, local.frame, check_exact=True)
    assert len(local.frame) > 10
    np.testing.assert_array_equal(bootstrap(moved), bootstrap(local))
    assert moved.origins == local.origins
    assert not any("history" in text for text in moved.warnings)


@pytest.fixture
def server() -> Iterator[api.Server]:
    running = api.Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def sent(folder: Path) -> WandbServer:
    """What ``wandb sync`` of the copied folders sends."""
    with served() as server:
        environment = {**os.environ, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"http://{server.host}"}
        environment |= {"HOME": str(folder), "WANDB_ERROR_REPORTING": "false"}
        pieces = sorted(map(str, (folder / "moved/wandb").glob("offline-run-*")))
        command = [str(Path(sys.executable).with_name("wandb")), "sync", *pieces]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return server


def test_what_wandb_sync_sends_gives_it_too(folder: Path, server: api.Server, tmp_path: Path) -> None:
    taken = sent(folder)
    assert len(taken.runs) == 2
    for run in taken.runs:
        server.histories[run] = taken.history[run]
        server.files[run] = taken.files[run]
        server.summaries[run] = taken.summary[run]
        server.configs[run] = config_of(taken, run)
    local = load_losses(folder / "multirun/smoke")
    assert_same(api.ask(server, tmp_path), local)


def config_of(taken: WandbServer, run: str) -> dict[str, Any]:
    config = json.loads(taken.runs[run]["config"])
    return {key: entry["value"] for key, entry in config.items()}
