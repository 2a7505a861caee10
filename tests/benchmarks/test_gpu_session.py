"""What ``python -m benchmarks.gpu`` does with time: limits, what is left behind, and what it computes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml

from benchmarks.gpu import agreement, card, grid
from benchmarks.gpu.__main__ import _table, main
from benchmarks.gpu.commands import Bench, running, succeed
from benchmarks.gpu.session import NO_TIME, Session, measured
from benchmarks.gpu.timeline import Timeline, steps_per_second
from jetscale.common.config_safety import CONF
from jetscale.common.paper import WIDTHS
from jetscale.runs.metrics import MetricsLine, MetricsLog
from jetscale.training.settings import EvalSettings


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_what_was_measured_is_kept_and_what_has_no_time_is_told(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    session = Session(out, 1.2)
    files: list[Any] = []

    def row(seconds: float) -> dict[str, float]:
        files.append(json.loads(out.read_text()) if out.exists() else None)
        time.sleep(seconds)
        return {"ms": seconds}

    def part() -> None:
        session.row("steps", "8", lambda: row(0.7))
        session.row("steps", "16", lambda: row(0.7))
        session.row("runs", "8", lambda: row(1 / 0))
        raise KeyError("width")

    session.part("steps", part)
    assert len(files) == 1, "half a second was left for a row that takes 0.7 s"
    found = json.loads(out.read_text())
    assert found["steps"]["8"] == {"ms": 0.7}
    assert found["steps"]["16"] == {"error": NO_TIME}
    assert found["steps"]["error"] == "KeyError: 'width'"
    assert found["runs"]["8"]["error"].startswith("ZeroDivisionError")
    assert measured(found["steps"]) == {8: {"ms": 0.7}}
    assert _table(found).row_count == 1


def test_the_time_until_a_share_of_it_has_run(tmp_path: Path) -> None:
    session = Session(tmp_path / "gpu.json", 100.0, time.monotonic() - 20.0)
    assert session.until(0.5) == pytest.approx(30.0, abs=1.0)
    assert session.until(0.1) == 0.0
    assert session.left == pytest.approx(80.0, abs=1.0)


def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    commands = [(["sh", "-c", "sleep 60 & echo $!; wait"], tmp_path), (["sleep", "60"], tmp_path)]
    with running(commands) as processes:
        while not processes[0].printed().endswith("\n"):
            time.sleep(0.01)
        child = int(processes[0].printed())
        with pytest.raises(RuntimeError, match=f"not done after 0 s: {child}"):
            succeed(processes[0], 0.1)
        assert alive(child)
    assert all(process.poll() == -9 for process in processes)
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)


class Stuck:
    """A command that no signal ends."""

    pid = 2**22 + 1  # larger than any process number

    def poll(self) -> None:
        return None

    def wait(self, timeout: float) -> int:
        raise subprocess.TimeoutExpired("stuck", timeout)

    def printed(self) -> str:
        return ""


def test_a_killed_command_that_does_not_end_takes_no_result_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *arguments: killed.append(arguments))
    with running([((), Path())] * 2, lambda *_: Stuck()) as processes:
        assert card.ended(processes[0], 0.0)["error"] == "not done after 0 s"
    assert killed == [(Stuck.pid, signal.SIGKILL)] * 3
    assert capsys.readouterr().err == f"process {Stuck.pid} was killed and has not ended\n" * 3


def test_each_call_writes_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.gpu.__main__.FOLDER", tmp_path)
    monkeypatch.setattr("benchmarks.gpu.__main__._parts", lambda *_: {"card": lambda: None})
    monkeypatch.setattr("benchmarks.gpu.__main__._tests", lambda: (["true"], tmp_path))
    monkeypatch.setattr("benchmarks.gpu.__main__.jets", lambda work: work)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("TRITON_CACHE_DIR", "")  # which a call sets for itself
    (tmp_path / "gpu.json").write_text("measured before")
    named = tmp_path / "named.json"
    named.write_text("measured before")
    calls = (), (), ("--agreement",), ("--quick",), ("--agreement",), ("--quick", "--out", str(named))
    for words in calls:
        monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *words])
        main()
    written = [
        Path(line.removeprefix("written: ")).name
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("written: ")
    ]
    assert written == [
        "gpu_2.json", "gpu_3.json",
        "gpu_agreement.json", "gpu_quick.json", "gpu_agreement_2.json", "named.json",
    ]  # fmt: skip
    assert (tmp_path / "gpu.json").read_text() == "measured before"
    limits = [json.loads((tmp_path / name).read_text())["limit_s"] for name in written]
    assert limits == [360.0, 360.0, 300.0, 120.0, 300.0, 120.0]


def test_commands_find_this_checkout_and_tell_why_they_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    words = [sys.executable, "-c", "import benchmarks.measure as here; print(here.__file__); exit(3)"]
    with (
        running([(words, tmp_path)]) as (process,),
        pytest.raises(RuntimeError, match=r"exit status 3: .*/benchmarks/measure\.py"),
    ):
        succeed(process, 60)


def test_tests_that_ended_are_counted_when_the_time_is_over(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import time, pytest\n"
        "pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings('ignore')]\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "@pytest.mark.skip\n"
        "def test_skipped(): pass\n"
        "def test_long(): open('begun', 'w'); time.sleep(60)\n"
    )

    with running([(card.command_of_tests([tmp_path / "test_some.py"]), tmp_path)]) as (process,):
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        time.sleep(0.5)
        found = card.ended(process, 0.1)
        assert process.poll() is not None
    counts = {word: found[word] for word in ("passed", "failed", "skipped")}
    assert counts == {"passed": 1, "failed": 1, "skipped": 1}
    assert found["error"] == "not done after 0 s"
    assert "test_bad" in found["tail"]
    one_process = (
        "t.py::test_good PASSED        [ 50%]\nt.py::test_bad FAILED   [100%]\nFAILED t.py::test_bad"
    )
    assert card.outcomes(one_process) == {"passed": 1, "failed": 1}


def test_the_files_with_tests_for_a_card_are_found() -> None:
    names = {path.name for path in card.files_of_tests()}
    assert {"test_on_gpu.py", "test_attention.py", "test_step.py"} <= names
    assert "test_simd.py" not in names


STEP, CHECKPOINT, EVALUATION = 0.002, 0.030, 0.050


def timeline(began: float = 0.0, steps: int = 1_000, step: float = STEP) -> Timeline:
    """Lines each 10 steps, checkpoints each 100 (not the last), test losses after 200 and 450."""
    lines = []
    seconds = 0.0
    for number in range(10, steps + 1, 10):
        seconds += 10 * step
        lines.append({"step": number, "seconds": seconds, "loss": 1.0})
        seconds += CHECKPOINT * (number % 100 == 0) + EVALUATION * (number in (200, 450))
    return Timeline(lines, frozenset({200, 450}), began)


def test_steps_and_checkpoints_are_told_apart() -> None:
    assert timeline().step_ms(100) == pytest.approx(1e3 * STEP)
    assert timeline().checkpoint_ms(100) == pytest.approx(1e3 * CHECKPOINT)
    assert timeline().checkpoint_ms(10_000) is None
    assert timeline(began=5.0).first_line() == pytest.approx(5.02)


def test_rates_add_up_over_the_time_that_all_runs_share() -> None:
    late = timeline(began=1.0, step=2 * STEP)
    # from 1.04 s, the first line of the late one, to the last line of the other
    end = timeline().lines[-1]["seconds"]
    done = 1_000 - np.interp(1.04, *zip(*((x["seconds"], x["step"]) for x in timeline().lines), strict=True))
    done += np.interp(end - 1, *zip(*((x["seconds"], x["step"]) for x in late.lines), strict=True)) - 10
    assert steps_per_second([timeline(), late]) == pytest.approx(done / (end - 1.04))
    alone = steps_per_second([timeline()])
    assert steps_per_second([timeline(), timeline()]) == pytest.approx(2 * alone)
    with pytest.raises(ValueError, match="take more steps"):
        steps_per_second([timeline(), timeline(began=9.0)])


def test_the_grid_is_that_of_the_paper() -> None:
    budget = yaml.safe_load((CONF / "budget" / "paper.yaml").read_text())
    assert budget["finetune"]["steps"] == grid.FINETUNE_STEPS
    assert budget["pretrain"]["steps"] == grid.PRETRAIN_STEPS
    assert budget["checkpoint_every"] == grid.CHECKPOINT_EVERY
    test = {**budget["eval"]}
    assert test.pop("jets") == 100_000
    assert len(EvalSettings(**test).evaluation_steps(grid.FINETUNE_STEPS)) == grid.EVALUATIONS
    sweep = yaml.safe_load((CONF / "sweep" / "paper.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert sweep["model.dim"] == ",".join(map(str, WIDTHS))
    subsets, seeds = (sweep[key].split(",") for key in ("+experiment", "seed"))
    assert len(subsets) * len(seeds) == grid.FINETUNINGS
    assert (len(subsets) - 1) * len(seeds) == grid.PRETRAININGS


def results(dims: tuple[int, ...] = WIDTHS) -> dict[str, Any]:
    run = {"ms": 0.2, "checkpoint_ms": 18.0}
    return {
        "steps": {
            "batch": 128,
            **{str(dim): {"graph_ms": 0.1, "evaluation_ms": 90.0} for dim in dims},
        },
        "runs": {"wandb": "offline", "8": run, "512": {**run, "ms": 0.6}, "64": {"error": NO_TIME}},
        "start": {"8": {"start_s": 10.8}},
        "shared": {
            "8 x 4": {"dim": 8, "steps_per_second": 15_000.0},
            "8 x 8": {"dim": 8, "steps_per_second": 20_000.0},
            "64 x 8": {"error": NO_TIME},
            "512 x 4": {"dim": 512, "steps_per_second": 1_000.0},
        },
    }


def test_hours_of_the_grid() -> None:
    found = grid.hours(results())
    # 19 million steps, 3,800 checkpoints, 25 x 149 evaluations and 25 starts of a width
    rest = (3_800 * 18.0 + 25 * 149 * 90.0 + 25 * 10_800) / 3.6e6
    assert found["hours"][8] == pytest.approx(19e6 * 0.2 / 3.6e6 + rest)
    assert found["hours"][64] == pytest.approx(19e6 * 0.4 / 3.6e6 + rest), "half way from 8 to 512"
    assert found["total"] == pytest.approx(sum(found["hours"].values()))
    assert found["shared_hours"][8] == pytest.approx(found["hours"][8] / 4), "20 steps in the time of 5"
    assert found["shared_hours"][512] == found["hours"][512], "sharing lost there"
    assert found["measured_at"]["run_ms"] == found["measured_at"]["gain"] == [8, 512]


def test_hours_that_cannot_be_told_are_null() -> None:
    some = results((8, 512))
    del some["shared"]["512 x 4"]
    found = grid.hours(some)
    assert found["hours"][8] is not None
    assert found["hours"][64] is None
    assert found["total"] is None
    assert found["shared_hours"][8] is not None
    assert found["shared_hours"][512] is None, "the gain of width 8 is not that of width 512"
    assert grid.hours({})["total"] is None
    some["runs"]["512"]["checkpoint_ms"] = some["runs"]["8"]["checkpoint_ms"] = None
    assert grid.hours(some)["hours"][8] is None


def test_curves_are_compared_as_far_as_both_came() -> None:
    curves = {
        ("captured", 0): [3.0, 2.0, 1.0],
        ("captured", 1): [3.0, 2.2, 1.4],
        ("eager", 0): [3.0, 2.0, 1.3],
        ("float32", 0): [3.1],
    }
    found = agreement.compared(curves)
    assert found["lines"] == {"captured": 3, "eager": 3, "float32": 1}
    assert found["eager_minus_captured"] == pytest.approx(0.3 / 3**0.5)
    assert found["float32_minus_captured"] == pytest.approx(0.1)
    # standard deviations of the lines: 0, 0.1 sqrt(2), 0.2 sqrt(2)
    assert found["scatter_of_seeds"] == pytest.approx((0.1 / 3) ** 0.5)
    assert "scatter_of_seeds" not in agreement.compared({("captured", 0): [1.0]})
    assert "no captured run" in agreement.compared({("eager", 0): [1.0]})["error"]


def test_a_run_without_a_line_of_the_training_loss_costs_no_other_its_curve(tmp_path: Path) -> None:
    """Two runs with a test loss alone, one without any line; of width 16 none is left to compare with."""
    work = tmp_path / "work"
    work.mkdir()
    session = Session(tmp_path / "gpu.json", 300.0)

    class Written:
        """A command that has written its metrics, or nothing."""

        pid = 0

        def __init__(self, words: Sequence[str], folder: Path) -> None:
            splits = {"captured-8-1": ["test"], "captured-8-2": [], "captured-16-0": ["test"]}
            path = folder / bench.directory(runs[folder.name]).relative_to(work)
            path.mkdir(parents=True)
            log = MetricsLog(path / "metrics.jsonl")
            for step, split in enumerate(splits.get(folder.name, ["train"] * 3), 1):
                line = MetricsLine("finetune", step, 1, 1, 1.0, split, "raw", 2.0 / step, None, 0.1, 0.1)
                log.append(line)

        def poll(self) -> int:
            return 0

        def wait(self, timeout: float) -> int:
            return 0

        def printed(self) -> str:
            return ""

    bench = Bench(session, work, tmp_path, Written)
    dims = (16, 8)
    runs = {f"{way}-{dim}-{run.seed}": run for dim in dims for way, run in agreement._ways(dim, 150)}
    session.part("agreement", lambda: agreement.run(bench, dims, 150))
    found = json.loads((tmp_path / "gpu.json").read_text())["agreement"]
    assert [problem.rsplit(" has ")[-1] for problem in found["problems"]] == [
        "no line of the training loss", "no line of the training loss", "no line"
    ]  # fmt: skip
    assert found["16"]["error"] == "no captured run to compare with"
    assert found["16"]["curves"]["captured, seed 1"] == [2.0, 1.0, 2.0 / 3]
    assert found["8"]["lines"] == {"captured": 3, "eager": 3, "float32": 3, "cpu": 3}
    assert "scatter_of_seeds" not in found["8"], "one seed is left"
    assert "error" not in found


def test_the_curves_of_a_width_are_written_before_the_next_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tmp_path / "gpu.json", 300.0)
    seen: list[set[str]] = []

    def compared(curves: Any) -> dict[str, Any]:
        seen.append(
            set(json.loads(session._out.read_text())["agreement"]) if session._out.exists() else set()
        )
        raise IndexError(f"width {len(seen)}")

    monkeypatch.setattr(agreement, "compared", compared)
    monkeypatch.setattr(agreement, "_ways", lambda *_: [])
    session.part("agreement", lambda: agreement.run(Bench(session, tmp_path, tmp_path), (8, 16, 32), 150))
    assert seen == [set(), {"problems", "8"}, {"problems", "8", "16"}]
    assert json.loads(session._out.read_text())["agreement"]["32"] == {"error": "IndexError: width 3"}
