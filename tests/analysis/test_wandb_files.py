"""Copies of run directories in W&B: read as local runs are, through the real client; what may be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import load_losses
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.common.usage import UsageError
from jetscale.runs.shared_copy import COPIED, write_shared_copy
from tests.analysis.wandb_server import Server, ask

EMPTY_LOG = b":W&B not read"
RUNS = {"b1": "scratch/dim=16/seed=0", "a0": "scratch/dim=16/seed=1"}  # the ids sort the other way round


@pytest.fixture
def copies(sweep: Callable[..., Path], tmp_path: Path) -> dict[str, Path]:
    """Copies of the runs of a small sweep by id in W&B, and the sweep itself as ``local``."""
    path = sweep({"scratch": 0.5}, widths=(16,), seeds=2, evaluations=4)
    found = {"local": path}
    for run, place in RUNS.items():
        found[run] = tmp_path / "copies" / run
        write_shared_copy(path / place, found[run])
    return found


def upload(server: Server, copies: dict[str, Path], run: str) -> None:
    server.histories[run] = []
    server.files[run] = {f"jetscale/{file.name}": file.read_bytes() for file in copies[run].iterdir()}


def offline(folder: Path, copy: Path, run: str, started: str = "20260101_000000") -> Path:
    """A folder of an offline run, as `cp -r` leaves it anywhere."""
    piece = folder / f"wandb/offline-run-{started}-{run}"
    shutil.copytree(copy, piece / "files/jetscale")
    (piece / f"run-{run}.wandb").write_bytes(EMPTY_LOG)
    return piece


def assert_same(answer: dict[str, Any], local: LossTable) -> None:
    """The answer of the API's process is the table of the local runs, to the last bit."""
    pd.testing.assert_frame_equal(
        pd.DataFrame(answer["rows"]), local.frame, check_dtype=False, check_exact=True
    )
    assert local.blocks is not None
    theirs = {tuple(key): row for row, key in enumerate(answer["blocks"]["keys"])}
    rows = [theirs[key] for key in local.blocks.keys]
    np.testing.assert_array_equal(np.array(answer["blocks"]["loss_sum"])[rows], local.blocks.loss_sum_EB)
    np.testing.assert_array_equal(np.array(answer["blocks"]["jets"])[rows], local.blocks.jets_EB)
    assert answer["origins"] == {run: origin.to_json() for run, origin in local.origins.items()}


def test_the_api_gives_the_local_table_and_keeps_it(
    server: Server, copies: dict[str, Path], tmp_path: Path
) -> None:
    for run in RUNS:
        upload(server, copies, run)
        server.summaries[run] = {"_timestamp": (copies["local"] / RUNS[run] / "done.json").stat().st_mtime}
    local = load_losses(copies["local"])
    server.file_status, server.cut = [503], 1  # a busy server and a broken connection are waited for
    answer = ask(server, tmp_path)
    assert (server.file_status, server.cut) == ([], 0)
    assert_same(answer, local)
    assert not any("history rows" in text for text in answer["warnings"])
    kept = load_losses("ent/proj", "wandb", cache=tmp_path / "kept.parquet")  # without the server
    pd.testing.assert_frame_equal(kept.frame, local.frame, check_exact=True)
    assert kept.blocks is not None


def test_a_run_without_a_copy_and_one_that_goes_on(
    server: Server, copies: dict[str, Path], tmp_path: Path
) -> None:
    upload(server, copies, "b1")
    server.add("c2", range(10, 60, 10))
    server.files["c2"], server.running = server.files["b1"], {"c2"}  # of an end before it went on
    answer = ask(server, tmp_path)
    names = set(answer["rows"]["run"])
    assert names == {"scratch/dim=16/seed=0", "scratch/dim=16/seed=2/c2"}
    (told,) = (text for text in answer["warnings"] if "history rows" in text)
    assert "1 runs, such as scratch/dim=16/seed=2/c2, have no copy of their run directory in W&B" in told
    assert {run for run, _, _ in answer["blocks"]["keys"]} == {"scratch/dim=16/seed=0"}


def test_an_upload_that_lacks_a_file(server: Server, copies: dict[str, Path], tmp_path: Path) -> None:
    upload(server, copies, "b1")
    del server.files["b1"]["jetscale/test_blocks.parquet"]
    error = ask(server, tmp_path)["error"]
    assert "b1/jetscale/test_blocks.parquet is missing: done.json lists it" in error
    assert "send the run to W&B again (wandb sync)" in error
    assert not (tmp_path / "kept.parquet").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("metrics.jsonl", "metrics.jsonl is damaged: its content does not fit its checksum"),
        ("done.json", "done.json is damaged"),
    ],
)
def test_a_copy_that_is_not_what_was_written(
    name: str, told: str, copies: dict[str, Path], tmp_path: Path
) -> None:
    piece = offline(tmp_path / "moved", copies["b1"], "b1")
    (piece / "files/jetscale" / name).write_bytes(b"[]")
    with pytest.raises(UsageError, match=told):
        load_losses(tmp_path / "moved", "wandb-offline")


def test_offline_folders_that_were_copied_give_the_local_table(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    for run in RUNS:
        offline(tmp_path / "moved", copies[run], run)
    local, moved = load_losses(copies["local"]), load_losses(tmp_path / "moved", "wandb-offline")
    pd.testing.assert_frame_equal(moved.frame, local.frame, check_exact=True)
    assert moved.origins == local.origins
    assert local.blocks is not None
    assert moved.blocks is not None
    blocks = moved.blocks.select(local.blocks.keys)
    assert blocks is not None
    np.testing.assert_array_equal(blocks.loss_sum_EB, local.blocks.loss_sum_EB.astype(float))
    np.testing.assert_array_equal(blocks.jets_EB, local.blocks.jets_EB.astype(float))


def test_offline_folders_behind_a_link_are_read(copies: dict[str, Path], tmp_path: Path) -> None:
    one, other = RUNS
    piece = offline(tmp_path / "moved", copies[one], one)
    (piece.parent / "latest-run").symlink_to("a folder that is gone")
    offline(tmp_path / "disk", copies[other], other)
    (tmp_path / "moved/more").symlink_to(tmp_path / "disk")
    local, moved = load_losses(copies["local"]), load_losses(tmp_path / "moved", "wandb-offline")
    pd.testing.assert_frame_equal(moved.frame, local.frame, check_exact=True)
    shutil.rmtree(tmp_path / "disk")
    with pytest.raises(UsageError, match=r"moved/more: a link to .*disk, which leads nowhere"):
        load_losses(tmp_path / "moved", "wandb-offline")


def test_copies_inside_a_run_directory_are_no_further_runs(copies: dict[str, Path]) -> None:
    before = load_losses(copies["local"])
    for run, place in RUNS.items():
        offline(copies["local"] / place, copies[run], run)
    for source in ("local", "wandb-offline"):
        pd.testing.assert_frame_equal(
            load_losses(copies["local"], source).frame, before.frame, check_exact=True
        )


def test_of_a_resumed_run_the_last_copy_counts_and_equal_places_keep_their_ids(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    first = offline(tmp_path / "moved", copies["b1"], "b1", "20260101_000000")
    (first / "files/jetscale/metrics.jsonl").write_text("damaged, and not read")
    offline(tmp_path / "moved", copies["b1"], "b1", "20260102_000000")
    offline(tmp_path / "moved", copies["a0"], "a0")
    losses = load_losses(tmp_path / "moved", "wandb-offline")
    assert set(losses.frame["run"]) == set(RUNS.values())
    offline(tmp_path / "moved", copies["b1"], "ff")  # made twice: in the table, but not under one name
    with pytest.raises(UsageError, match=r"seed=0/b1.*seed=0/ff|seed=0/ff.*seed=0/b1"):
        load_losses(tmp_path / "moved", "wandb-offline")


def test_a_copy_holds_what_the_analysis_reads_and_no_path(sweep: Callable[..., Path], tmp_path: Path) -> None:
    run = sweep({"scratch": 0.5}, widths=(16,), seeds=1, evaluations=4) / "scratch/dim=16/seed=0"
    config = run / "config.yaml"
    config.write_text(config.read_text() + "data: {dir: /home/jane doe/jets, store: ~/kept/store}\n")
    write_shared_copy(run, tmp_path / "copy")
    assert sorted(file.name for file in (tmp_path / "copy").iterdir()) == sorted(COPIED)
    text = (tmp_path / "copy/config.yaml").read_text()
    assert "jane" not in text
    assert "'***/jets'" in text or "***/jets" in text
    assert "***/store" in text
    with pytest.raises(ValueError, match="is not finished"):
        write_shared_copy(tmp_path, tmp_path / "other")
