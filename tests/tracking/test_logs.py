from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from jetscale.tracking.blocks import N_BLOCKS, BlockLog
from jetscale.tracking.metrics import MetricsLine, MetricsLog


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
