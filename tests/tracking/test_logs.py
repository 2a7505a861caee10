from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from jetscale.runs.blocks import BlockLog
from jetscale.runs.layout import N_BLOCKS
from jetscale.runs.metrics import MetricsError, MetricsLine, MetricsLog


def line(step: int, phase: str = "finetune", loss: float = 2.0) -> MetricsLine:
    return MetricsLine(phase, step, step * 4, step * 160, 1e9, "train", "raw", loss, None, 1e-3, 0.5)


def test_lines_survive_a_torn_write(tmp_path):
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        metrics.append(line(step))
    with metrics.path.open("a") as stream:
        stream.write('{"phase": "finetune", "st')
    assert [entry["step"] for entry in metrics.read()] == [1, 2]
    metrics.keep_until("finetune", 1)
    metrics.append(line(2))
    assert [entry["step"] for entry in metrics.read()] == [1, 2]


def test_rewinding_leaves_the_other_phase_alone(tmp_path):
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (5, 10):
        metrics.append(line(step, "pretrain"))
    for step in (5, 10):
        metrics.append(line(step))
    metrics.keep_until("finetune", 5)
    assert [(entry["phase"], entry["step"]) for entry in metrics.read()] == [
        ("pretrain", 5), ("pretrain", 10), ("finetune", 5),
    ]  # fmt: skip


def test_a_loss_that_is_not_a_number_is_not_written(tmp_path):
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        metrics.append(line(1, loss=float("nan")))
    assert metrics.read() == []


def test_blocks_keep_sums_and_rewind(tmp_path):
    jets = np.zeros(N_BLOCKS, dtype=np.int64)
    jets[:3] = [2, 0, 1]
    sums = np.zeros(N_BLOCKS)
    sums[:3] = [4.5, 0.0, 1.25]
    blocks = BlockLog(tmp_path / "test_blocks.parquet")
    blocks.append("finetune", 10, "raw", jets, sums)
    blocks.append("finetune", 20, "raw", jets, 2 * sums)
    again = BlockLog(tmp_path / "test_blocks.parquet")
    again.keep_until("finetune", 10)
    rows = pq.read_table(tmp_path / "test_blocks.parquet").to_pylist()
    assert [(row["block"], row["jets"], row["loss_sum"]) for row in rows] == [(0, 2, 4.5), (2, 1, 1.25)]
    assert {row["step"] for row in rows} == {10}


@pytest.mark.parametrize("garbage", [b"\0\0\0", b'{"phase": "finetune"', b"[1]", b"\xff\xfe", b""])
def test_a_damaged_line_is_named_and_nothing_is_dropped(tmp_path, garbage):
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        metrics.append(line(step))
    lines = metrics.path.read_bytes().split(b"\n")
    damaged = b"\n".join([lines[0], garbage, *lines[2:]])
    metrics.path.write_bytes(damaged)
    for touch in (
        metrics.read,
        lambda: metrics.keep_until("finetune", 1),
        lambda: metrics.evaluations("finetune"),
    ):
        with pytest.raises(MetricsError, match=r"metrics.jsonl: line 2 is damaged"):
            touch()
    assert metrics.path.read_bytes() == damaged


def test_evaluations_are_those_of_the_phase_and_the_curve(tmp_path):
    metrics, blocks = MetricsLog(tmp_path / "metrics.jsonl"), BlockLog(tmp_path / "test_blocks.parquet")
    for phase, step, split, weights in (
        ("finetune", 5, "train", "raw"),
        ("finetune", 5, "test", "raw"),
        ("finetune", 5, "test", "ema"),
        ("finetune", 9, "test_all", "raw"),
        ("pretrain", 3, "test", "raw"),
    ):
        metrics.append(replace(line(step, phase), split=split, weights=weights))
        if split == "test":
            blocks.append(phase, step, weights, np.ones(N_BLOCKS, np.int64), np.ones(N_BLOCKS))
    for log in (metrics, blocks, BlockLog(tmp_path / "test_blocks.parquet")):
        assert log.evaluations("finetune") == {(5, "raw"), (5, "ema")}
