from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from jetscale.runs.directory import RunDirectory, RunDirectoryError, holding_library, leave_traceback
from tests.runs import run_record


def test_done_is_found_by_the_same_settings_only(tmp_path):
    mine = RunDirectory(tmp_path, "a" * 64)
    with mine.claim():
        mine.start("seed: 0\n")
        assert mine.done() is None
        mine.finish(run_record())
    assert mine.done() == run_record()
    with pytest.raises(RunDirectoryError, match="study=NAME"):
        RunDirectory(tmp_path, "b" * 64).done()


def test_an_interrupted_run_of_other_settings_is_not_continued(tmp_path):
    RunDirectory(tmp_path, "a" * 64).start("seed: 0\n")
    with pytest.raises(RunDirectoryError, match="other settings"):
        RunDirectory(tmp_path, "b" * 64).start("seed: 1\n")
    assert (tmp_path / "config.yaml").read_text() == "seed: 0\n"


def test_two_processes_never_write_one_run(tmp_path):
    holder = (
        "import sys; from pathlib import Path; from jetscale.runs.directory import RunDirectory\n"
        f"with RunDirectory(Path({str(tmp_path)!r}), 'x').claim():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunDirectoryError, match="another process"), RunDirectory(tmp_path, "x").claim():
            pass
        process.kill()
    with RunDirectory(tmp_path, "x").claim():  # a killed owner frees it
        pass


def test_a_failure_is_told_and_forgotten_on_the_next_start(tmp_path):
    leave_traceback(tmp_path, ValueError("too bad"))
    assert "ValueError: too bad" in (tmp_path / "failed.log").read_text()
    RunDirectory(tmp_path, "x").start("")
    assert not (tmp_path / "failed.json").exists()


@pytest.mark.parametrize("variants", [(), ("finetune.lr=0.003",), ("finetune.lr=0.003", "model.depth=2")])
def test_the_way_out_spares_the_runs_below_it(tmp_path, variants):
    """The folders of a run's variants are inside its own."""
    run = tmp_path / "dim=8/seed=0"
    for folder in (run, *(run / name for name in variants)):
        folder.mkdir(parents=True)
        RunDirectory(folder, "a" * 64).start("")
    (run / "checkpoints").mkdir()
    with pytest.raises(RunDirectoryError) as refused:
        RunDirectory(run, "b" * 64).start("")
    below = {0: "", 1: "another run is", 2: "2 other runs are"}[len(variants)]
    spared = f"{run}/checkpoints and the files in {run} (not the folder, {below} below it)"
    assert f"or remove {spared if variants else run} to run it anew." in str(refused.value)


def test_one_process_at_a_time_chooses_a_folder_of_the_library(tmp_path):
    chosen = []

    def choose():
        with holding_library(tmp_path / "backbones"):
            chosen.append("second")

    with holding_library(tmp_path / "backbones"):
        other = threading.Thread(target=choose)
        other.start()
        other.join(0.3)
        assert other.is_alive()
        chosen.append("first")
    other.join(10)
    assert chosen == ["first", "second"]
