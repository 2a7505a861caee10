"""W&B sources against files made by, and answers given to, the real client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import load_losses
from jetscale.common.usage import UsageError
from tests.analysis.wandb_server import Server, ask

LOG = """
import sys, wandb
directory, run_id, first, last, seed = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
config = {"subset": "scratch", "seed": seed, "model": {"dim": 16}, "finetune": {"warmup": 10, "steps": 200}}
run = wandb.init(id=run_id, mode="offline", dir=directory, project="p", config=config,
                 settings=wandb.Settings(silent=True, x_disable_stats=True))
for step in range(first, last, 10):
    jets = 32 * step
    axes = {"step": step, "jets": jets, "flops": 240.0 * 11002 * jets, "finetune/step": step}
    run.log(axes | {"finetune/train_loss": 9.0})
    run.log(axes | {"finetune/test_loss": 2.0 + first * 1e-4 - 1e-3 * step})
    run.log(axes | {"finetune/test_loss_ema": 1.9 + first * 1e-4 - 1e-3 * step})
run.summary["n_params"] = 11002
run.finish()
"""


def log_offline(folder: Path, run_id: str, first: int, last: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    arguments = [str(folder), run_id, str(first), str(last), str(seed)]
    subprocess.run([sys.executable, "-c", LOG, *arguments], check=True, env=environment, timeout=120)


def test_offline_folders_and_resumed_fragments(tmp_path: Path) -> None:
    log_offline(tmp_path / "a", "run0", 10, 120, 0)
    log_offline(tmp_path / "b", "run0", 100, 210, 0)  # went on from step 100 after a kill
    log_offline(tmp_path / "c", "run1", 10, 210, 1)
    losses = load_losses(tmp_path, "wandb-offline")
    frame = losses.frame
    assert sorted(frame["seed"].unique()) == ["0", "1"]
    for seed in ("0", "1"):
        for weights, level in (("raw", 2.0), ("ema", 1.9)):
            curve = frame[(frame["seed"] == seed) & (frame["weights"] == weights)].sort_values("step")
            assert curve["step"].tolist() == list(range(10, 210, 10))
            resumed = 100 if seed == "0" else 1000
            begin = np.where(curve["step"] < resumed, 10, 100)
            np.testing.assert_allclose(curve["loss"], level + begin * 1e-4 - 1e-3 * curve["step"])
    assert set(frame["n_params"]) == {11002.0}
    assert set(frame["dim"]) == {16.0}
    assert any("2 pieces merged" in text for text in losses.warnings)
    assert any("2 runs, such as scratch/dim=16/seed=0/run0, have no copy" in text for text in losses.warnings)


def test_run_directories_around_offline_folders_are_read_instead(sweep: Callable[..., Path]) -> None:
    path = sweep({"scratch": 0.5}, widths=(16,), seeds=2, evaluations=4)
    exact = load_losses(path).frame
    for run in ("scratch/dim=16/seed=0", "scratch/dim=16/seed=1"):
        file = path / run / "wandb/offline-run-1/run-x.wandb"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"not a W&B log: it must not be read")
    (path / "scratch/dim=16/seed=1/done.json").unlink()  # W&B has the curve of a run that goes on, too
    losses = load_losses(path, "wandb-offline")
    columns = ["run", "weights", "step", "loss"]
    ours, theirs = (frame[columns].sort_values(columns, ignore_index=True) for frame in (losses.frame, exact))
    pd.testing.assert_frame_equal(ours, theirs)
    assert any("read from the run directories" in text for text in losses.warnings)
    (path / "scratch/dim=16/seed=1/metrics.jsonl").unlink()
    with pytest.raises(UsageError, match="not a W&B log"):  # one run is known to W&B alone
        load_losses(path, "wandb-offline")


def test_torn_offline_log_keeps_its_whole_records(tmp_path: Path) -> None:
    log_offline(tmp_path, "run0", 10, 1000, 0)
    whole = len(load_losses(tmp_path, "wandb-offline").frame)
    (file,) = {path.resolve() for path in tmp_path.rglob("*.wandb")}
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    torn = load_losses(tmp_path, "wandb-offline")
    assert 0 < len(torn.frame) < whole
    assert any("not finished" in text for text in torn.warnings)
    file.write_bytes(b"something else entirely")
    with pytest.raises(UsageError, match="not a W&B log"):
        load_losses(tmp_path, "wandb-offline")


def test_no_offline_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.wandb"):
        load_losses(tmp_path, "wandb-offline")


def test_api_gives_exact_curves_and_is_cached(server: Server, tmp_path: Path) -> None:
    server.add("run0", range(10, 1610, 1))  # more rows than one page of the client
    server.add("run1", range(10, 210, 10))
    answer = ask(server, tmp_path, group="g", filters='{"config.subset": "scratch"}')
    frame = pd.DataFrame(answer["rows"])
    assert json.loads(server.filters[0]) == {"config.subset": "scratch", "group": "g"}
    for seed, steps in (("0", range(10, 1610)), ("1", range(10, 210, 10))):
        for weights, level in (("raw", 2.0), ("ema", 1.9)):
            curve = frame[(frame["seed"] == seed) & (frame["weights"] == weights)].sort_values("step")
            assert curve["step"].tolist() == list(steps)
            np.testing.assert_allclose(curve["loss"], level - 1e-3 * curve["step"])
    assert set(frame["n_params"]) == {11002.0}
    server.add("run2", range(10, 50, 10))
    made = len(server.calls)
    again = ask(server, tmp_path, group="g", filters='{"config.subset": "scratch"}')
    assert len(server.calls) == made  # from the cache, without the server
    assert pd.DataFrame(again["rows"])["seed"].nunique() == 2
    anew = ask(server, tmp_path, group="g", filters='{"config.subset": "scratch"}', refresh=True)
    assert pd.DataFrame(anew["rows"])["seed"].nunique() == 3
    assert "refresh=true" in ask(server, tmp_path)["error"]  # the cache holds another question's answer


def test_api_waits_for_a_busy_server(server: Server, tmp_path: Path) -> None:
    server.add("run0", range(10, 210, 10))
    server.fail = [429, 503]
    assert len(ask(server, tmp_path)["rows"]["loss"]) == 40
    assert not server.fail


@pytest.mark.parametrize("call", ["Runs", "SampledHistoryPage"])
def test_api_malformed_answers_are_named(server: Server, tmp_path: Path, call: str) -> None:
    server.add("run0", range(10, 210, 10))
    server.malformed = call
    assert "error" in ask(server, tmp_path)
    assert not (tmp_path / "kept.parquet").exists()


def test_api_rows_that_are_not_numbers(server: Server, tmp_path: Path) -> None:
    server.add("run0", range(10, 50, 10))
    server.histories["run0"][2]["finetune/test_loss"] = "NaN?"
    assert "run0" in ask(server, tmp_path)["error"]
    server.histories = {}
    assert "no run" in ask(server, tmp_path)["error"]
