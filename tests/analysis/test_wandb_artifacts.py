"""Block losses from W&B artifacts, through the real client."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis.tables.sources import block_files
from jetscale.common.usage import UsageError
from jetscale.runs.layout import N_BLOCKS
from tests.analysis.wandb_server import Artifact, Server, ask

STEPS = range(10, 60, 10)


def parquet(seed: int) -> bytes:
    """A `test_blocks.parquet` as runs write it: two phases, raw and EMA weights, empty blocks left out."""
    rng = np.random.default_rng(seed)
    parts = []
    for phase, steps in (("pretrain", (10,)), ("finetune", STEPS)):
        for step in steps:
            for weights in ("raw", "ema"):
                block = np.flatnonzero(rng.random(N_BLOCKS) < 0.9)
                jets = rng.integers(1, 9, len(block))
                columns = {"phase": phase, "step": step, "weights": weights, "block": block, "jets": jets}
                parts.append(pd.DataFrame(columns).assign(loss_sum=rng.gamma(jets)))
    file = io.BytesIO()
    pd.concat(parts).to_parquet(file)
    return file.getvalue()


def logged(run: str, content: bytes, **facts: Any) -> Artifact:
    return Artifact(f"test-blocks-{run}", {"test_blocks.parquet": content}, **facts)


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if "kept" in path.name or path.suffix == ".parquet")


def assert_blocks(answer: dict[str, Any], expected: dict[int, bytes], folder: Path) -> None:
    """The table's block losses are those of these runs' files."""
    found = answer["blocks"]
    position = {tuple(key): row for row, key in enumerate(found["keys"])}
    assert len(position) == 2 * len(STEPS) * len(expected)
    for seed, content in expected.items():
        (folder / "reference").write_bytes(content)
        name = f"scratch/dim=16/seed={seed}/run{seed}"
        assert name in answer["rows"]["run"]
        reference = block_files.read(folder / "reference", name, "finetune")
        assert reference is not None
        rows = [position[key] for key in reference.keys]
        np.testing.assert_array_equal(np.array(found["loss_sum"])[rows], reference.loss_sum_EB)
        np.testing.assert_array_equal(np.array(found["jets"])[rows], reference.jets_EB)


def test_block_losses_come_with_the_table_and_are_cached(server: Server, tmp_path: Path) -> None:
    files = {seed: parquet(seed) for seed in (0, 1)}
    for seed in files:
        server.add(f"run{seed}", STEPS)
    other = Artifact("history-run0", {"x.parquet": b"x"}, type="wandb-history")
    deleted = logged("run0", b"gone", version=11, state="DELETED")
    old = logged("run0", parquet(7), version=9)
    server.artifacts = {
        "run0": [other, deleted, logged("run0", files[0], version=10), old],
        "run1": [logged("run1", files[1])],
    }
    answer = ask(server, tmp_path)
    assert_blocks(answer, files, tmp_path)
    assert answer["warnings"] == []
    assert kept(tmp_path) == ["kept-blocks.parquet", "kept.parquet"]
    made = len(server.calls)
    again = ask(server, tmp_path)
    assert len(server.calls) == made
    assert again["blocks"] == answer["blocks"]
    server.artifacts = {}
    anew = ask(server, tmp_path, refresh=True)
    assert anew["blocks"] is None
    assert kept(tmp_path) == ["kept.parquet"]  # none of the old answer's blocks


def test_runs_without_the_artifact_are_named(server: Server, tmp_path: Path) -> None:
    server.add("run0", STEPS)
    server.add("run1", STEPS)
    content = parquet(0)
    sending = logged("run1", parquet(1), state="PENDING")
    server.artifacts, server.running = {"run0": [logged("run0", content)], "run1": [sending]}, {"run1"}
    for _ in range(2):  # from the server, from the cache
        answer = ask(server, tmp_path)
        assert_blocks(answer, {0: content}, tmp_path)
        (text,) = (text for text in answer["warnings"] if "no block losses" in text)
        assert "of 1 runs, such as scratch/dim=16/seed=1/run1" in text


def test_busy_server_and_broken_connection_are_waited_for(server: Server, tmp_path: Path) -> None:
    server.add("run0", STEPS)
    content = parquet(0)
    server.artifacts = {"run0": [logged("run0", content)]}
    server.file_status, server.cut = [503], 1
    assert_blocks(ask(server, tmp_path), {0: content}, tmp_path)
    assert (server.file_status, server.cut) == ([], 0)


@pytest.mark.parametrize(
    ("artifact", "told"),
    [
        (logged("run0", parquet(0), served=parquet(1)), "Digest mismatch"),
        (logged("run0", b"no parquet at all"), "cannot be read as parquet"),
        (Artifact("test-blocks-run0", {"blocks.csv": b"1,2"}), "holds no test_blocks.parquet"),
    ],
)
def test_wrong_content_is_an_error(server: Server, tmp_path: Path, artifact: Artifact, told: str) -> None:
    server.add("run0", STEPS)
    server.artifacts = {"run0": [artifact]}
    error = ask(server, tmp_path)["error"]
    assert "W&B run run0, artifact test-blocks-run0:v0" in error
    assert told in error
    assert kept(tmp_path) == []


def test_download_that_stays_broken_leaves_the_cache_as_it_was(server: Server, tmp_path: Path) -> None:
    server.add("run0", STEPS)
    content = parquet(0)
    server.artifacts = {"run0": [logged("run0", content)]}
    ask(server, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in kept(tmp_path)}
    server.add("run1", STEPS)
    server.artifacts["run1"] = [logged("run1", parquet(1))]
    server.cut = 100
    assert "artifact test-blocks-run0:v0" in ask(server, tmp_path, refresh=True)["error"]
    server.cut, server.file_status = 0, [404, 404]
    assert "404" in ask(server, tmp_path, refresh=True)["error"]
    assert {name: (tmp_path / name).read_bytes() for name in kept(tmp_path)} == before


def test_malformed_listing_is_named(server: Server, tmp_path: Path) -> None:
    server.add("run0", STEPS)
    server.malformed = "RunOutputArtifacts"
    assert "artifacts of W&B run run0" in ask(server, tmp_path)["error"]
    assert kept(tmp_path) == []


def test_block_file_without_its_columns(tmp_path: Path) -> None:
    pd.DataFrame({"step": [1], "block": [0]}).to_parquet(tmp_path / "test_blocks.parquet")
    with pytest.raises(UsageError, match="lacks the column weights, jets, loss_sum"):
        block_files.read(tmp_path / "test_blocks.parquet", "run", "finetune")
