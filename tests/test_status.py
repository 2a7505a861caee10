"""`jetscale.status` on directories that real runs leave, and on states that are hard to catch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jetscale.common.progress import duration, percent
from jetscale.runs.done import write_done
from jetscale.runs.record import FinalLoss
from jetscale.status.as_json import as_json
from jetscale.status.sweep import Watcher
from jetscale.status.terminal import render
from tests.runs import TINY, run_record
from tests.terminal import Terminal

COMMAND = [sys.executable, "-m", "jetscale.status"]


def status(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def look(sweep: Path) -> dict[str, Any]:
    return as_json(Watcher(sweep).look())


def states(sweep: Path) -> dict[str, str]:
    return {run["directory"]: run["state"] for run in look(sweep)["runs"]}


def one(sweep: Path) -> dict[str, Any]:
    (run,) = look(sweep)["runs"]
    return run


def shown(sweep: Path, width: int = 120, height: int | None = None) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(render(Watcher(sweep).look(), height))
    return capture.get()


def line(
    phase: str, step: int, seconds: float, split: str = "train", weights: str = "raw", loss: float = 2.0
):
    return {
        "phase": phase, "step": step, "jets": 10 * step, "flops": 1.0, "split": split,
        "weights": weights, "loss": loss, "seconds": seconds,
    }  # fmt: skip


def plan(sweep: Path, *names: str, pretrain: int = 100, finetune: int = 400) -> None:
    runs = []
    for name in names:
        subset, dim, seed = name.split("/")
        steps = {"pretrain": 0 if subset == "scratch" else pretrain, "finetune": finetune}
        facts = {"subset": subset, "dim": int(dim[4:]), "seed": int(seed[5:])}
        runs.append({"directory": name, **facts, "steps": steps})
    sweep.mkdir(parents=True, exist_ok=True)
    (sweep / "plan.json").write_text(json.dumps({"runs": runs}))


def begin(directory: Path, *lines: dict[str, Any], torn: str = "") -> Path:
    directory.mkdir(parents=True)
    (directory / "identity.json").write_text('{"identity": "x"}')
    if lines or torn:
        (directory / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines) + torn)
    return directory


def own(directory: Path, pid: int, host: str | None = None, ago: float = 0.0, beat: int = 1) -> None:
    started = datetime.now(UTC) - timedelta(seconds=ago)
    record = {"host": host or socket.gethostname(), "pid": pid, "started": started.isoformat(), "beat": beat}
    (directory / "owner.json").write_text(json.dumps(record | {"job": None}))
    os.utime(directory / "owner.json", (time.time() - ago, time.time() - ago))


@pytest.mark.slow
def test_real_runs(train, tmp_path):
    overrides = (*TINY, "ema.enabled=true", "finetune.lr=1e-3,1e30")  # the second blows up
    train("-m", "+experiment=bsm_all", *overrides, check=False)
    sweep = tmp_path / "multirun/smoke"
    done, failed = sorted(look(sweep)["runs"], key=lambda run: run["state"])
    assert (done["state"], failed["state"]) == ("done", "failed")
    assert "the loss of step" in failed["error"]
    run = sweep / done["directory"]
    final = json.loads((run / "done.json").read_text())["final"]
    assert done["test_loss"] == {weights: final[weights]["loss"] for weights in ("raw", "ema")}
    assert done["steps"] == {
        "pretrain": {"made": 24, "planned": 24},
        "finetune": {"made": 40, "planned": 40},
    }

    (run / "done.json").unlink()  # as if it was killed before its last act
    (killed,) = (found for found in look(sweep)["runs"] if found["directory"] == done["directory"])
    assert (killed["state"], killed["phase"], killed["run_seconds_left"]) == ("interrupted", "finetune", 0.0)
    assert killed["steps"] == done["steps"]
    assert killed["test_loss"] == done["test_loss"]
    assert killed["jets_per_second"] > 0

    (run / "metrics.jsonl").unlink()  # and as it was while its backbone was being made
    (library,) = (tmp_path / "multirun/backbones").glob("*-dim=*")
    written = (library / "metrics.jsonl").read_text().splitlines(keepends=True)
    (library / "metrics.jsonl").write_text("".join(written[:2]))
    for directory in (run, library):
        own(directory, os.getpid())
    (running,) = (found for found in look(sweep)["runs"] if found["directory"] == done["directory"])
    assert (running["state"], running["phase"]) == ("running", "pretrain")
    assert running["steps"]["pretrain"] == {"made": 10, "planned": 24}
    assert running["test_loss"] == {"raw": None, "ema": None}
    assert "pretraining 41%" in shown(sweep)


def test_waiting_runs_come_from_the_plan(tmp_path):
    sweep = tmp_path / "multirun/s"
    plan(sweep, "scratch/dim=8/seed=0", "scratch/dim=8/seed=1")
    begin(sweep / "scratch/dim=8/seed=0")
    assert states(sweep) == {"scratch/dim=8/seed=0": "interrupted", "scratch/dim=8/seed=1": "waiting"}
    (sweep / "plan.json").write_text('{"runs": [{"dire')
    content = look(sweep)
    assert content["counts"]["waiting"] is None
    assert not content["planned"]
    assert content["run_seconds_left"] is None
    assert any("plan.json" in note for note in content["notes"])
    assert "waiting unknown" in shown(sweep)


def test_a_living_owner_is_running_and_a_killed_one_is_not(tmp_path):
    run = begin(tmp_path / "s/scratch/dim=8/seed=0")
    with subprocess.Popen(["sleep", "60"]) as process:
        own(run, process.pid)
        assert one(tmp_path / "s")["state"] == "running"
        assert one(tmp_path / "s")["owner"] == {"host": socket.gethostname(), "pid": process.pid, "job": None}
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert one(tmp_path / "s")["state"] == "interrupted"  # dead, though nobody has waited for it
    assert one(tmp_path / "s")["state"] == "interrupted"


def test_a_later_process_with_the_same_id_is_not_the_owner(tmp_path):
    run = begin(tmp_path / "s/scratch/dim=8/seed=0")
    with subprocess.Popen(["sleep", "60"]) as process:
        own(run, process.pid, ago=3600.0)  # the record is older than the process
        assert one(tmp_path / "s")["state"] == "interrupted"
        process.kill()


def test_on_another_host_the_beat_tells(tmp_path):
    run = begin(tmp_path / "s/scratch/dim=8/seed=0")
    own(run, 1, host="elsewhere", ago=20.0)
    assert one(tmp_path / "s")["state"] == "running"
    own(run, 1, host="elsewhere", ago=90.0)
    assert one(tmp_path / "s")["state"] == "interrupted"
    own(run, 1, host="elsewhere", ago=-86400.0)  # a clock that was set back: not running for a day
    assert one(tmp_path / "s")["state"] == "interrupted"


def test_a_beat_seen_to_change_beats_every_clock(tmp_path):
    run = begin(tmp_path / "s/scratch/dim=8/seed=0")
    watcher = Watcher(tmp_path / "s")
    own(run, 1, host="elsewhere", ago=7200.0, beat=1)
    assert watcher.look().counts["running"] == 0
    own(run, 1, host="elsewhere", ago=7185.0, beat=2)
    assert watcher.look().counts["running"] == 1


def test_a_running_run_forgets_its_last_failure(tmp_path):
    run = begin(tmp_path / "s/scratch/dim=8/seed=0")
    (run / "failed.json").write_text('{"error": "ValueError", "message": "too bad\\nsecond line"}')
    assert one(tmp_path / "s")["error"] == "ValueError: too bad"
    own(run, os.getpid())
    assert one(tmp_path / "s")["state"] == "running"


def test_torn_and_damaged_lines(tmp_path):
    run = begin(
        tmp_path / "s/scratch/dim=8/seed=0", line("finetune", 10, 1.0, "test", loss=1.5), torn='{"phase": "fi'
    )
    assert one(tmp_path / "s")["test_loss"]["raw"] == 1.5
    assert look(tmp_path / "s")["notes"] == []  # being written: nothing to tell
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write("\x00\x00garbage\n" + json.dumps(line("finetune", 20, 2.0, "test", loss=1.25)) + "\n")
    assert one(tmp_path / "s")["test_loss"]["raw"] == 1.25
    assert "metrics.jsonl has a damaged line (not a JSON object)" in look(tmp_path / "s")["notes"][0]


@pytest.mark.parametrize("name", ["done.json", "failed.json", "owner.json", "plan.json", "config.yaml"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe\x00", b"{}", b'{"final": 3}'])
def test_no_content_of_any_file_is_a_crash(tmp_path, name, content):
    sweep = tmp_path / "s"
    run = begin(sweep / "scratch/dim=8/seed=0", line("finetune", 10, 1.0))
    (sweep / name if name == "plan.json" else run / name).write_bytes(content)
    assert shown(sweep)
    json.dumps(look(sweep), allow_nan=False)
    readable = content in (b"{}", b'{"final": 3}')
    if not readable or name in ("owner.json", "plan.json"):
        assert name in " ".join(look(sweep)["notes"])


def test_a_done_marker_that_cannot_be_read_is_a_failure_that_names_the_way_out(tmp_path):
    run = begin(tmp_path / "s/scratch/dim=8/seed=0")
    (run / "done.json").write_text("{")
    assert one(tmp_path / "s")["state"] == "failed"
    assert "remove it" in one(tmp_path / "s")["error"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_a_note(tmp_path):
    begin(tmp_path / "s/scratch/dim=8/seed=0")
    locked = begin(tmp_path / "s/scratch/dim=8/seed=1")
    locked.chmod(0)
    try:
        assert "seed=1" in " ".join(look(tmp_path / "s")["notes"])
    finally:
        locked.chmod(0o700)


def test_a_directory_in_the_place_of_a_file_is_a_note(tmp_path):
    run = begin(tmp_path / "s/scratch/dim=8/seed=0")
    (run / "metrics.jsonl").mkdir()
    assert "metrics.jsonl" in " ".join(look(tmp_path / "s")["notes"])


def test_rates_and_time_left_follow_the_lines_own_seconds(tmp_path):
    sweep = tmp_path / "s"
    plan(sweep, "scratch/dim=8/seed=0", "scratch/dim=8/seed=1", "scratch/dim=16/seed=0", finetune=400)
    lines = [
        line("finetune", 100, 10.0),
        line("finetune", 100, 30.0, "test"),  # an evaluation of 20 s
        line("finetune", 200, 40.0),
    ]
    own(begin(sweep / "scratch/dim=8/seed=0", *lines), os.getpid())
    for name in ("metrics.jsonl", "identity.json"):
        os.utime(sweep / "scratch/dim=8/seed=0" / name, (4e9, 4e9))  # no file time matters
    first, second, unknown = look(sweep)["runs"]
    assert first["jets_per_second"] == pytest.approx(100.0)  # 1,000 jets in 10 s of training
    assert first["run_seconds_left"] == pytest.approx(200 * 40.0 / 200)  # evaluations take time too
    assert second["run_seconds_left"] == pytest.approx(400 * 40.0 / 200)
    assert unknown["run_seconds_left"] is None
    assert look(sweep)["seconds_left"] is None
    assert "time left: unknown (a phase of width 16 has no measured speed yet)" in shown(sweep, 160)


def test_time_left_is_shared_by_the_runs_at_once(tmp_path):
    sweep = tmp_path / "s"
    names = [f"scratch/dim=8/seed={seed}" for seed in range(5)]
    plan(sweep, *names, finetune=400)
    for name in names[:2]:
        own(begin(sweep / name, line("finetune", 200, 20.0)), os.getpid())
    content = look(sweep)
    assert content["run_seconds_left"] == pytest.approx(20 + 20 + 3 * 40)
    assert content["seconds_left"] == pytest.approx(80)
    assert content["progress"] == pytest.approx(0.2)


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 1e-9, None, "soon", 1e400])
def test_no_time_is_ever_negative(tmp_path, seconds):
    sweep = tmp_path / "s"
    plan(sweep, "scratch/dim=8/seed=0", finetune=10)
    lines = [line("finetune", 5, 3.0), line("finetune", 20, seconds)]  # beyond the plan, and back in time
    own(begin(sweep / "scratch/dim=8/seed=0", *lines), os.getpid())
    run = one(sweep)
    assert run["run_seconds_left"] == 0.0
    assert run["progress"] == 1.0
    assert run["jets_per_second"] is None or run["jets_per_second"] > 0


def test_the_steps_of_a_capped_run_come_from_the_plan(tmp_path):
    sweep = tmp_path / "s"
    run = begin(sweep / "scratch/dim=8/seed=0", line("finetune", 50, 1.0))
    (run / "config.yaml").write_text("finetune: {steps: 400}\npretrain: {steps: 9, composition: null}\n")
    assert one(sweep)["progress"] == pytest.approx(50 / 400)
    plan(sweep, "scratch/dim=8/seed=0", finetune=100)
    assert one(sweep)["progress"] == pytest.approx(0.5)


def test_the_newest_test_loss_is_found_far_from_the_end(tmp_path):
    lines = [line("finetune", 1, 0.1, "test", loss=1.75)]
    lines += [line("finetune", step, 0.1 * step) for step in range(2, 2000)]
    begin(tmp_path / "s/scratch/dim=8/seed=0", *lines)
    assert (tmp_path / "s/scratch/dim=8/seed=0/metrics.jsonl").stat().st_size > 2 * 64 * 1024
    assert one(tmp_path / "s")["test_loss"]["raw"] == 1.75


def test_a_backbone_is_told_by_its_composition_not_by_the_name_that_its_folder_has(tmp_path):
    sweep, library = tmp_path / "multirun/s", tmp_path / "multirun/backbones"
    plan(sweep, "bb/dim=8/seed=0")
    run = begin(sweep / "bb/dim=8/seed=0")
    (run / "config.yaml").write_text("pretrain: {composition: {QCD: 1}}\n")
    for name, composition, step in (("aa", "QCD", 30), ("zz", "Res2P", 70)):
        made = begin(library / f"{name}-dim=8-seed=0-{name}", line("pretrain", step, 1.0))
        (made / "config.yaml").write_text(f"pretrain: {{composition: {{{composition}: 1}}}}\n")
        own(made, os.getpid())
    own(run, os.getpid())
    assert one(sweep)["phase"] == "pretrain"
    assert one(sweep)["steps"]["pretrain"] == {"made": 30, "planned": 100}


def test_variants_and_other_folders(tmp_path):
    sweep = tmp_path / "multirun/s"
    begin(sweep / "scratch/dim=8/seed=0")
    begin(sweep / "scratch/dim=8/seed=0/finetune.lr=0.003")
    begin(sweep / "scratch/dim=8/seed=0/wandb/nothing/dim=8/seed=7")
    begin(tmp_path / "multirun/backbones/qcd-dim=8-seed=0-0123456789ab")
    assert [run["variant"] for run in look(sweep)["runs"]] == ["", "finetune.lr=0.003"]
    assert len(look(sweep)["groups"]) == 2
    assert len(look(tmp_path / "multirun")["runs"]) == 2


def finished(folder: Path, **facts: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps(line("finetune", 40, 2.0, "test")) + "\n")
    write_done(folder, run_record(**facts), "identity")
    return folder


def test_a_copy_of_a_run_is_counted_once(tmp_path):
    """Copied to another seed's folder, its loss would enter the mean twice."""
    sweep = tmp_path / "multirun/s"
    loss = {"final": {"raw": FinalLoss(loss=1.0, accuracy=None, jets=8)}}
    finished(sweep / "scratch/dim=8/seed=0")
    finished(sweep / "scratch/dim=8/seed=1", seed=1, **loss)
    shutil.copytree(sweep / "scratch/dim=8/seed=0", sweep / "scratch/dim=8/seed=5")
    shutil.copytree(sweep / "scratch/dim=8/seed=0", sweep / "scratch/dim=8/seed=0 (copy)")
    seen = look(sweep)
    assert seen["groups"][0]["test_loss"]["raw"] == pytest.approx((1.5 + 1.0) / 2)
    assert {run["directory"][-6:]: run["state"] for run in seen["runs"]} == {
        "seed=0": "done", "seed=1": "done", "seed=5": "failed",
    }  # fmt: skip
    assert "holds scratch dim=8 seed=0, as scratch/dim=8/seed=0 does" in seen["groups"][0]["error"]
    assert "seed=0 (copy) holds a run, but is not named" in " ".join(seen["notes"])


def test_runs_of_two_sweeps_are_not_averaged(tmp_path):
    for sweep, loss in (("a", 1.0), ("b", 2.0)):
        final = {"raw": FinalLoss(loss=loss, accuracy=None, jets=8)}
        finished(tmp_path / "multirun" / sweep / "scratch/dim=8/seed=0", final=final)
    groups = look(tmp_path / "multirun")["groups"]
    assert [(one["subset"], one["test_loss"]["raw"]) for one in groups] == [
        ("a/scratch", 1.0),
        ("b/scratch", 2.0),
    ]


def test_linked_folders_are_entered_once(tmp_path):
    """Runs moved to a larger disk and linked to belong to the sweep; a second link to them adds nothing."""
    sweep = tmp_path / "multirun/s"
    finished(sweep / "scratch/dim=8/seed=0")
    finished(tmp_path / "disk/qcd/dim=8/seed=0", subset="qcd")
    (sweep / "qcd").symlink_to(tmp_path / "disk/qcd")
    (sweep / "latest").symlink_to(sweep / "scratch")
    (sweep / "round").symlink_to(tmp_path)
    (sweep / "bsm").symlink_to(tmp_path / "removed")
    seen = look(sweep)
    assert [run["directory"] for run in seen["runs"]] == ["qcd/dim=8/seed=0", "scratch/dim=8/seed=0"]
    assert "which leads nowhere" in " ".join(seen["notes"])


def test_json_exit_codes_and_errors(tmp_path):
    run = begin(tmp_path / "s/scratch/dim=8/seed=0")
    good = status(tmp_path / "s", "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["counts"]["interrupted"] == 1
    (run / "failed.json").write_text('{"error": "ValueError", "message": "too bad"}')
    bad = status(tmp_path / "s")
    assert bad.returncode == 1
    assert "ValueError: too bad" in bad.stdout
    (tmp_path / "empty").mkdir()
    for folder, message in (("nowhere", "no such folder"), ("empty", "no run below it")):
        wrong = status(tmp_path / folder)
        assert wrong.returncode == 2
        assert message in wrong.stderr
        assert len(wrong.stderr.splitlines()) == 1
    assert status(tmp_path / "s", "watch=0").returncode == 2


def test_imports_stay_light():
    program = "import sys, jetscale.status.__main__; print(sorted({n.split('.')[0] for n in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    for heavy in ("torch", "lightning", "hydra", "pandas", "pyarrow", "wandb"):
        assert f"'{heavy}'" not in loaded


@pytest.mark.parametrize("width", [80, 120, 160])
def test_the_table_fits(tmp_path, width):
    sweep = tmp_path / "s"
    names = [f"qcd_res34p/dim={dim}/seed={seed}" for dim in (8, 128, 512) for seed in range(3)]
    plan(sweep, *names)
    tests = [line("finetune", 200, 0.1, "test", weights, 1.23456) for weights in ("raw", "ema")]
    own(begin(sweep / names[0], line("finetune", 100, 0.05), *tests), os.getpid())
    failed = begin(sweep / names[1])
    (failed / "failed.json").write_text(json.dumps({"error": "E", "message": "long " * 60}))
    rows = shown(sweep, width).splitlines()
    assert max(map(len, rows)) <= width
    (row,) = (row for row in rows if row.startswith("qcd_res34p   8"))
    assert row.split() == [
        "qcd_res34p",
        "8",
        "0",
        "1",
        "1",
        "0",
        "1",
        "1.2346",
        "1.2346",
        "20,000",
        "20%",
    ]


def test_a_table_higher_than_the_terminal_is_folded(tmp_path):
    sweep = tmp_path / "s"
    names = [f"{subset}/dim={8 * n}/seed=0" for subset in ("qcd", "scratch") for n in range(1, 21)]
    plan(sweep, *names)
    own(begin(sweep / names[3], line("finetune", 10, 1.0)), os.getpid())
    assert len(shown(sweep).splitlines()) > 40
    rows = shown(sweep, height=24).splitlines()
    assert len(rows) <= 24
    assert any("19 dims" in row for row in rows)
    assert any(row.split()[:2] == ["qcd", "32"] for row in rows)


def test_words_for_numbers():
    assert [duration(s) for s in (None, 0.0, 89.4, 90.0, 5340.0, 12000.0, 446400.0)] == [
        "unknown", "0 s", "89 s", "2 min", "89 min", "3h20", "5d04h",
    ]  # fmt: skip
    assert [percent(share) for share in (None, 0.0, 0.999, 1.0, 1.5)] == ["?", "0%", "99%", "100%", "100%"]


def test_on_a_terminal_it_follows_the_sweep_to_its_end(tmp_path):
    sweep = tmp_path / "s"
    plan(sweep, "scratch/dim=8/seed=0", "scratch/dim=8/seed=1")
    terminal = Terminal(*COMMAND, sweep, "watch=0.1")
    terminal.until("0 done, 2 waiting")
    run = begin(sweep / "scratch/dim=8/seed=0", line("finetune", 100, 10.0))
    own(run, os.getpid())
    terminal.until("fine-tuning 25%")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps(line("finetune", 200, 20.0)) + "\n")
    terminal.until("fine-tuning 50%")
    shutil.rmtree(run)  # a folder may go while it is looked at
    terminal.until("0 done, 2 waiting")
    for seed in (0, 1):
        run = begin(sweep / f"scratch/dim=8/seed={seed}")
        (run / "done.json").write_text(json.dumps({"final": {"raw": {"loss": 1.5}}, "steps": 400}))
    terminal.until("2 runs: 2 done")
    assert terminal.close() == 0


def test_control_c_ends_it_cleanly(tmp_path):
    begin(tmp_path / "s/scratch/dim=8/seed=0")
    terminal = Terminal(*COMMAND, tmp_path / "s")
    terminal.until("1 stopped")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.close() == 0
    assert "Traceback" not in terminal.text
    assert "\x1b[?25h" in terminal.text  # the cursor is shown again
