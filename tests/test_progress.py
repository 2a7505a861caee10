"""What commands say while they work: on a terminal, in a pipe, and of which run."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import resource
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jetscale.analysis.__main__ import main as analyse
from jetscale.common import progress
from jetscale.common.progress import Progress, in_parts, log_above_the_bar, named, step, waiting
from jetscale.launch.hydra_setup import print_status
from jetscale.launch.single_run import next_command, result, run_told
from jetscale.runs.record import FinalLoss
from jetscale.training.settings import TrainSettings
from tests.runs import quiet_environment, run_record
from tests.test_status import begin, plan

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SWEPT = "qcd_res34p dim=512 seed=4 finetune.lr=0.003"


class Screen:
    """Stdout and stderr of this process on a pseudo-terminal."""

    def __init__(self, columns: int, patch: pytest.MonkeyPatch) -> None:
        self.columns = columns
        self._patch = patch
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.set_blocking(self._master, False)
        self.stream = os.fdopen(self._slave, "w", buffering=1)

    def show(self) -> None:
        """Take the place of stdout and stderr; called by the test, since pytest sets them before it."""
        self._patch.setattr(sys, "stdout", self.stream)
        self._patch.setattr(sys, "stderr", self.stream)

    def raw(self) -> str:
        """All that was written since the last call."""
        self.stream.flush()
        time.sleep(0.05)  # the kernel hands it on
        found = b""
        while True:
            try:
                found += os.read(self._master, 1 << 16)
            except BlockingIOError:
                return found.decode()

    def lines(self) -> list[str]:
        """What stays on the screen: of each line what was written last, without what was erased."""
        kept: list[str] = []
        for piece in re.split(r"(\r?\n|\x1b\[1A|\x1b\[2K|\r)", self.raw()):
            if piece in ("\n", "\r\n"):
                kept.append("")
            elif piece == "\x1b[1A":
                kept.pop()
            elif piece == "\x1b[2K":
                kept[-1:] = [""]
            elif piece != "\r":
                kept[-1:] = [(kept[-1] if kept else "") + CONTROL.sub("", piece)]
        return [line for line in kept if line]

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture(params=[80, 120])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    made = Screen(request.param, monkeypatch)
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_console", None)
    yield made
    monkeypatch.undo()
    made.close()


@pytest.fixture
def root_log() -> Iterator[Callable[[Any], logging.Handler]]:
    """Have the root logger write to a stream alone, as Hydra does, and put it back at the end."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def to(stream: Any) -> logging.Handler:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("[%(levelname)s] - %(message)s"))
        root.handlers = [handler]
        root.setLevel(logging.INFO)  # loggers remember what they were not to say until a level is set
        return handler

    yield to
    root.handlers = handlers
    root.setLevel(level)


def test_without_a_terminal_there_are_plain_lines_now_and_then(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with Progress("simulate", 5_000, "jets", every=30, rated=True) as shown:
        for jets in range(0, 5_001, 500):
            shown.update(jets, "2 workers")
            clock[0] += 10
    assert capsys.readouterr().err.splitlines() == [
        "simulate: 1,500 of 5,000 jets, 70 s left, 50 jets/s, 2 workers",
        "simulate: 3,000 of 5,000 jets, 40 s left, 50 jets/s, 2 workers",
        "simulate: 4,500 of 5,000 jets, 10 s left, 50 jets/s, 2 workers",
        "simulate: 5,000 of 5,000 jets in 2 min, 50 jets/s, 2 workers",
    ]


def test_an_error_or_nothing_to_do_leaves_no_closing_line(capsys):
    shown = Progress("simulate", 10, "jets")
    shown.__enter__()
    shown.update(10)
    shown.__exit__(KeyError, KeyError(), None)
    with Progress("simulate", 0, "jets"):
        pass
    assert capsys.readouterr() == ("", "")


def test_time_left_counts_what_this_start_has_done(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    said: list[str] = []
    with Progress("training", 1_000, "steps", say=said.append, every=0, done=900) as shown:
        clock[0] = 10.0
        shown.update(950)
    assert said == ["training: 950 of 1,000 steps, 10 s left"]


def test_a_bar_fits_its_terminal_and_goes(screen):
    screen.show()
    with named(SWEPT), Progress("fine-tuning", 600_000, "steps", say=progress.to_stderr) as shown:
        shown.update(300_000, "loss 1.2345, 20,000 jets/s")
        time.sleep(0.7)  # it is drawn twice a second
        drawn = screen.raw()
        shown.update(600_000, "loss 1.2345, 20,000 jets/s")
    bars = [CONTROL.sub("", part) for part in re.split(r"[\r\n]+", drawn) if "50%" in part]
    assert bars
    assert all(bar.startswith(f"{SWEPT} fine-tuning ") for bar in bars)
    assert all(len(bar) <= screen.columns - 3 for bar in bars)
    assert ("━" in bars[-1]) == (screen.columns == 120)  # where room is short the bar goes first
    left = screen.lines()
    assert left == [f"{SWEPT} fine-tuning: 600,000 of 600,000 steps in 1 s, loss 1.2345, 20,000 jets/s"]


def test_several_processes_on_one_terminal_write_lines(screen, monkeypatch):
    screen.show()
    monkeypatch.setattr(progress, "_bars", True)
    progress.without_bars()
    with named("qcd dim=8 seed=1"), Progress("fine-tuning", 10, "steps", every=0) as shown:
        shown.update(5)
        shown.update(10)
    raw = screen.raw()
    assert "\x1b" not in raw
    first, last = raw.splitlines()
    assert first.startswith("qcd dim=8 seed=1 fine-tuning: 5 of 10 steps, ")
    assert last.startswith("qcd dim=8 seed=1 fine-tuning: 10 of 10 steps in ")


def test_work_inside_other_work_has_no_second_bar(screen):
    screen.show()
    with Progress("outer", 2, "things", say=None), Progress("inner", 2, "things", say=None):
        time.sleep(0.6)
    raw = screen.raw()
    assert "outer" in raw
    assert "inner" not in raw


def test_steps_and_parts(monkeypatch):
    step("nobody watches")
    said: list[str] = []
    with Progress("analysis", 4, "fits", say=said.append, every=0) as shown:
        for name, size in (("one", 1.0), ("two", 2.0), ("three", 1.0)):
            step(name, size)
    assert shown.done == 3  # the last step is not known to be over
    assert [text.rpartition(", ")[2] for text in said] == ["one", "two", "three"]
    parts: list[str] = []
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0)
    with in_parts("store", say=parts.append) as report:
        report("reading", 0, 2_000_000)
        report("reading", 2_000_000, 2_000_000)
        report("mixing", 500_000, 1_000_000)
    assert progress._open == []


def test_a_wait_is_told_where_it_takes_long(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.05)
    said: list[str] = []
    with named("qcd dim=8 seed=0"), waiting("importing PyTorch", said.append):
        time.sleep(0.3)
    with waiting("nothing", said.append):
        pass
    time.sleep(0.2)
    assert said == ["qcd dim=8 seed=0: importing PyTorch ..."]


def test_the_log_writes_short_lines_above_the_bar(screen, root_log):
    screen.show()
    root_log(screen.stream)
    log_above_the_bar()
    with named("qcd dim=8 seed=0"), Progress("fine-tuning", 10, "steps", say=None) as shown:
        shown.update(5)
        logging.getLogger("jetscale").info("going on after step %d", 5)
        logging.getLogger("jetscale").warning("a [strange] file")
        logging.getLogger("jetscale").info("qcd dim=8 seed=0: named already")
        logging.getLogger("numexpr.utils").info("NumExpr defaulting to 2 threads.")
    assert screen.lines() == [
        "qcd dim=8 seed=0: going on after step 5",
        "warning: qcd dim=8 seed=0: a [strange] file",
        "qcd dim=8 seed=0: named already",
    ]


def test_a_log_in_a_pipe_stays_as_it_is(capsys, root_log):
    handler = root_log(sys.stdout)
    log_above_the_bar()
    logging.getLogger("jetscale").info("going on")
    assert logging.getLogger().handlers == [handler]
    assert capsys.readouterr().out == "[INFO] - going on\n"


def tiny(jets: Path) -> TrainSettings:
    settings = TrainSettings()
    settings.data.dir = str(jets)
    settings.model.dim = 8
    for key, value in {"steps": 40, "batch_size": 8, "warmup": 2}.items():
        setattr(settings.finetune, key, value)
    settings.eval.jets, settings.eval.every = 100, 20
    settings.tracking.log_every, settings.tracking.wandb = 5, "disabled"
    settings.device.accelerator = "cpu"
    return settings


@pytest.mark.parametrize("screen", [80], indirect=True)
def test_a_run_on_a_terminal(screen, root_log, simulated_data, tmp_path, monkeypatch):
    screen.show()
    monkeypatch.chdir(tmp_path)
    root_log(screen.stream)
    log_above_the_bar()
    run = tmp_path / "multirun/paper/scratch/dim=8/seed=0"
    record = run_told(tiny(simulated_data), run, budget="smoke")
    final = record.final["raw"]
    ended = f"test loss {final.loss:.4f}, accuracy {final.accuracy:.1%}; 100 test jets"
    # waits, and what takes long, on a busy machine
    told = [line for line in screen.lines() if "..." not in line and ": packing " not in line]
    assert told[:2] == [
        "scratch dim=8 seed=0: budget=smoke, in multirun/paper/scratch/dim=8/seed=0",
        f"scratch dim=8 seed=0: N={record.n_params['total']:,}, fine-tuning 320 jets, CPU, 1 thread",
    ]
    assert told[2].startswith("scratch dim=8 seed=0 fine-tuning: 40 of 40 steps in ")
    assert told[3:] == [f"scratch dim=8 seed=0: done, {ended}"]
    assert next_command(run).endswith("evaluate run=multirun/paper/scratch/dim=8/seed=0")


def test_a_run_in_a_pipe(train, tmp_path):
    done = train("+experiment=scratch", "budget=smoke", "model.dim=8", "tracking.wandb=disabled")
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == ""
    told = [line.partition("] - ")[2] for line in done.stdout.splitlines()]
    assert told[0] == "scratch dim=8 seed=0: budget=smoke, in multirun/smoke/scratch/dim=8/seed=0"
    assert told[-1] == "next: python -m jetscale.tagger evaluate run=multirun/smoke/scratch/dim=8/seed=0"
    assert told[-2].startswith("scratch dim=8 seed=0: done, test loss ")
    assert (tmp_path / told[-1].partition("run=")[2] / "done.json").is_file()


def test_the_first_line_needs_no_pytorch(tmp_path):
    program = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv[0] = 'jetscale.train'; "
        "runpy.run_module('jetscale.train', run_name='__main__')"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program, "+experiment=qcd", "budget=smoke"],
        cwd=tmp_path, capture_output=True, text=True, env=quiet_environment(),
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "qcd dim=64 seed=0: budget=smoke, in multirun/smoke/qcd/dim=64/seed=0" in done.stdout
    assert "import of torch halted" in done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


def test_how_a_run_ended_in_words():
    both = {
        "raw": FinalLoss(loss=1.5, accuracy=0.5, jets=1_200),
        "ema": FinalLoss(loss=1.25, accuracy=0.625, jets=1_200),
    }
    assert result(run_record(final=both)) == (
        "done, test loss 1.5000, accuracy 50.0%; averaged weights 1.2500, 62.5%; 1,200 test jets"
    )
    assert result(run_record(final=None)) == "done"


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (("done", "done"), "python -m jetscale.analysis source=local 'path={}'"),
        (
            ("done", "failed"),
            "the same command again, which goes on where this one stopped, and tries",
        ),
        (("done", "waiting"), "the same command again, which goes on where this one stopped"),
    ],
)
def test_a_sweep_ends_with_the_next_command(tmp_path, capsys, states, told):
    sweep = tmp_path / "my sweep"
    names = [f"scratch/dim=8/seed={seed}" for seed in range(len(states))]
    plan(sweep, *names)
    for name, state in zip(names, states, strict=True):
        if state == "done":
            run = begin(sweep / name)
            (run / "done.json").write_text('{"final": {"raw": {"loss": 1.5}}, "steps": 400}')
        elif state == "failed":
            (begin(sweep / name) / "failed.json").write_text('{"error": "E", "message": "m"}')
    print_status(sweep)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"next: {told.format(sweep)}")


def test_the_device_is_named():
    from jetscale.launch.single_run import _device

    several = SimpleNamespace(accelerator="cpu", devices=2, num_nodes=2, threads=3)
    assert _device(several) == "4 x CPU, 3 threads"  # type: ignore[arg-type]  # of a machine with 4


def scaling_table(path: Path) -> Path:
    rows = ["subset,N,D,loss"]
    for subset, floor in (("bsm_all", 0.3), ("scratch", 0.4)):
        for n_params in (1e3, 4e3, 1.6e4, 6.4e4):
            for jets in (1e4, 4e4, 1.6e5, 6.4e5):
                loss = floor + 4 * n_params**-0.3 + 6 * jets**-0.25
                rows.append(f"{subset},{n_params},{jets},{loss * (1 + 1e-3 * (len(rows) % 3))}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("screen", [80], indirect=True)
def test_an_analysis_shows_its_steps_and_counts_all_of_them(screen, tmp_path, monkeypatch):
    screen.show()
    told: list[tuple[str, float]] = []
    totals: list[float] = []
    original = Progress.step

    def noted(self: Progress, what: str, size: float = 1.0) -> None:
        original(self, what, size)
        told.append((what, size))
        totals.append(self.total)
        if self._live is not None:
            self._live.refresh()

    monkeypatch.setattr(Progress, "step", noted)
    table = scaling_table(tmp_path / "losses.csv")
    few = ["uncertainty.replicates=20", "joint.replicates=20", "uncertainty.test_jet_samples=0"]
    quick = ["uncertainty.profile=false", "report=false", *few]
    analyse(["source=table", f"path={table}", f"out={tmp_path / 'out'}", *quick])
    assert [what for what, _ in told if what.startswith(("fit", "joint"))] == [
        "fit 1 of 2, bsm_all", "fit 2 of 2, scratch", "fits under other choices", "joint fit",
    ]  # fmt: skip
    assert sum(size for _, size in told) == pytest.approx(totals[-1])
    raw = screen.raw()
    assert re.search(r"analysis .*25%, [0-9]+ s left, fit 2 of 2, scratch", CONTROL.sub("", raw))
    assert all(len(line) <= 77 for line in CONTROL.sub("", raw).splitlines() if "analysis " in line)


def test_an_analysis_in_a_pipe_writes_nothing_beside_its_answer(capsys, tmp_path):
    table = scaling_table(tmp_path / "losses.csv")
    simple = ["uncertainty.method=none", "joint=false", "multiverse=false", "report=false"]
    analyse(["source=table", f"path={table}", f"out={tmp_path / 'out'}", *simple])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "\x1b" not in printed.out
    assert printed.out.splitlines()[-1] == str(tmp_path / "out/results.json")
