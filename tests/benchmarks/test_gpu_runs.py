"""The parts of ``python -m benchmarks.gpu`` that start runs, on a CPU: tiny runs, started as forks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import agreement, imports, kernels, runs
from benchmarks.gpu.commands import Bench, Run, wandb_mode
from benchmarks.gpu.session import Session
from benchmarks.gpu.timeline import Timeline, steps_per_second
from tests.runs import quiet_environment
from tests.warm import WarmProcess, WarmServer

TINY = (
    "finetune.batch_size=8", "eval.jets=60", "data.max_constituents=16", "tracking.log_every=4",
    "checkpoint_every=20",
)  # fmt: skip


class Fork:
    """A fork of the warm process as `benchmarks.gpu.commands.Running`."""

    def __init__(self, process: WarmProcess) -> None:
        self._process = process
        self.pid, self.poll, self.wait = process.pid, process.poll, process.wait

    def printed(self) -> str:
        return self._process.printed("stderr") + self._process.printed("stdout")


@pytest.fixture(scope="module")
def bench(simulated_data: Path, warm: WarmServer, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    work = tmp_path_factory.mktemp("bench")

    def start(words: Sequence[str], folder: Path) -> Fork:
        _, minus_m, module, *arguments = words
        assert minus_m == "-m"
        return Fork(warm.start(module, arguments, folder, quiet_environment(), session=True))

    return Bench(Session(work / "gpu.json", 300), work, simulated_data, start, TINY)


def kept(bench: Bench) -> Any:
    return json.loads((bench.work / "gpu.json").read_text())


def test_a_run_is_read_beside_its_copy_for_wandb_and_a_width_that_fails_stops_no_other(bench: Bench) -> None:
    assert wandb_mode() == "offline"
    bench.session.part("runs", lambda: runs.run(bench, {12: 60, 8: 60}))
    rows = kept(bench)["runs"]
    assert "multiple of model.head_dim" in rows["12"]["error"]
    directory = bench.directory(Run(8, 0, 60))
    assert len(list(directory.rglob("metrics.jsonl"))) == 2, "its own, and the copy in the files of W&B"
    lines = Timeline.of(directory).lines
    assert [line["step"] for line in lines] == list(range(4, 61, 4))
    row = rows["8"]
    assert row["loss"] == lines[-1]["loss"]
    took = 1e3 * lines[-1]["seconds"]
    assert 0 < row["ms"] < took / 60 * 3
    assert 0 < row["checkpoint_ms"] < took
    assert row["memory_mib"] is None, "there is no card"


def test_the_start_of_a_run_ends_with_its_first_step(bench: Bench) -> None:
    metrics = bench.directory(Run(8, runs.START_SEED, 2)) / "metrics.jsonl"
    seen: list[float] = []

    def watch() -> None:
        while not (metrics.exists() and b"\n" in metrics.read_bytes()) and time.time() < begun + 60:
            time.sleep(0.002)
        seen.append(time.time())

    watcher = threading.Thread(target=watch)
    begun = time.time()
    watcher.start()
    runs.start(bench, (8,))
    watcher.join()
    lines = Timeline.of(metrics.parent).lines
    assert [line["step"] for line in lines] == [1, 2]
    row = kept(bench)["start"]["8"]
    assert row["start_s"] == pytest.approx(seen[0] - begun, abs=0.5)
    times, said = zip(*row["log"], strict=True)
    assert 0 < times[0] < row["start_s"]
    assert list(times) == sorted(times)
    assert said[0].startswith("budget=")


def test_imports_are_timed(bench: Bench) -> None:
    imports.run(bench)
    row = kept(bench)["start"]["imports"]
    assert set(imports.MODULES) - {"triton"} <= row.keys(), "the warm process hides Triton"
    spent = sum(row[name] for name in imports.MODULES if name in row)
    assert 0 <= spent < row["process_s"]
    assert 0 <= row["with_bytecode"] <= 1


def test_runs_at_once(bench: Bench) -> None:
    runs.shared(bench, {8: (400, (2,))})
    row = kept(bench)["shared"]["8 x 2"]
    one, other = (Timeline.of(bench.directory(Run(8, 200 + seed, 400))) for seed in range(2))
    assert len(one.lines) == len(other.lines) == 100
    fastest = [
        max(1e3 * window.steps / window.milliseconds for window in timeline.windows(20))
        for timeline in (one, other)
    ]
    assert 0 < row["steps_per_second"] < sum(fastest)
    with pytest.raises(ValueError, match="had ended before another had begun"):
        steps_per_second([one, replace(other, began=one.began + one.lines[-1]["seconds"])])


def test_kernels_are_compiled_by_a_short_run_of_each_width(bench: Bench) -> None:
    bench.session.part("kernels", lambda: kernels.run(bench, (8,), (8,)))
    found = kept(bench)["kernels"]
    assert 0 < found["8"]["run_s"] <= found["8"]["seconds"] <= found["all_s"]
    assert Timeline.of(bench.directory(Run(8, kernels.SEED, kernels.STEPS))).lines[-1]["step"] == 20


def test_curves_of_all_ways_are_compared(bench: Bench) -> None:
    small = replace(bench, work=bench.work / "curves", more=(*TINY, "tracking.wandb=disabled"))
    small.work.mkdir()
    bench.session.part("agreement", lambda: agreement.run(small, (8,), 100))
    found = kept(bench)["agreement"]
    assert found["problems"] == []
    row = found["8"]
    assert row["lines"] == {"captured": 2, "eager": 2, "float32": 2, "cpu": 2}
    # on a CPU all ways are one
    assert row["eager_minus_captured"] == row["float32_minus_captured"] == row["cpu_minus_captured"] == 0
    assert len(row["curves"]) == 6
    assert row["scatter_of_seeds"] > 0
