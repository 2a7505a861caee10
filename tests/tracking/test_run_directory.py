from __future__ import annotations

import subprocess
import sys

import pytest

from jetscale.runs.directory import RunDirectory, RunDirectoryError, leave_traceback
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
