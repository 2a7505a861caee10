"""Runs as a user starts them, several at once if need be, which never outlive the benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from benchmarks.gpu.session import Session
from benchmarks.jet_files import write_file
from jetscale.jets.datasets.jetclass import JETCLASS_PREFIXES
from jetscale.launch.hydra_setup import run_suffix
from jetscale.runs.layout import SWEEPS, Place

ROOT = Path(__file__).parents[2]
JETS_A_CLASS = 2_000
STUDY, SUBSET = "bench", "scratch"
CHECKPOINT_EVERY = 1_000
"""Steps between checkpoints, so that even short runs write some; the paper's runs write fewer."""
PATIENCE = 10.0
"""Seconds for a killed command to end."""
_TOLD = 3_000  # last characters that a failed command printed, for its error


class Running(Protocol):
    """A started command, the leader of its process group."""

    pid: int

    def poll(self) -> int | None:
        """Exit status; None while it runs."""

    def wait(self, timeout: float) -> int:
        """Exit status once it has ended; raises `subprocess.TimeoutExpired`."""

    def printed(self) -> str:
        """What it has printed so far, errors too."""


Start = Callable[[Sequence[str], Path], Running]
"""Starts a command, given by its words, in a folder."""


class Child(subprocess.Popen[bytes]):
    """A command that prints into a file: a pipe that nobody reads would fill up and stop it.

    Parameters
    ----------
    words : the command
    folder : where it runs
    """

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        weakref.finalize(self, self._file.close)
        super().__init__(
            words, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=self._file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def printed(self) -> str:
        """See `Running`."""
        size = os.fstat(self._file.fileno()).st_size  # reading in place: the child writes at its own end
        return os.pread(self._file.fileno(), size, 0).decode(errors="replace")


def environment() -> dict[str, str]:
    """One thread a process, and this checkout importable from any folder."""
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONPATH": os.pathsep.join(places),
    }


@contextmanager
def running(commands: Sequence[tuple[Sequence[str], Path]], start: Start = Child) -> Iterator[list[Running]]:
    """Start commands at once; those that still run at the end are killed, with all that they started.

    Parameters
    ----------
    commands : words and folder of each
    start : starts one
    """
    processes: list[Running] = []
    try:
        for words, folder in commands:
            processes.append(start(words, folder))
        yield processes
    finally:
        for process in processes:
            stop(process)


def stop(process: Running) -> None:
    """Kill a command, with all that it started, if it runs still.

    One that has not ended after `PATIENCE` is left to itself: it may wait for the card inside the driver,
    where no signal reaches it, and what was measured must not be lost with it.

    Parameters
    ----------
    process : the command
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            print(f"process {process.pid} was killed and has not ended", file=sys.stderr, flush=True)


def succeed(process: Running, seconds: float) -> None:
    """Wait for the end of a command.

    Parameters
    ----------
    process : the command
    seconds : how long to wait

    Raises
    ------
    RuntimeError
        It failed, or runs still; the message ends with what it printed last.
    """
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        reason = f"not done after {seconds:.0f} s"
    else:
        if status == 0:
            return
        reason = f"exit status {status}"
    raise RuntimeError(f"{reason}: {process.printed()[-_TOLD:]}")


@dataclass(frozen=True)
class Run:
    """A run from scratch at the paper's batch, rate and lines.

    Attributes
    ----------
    dim, seed, steps : of the run
    more : further overrides, which come after those of `Bench.more`
    """

    dim: int
    seed: int
    steps: int
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """What all runs of a benchmark have in common.

    Attributes
    ----------
    session : takes the rows, and knows the time that is left
    work : folder of the runs
    data : folder of the jets
    start : starts a command
    more : overrides of every run; a test makes them small
    """

    session: Session
    work: Path
    data: Path
    start: Start = Child
    more: tuple[str, ...] = ()

    def overrides(self, run: Run) -> list[str]:
        """What is given to ``python -m jetscale.train``; where a key comes twice, its last value."""
        words = (
            *(f"data.dir={self.data}", "data.repeat=true", f"study={STUDY}"),
            *(f"model.dim={run.dim}", f"seed={run.seed}", f"finetune.steps={run.steps}"),
            *(f"finetune.warmup={min(100, run.steps)}", f"checkpoint_every={CHECKPOINT_EVERY}"),
            *("eval.jets=10000", f"eval.every={run.steps}", "eval.log_points=3", "ema.enabled=true"),
            *("tracking.progress=false", f"tracking.wandb={wandb_mode()}", *self.more, *run.more),
        )
        return list({word.partition("=")[0]: word for word in words}.values())

    def value(self, run: Run, key: str) -> str:
        """What an override of a run sets a key to."""
        return dict(word.split("=", 1) for word in self.overrides(run))[key]

    def words(self, run: Run, *flags: str) -> list[str]:
        """The command of a run."""
        return [sys.executable, "-m", "jetscale.train", *self.overrides(run), *flags]

    def directory(self, run: Run) -> Path:
        """The run directory; copies of a finished run in the files of W&B are below it."""
        suffix = run_suffix(self.overrides(run))
        return self.work / SWEEPS / STUDY / Place(SUBSET, run.dim, run.seed, suffix).path

    def train(self, *runs: Run) -> float:
        """Train runs at once, and return the wall time at which their commands were given.

        Raises
        ------
        RuntimeError
            One failed, or did not end in the time that is left.
        """
        begun = time.time()
        with running([(self.words(run), self.work) for run in runs], self.start) as processes:
            for process in processes:
                succeed(process, self.session.left)
        return begun


def jets(work: Path, jets_a_class: int = JETS_A_CLASS) -> Path:
    """Random jets of ten classes with mean multiplicities of 26 to 62, to train and to test on.

    Parameters
    ----------
    work : where to
    jets_a_class : of each split
    """
    data = work / "data"
    for number, label in enumerate(JETCLASS_PREFIXES):
        for split, offset in (("train_100M", 0), ("test_20M", 100)):
            folder = data / "JetClass" / split
            folder.mkdir(parents=True, exist_ok=True)
            write_file(folder, label, offset + number, jets_a_class, 26 + 4 * number)
    return data


def wandb_mode() -> str:
    """``offline``, which writes all that online mode sends; ``disabled`` where wandb is not installed."""
    return "offline" if find_spec("wandb") else "disabled"
