"""SIGKILL at random moments of whole runs, at least fifty of them: nothing is lost, to the last bit."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.runs import TINY, quiet_environment, same_run
from tests.warm import WarmServer

KILLS = 50
RUNS_AT_ONCE = 2
TRAINING = {2: "backbones/*/metrics.jsonl", 4: "run/metrics.jsonl"}  # number of a start, and its file

ARGUMENTS = (
    *TINY, "+experiment=qcd", "data.repeat=true", "pretrain.steps=24", "finetune.steps=48",
    "checkpoint_every=2", "tracking.log_every=3", "eval.every=8", "eval.jets=60", "eval.final_all=true",
)  # fmt: skip


class Kill(NamedTuple):
    """When to kill a start of a run: `seconds` after a file of this pattern has come, or after the start."""

    seconds: float
    file: str = ""


NEVER = Kill(600.0)


def status_when_killed(server: WarmServer, kill: Kill, words: list[str], cwd: Path, root: Path) -> int:
    """Exit status of a run that is killed at a given moment, unless it ends before."""
    process = server.start("jetscale.train", words, cwd, quiet_environment(), session=True)
    try:
        while kill.file and not list(root.glob(kill.file)):
            with suppress(subprocess.TimeoutExpired):
                return process.wait(0.002)
        return process.wait(kill.seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def moment(root: Path) -> str:
    """What a killed run was at, told from its files: the phase, and the file that it was writing."""
    phases = {
        "run/checkpoints/final.*": "final files",
        "run/metrics.jsonl": "fine-tuning",
        "backbones/*/checkpoints/final.*": "end of the backbone",
        "backbones/*/metrics.jsonl": "pretraining",
        "store/*/store.json": "between store and pretraining",
        "store": "store packing",
    }
    phase = next((name for pattern, name in phases.items() if list(root.glob(pattern))), "before any file")
    half = sorted(path.name.split(".")[1] for path in root.rglob(".*.part*"))
    return f"{phase}, in {half[0]}" if half else phase


def one_run(
    server: WarmServer, data: Path, root: Path, kill: Callable[[int], Kill], kills: Counter[str]
) -> None:
    """A run from unpacked jets to its end, start n killed at `kill(n)`; adds to `kills`."""
    root.mkdir()
    arguments = [
        *ARGUMENTS, f"data.dir={data}", f"data.store={root}/store", f"pretrain.library={root}/backbones",
        f"hydra.run.dir={root}/run",
    ]  # fmt: skip
    for start in itertools.count():
        status = status_when_killed(server, kill(start), arguments, root.parent, root)
        if status == 0:
            return
        assert status == -signal.SIGKILL, f"{root}: exit {status}"
        kills[moment(root)] += 1


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL needs no disk, and fifty starts would wait for fsync."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_fifty_random_kills(simulated_data, memory, warm, shared_folder) -> None:
    data = memory / "data"  # without the packed store, which is made under fire too
    data.mkdir()
    for folder in ("JetClass", "JetClassII"):
        (data / folder).symlink_to(simulated_data / folder)
    servers = [WarmServer(shared_folder / "warm.socket") for _ in range(RUNS_AT_ONCE)]  # one a thread
    kills: Counter[str] = Counter()

    def many(number: int, longest: float) -> None:
        rng = random.Random(number)
        root = memory / f"broken-{number}"
        while kills.total() < KILLS:

            def kill(start: int) -> Kill:
                if kills.total() >= KILLS:
                    return NEVER
                # training is a small part of so short a run: two starts are killed as soon as it has begun
                if start in TRAINING and not list(root.glob(TRAINING[start])):
                    return Kill(rng.uniform(0, 0.02), TRAINING[start])
                # longer from start to start: on a busy machine, too, a run comes to its later phases
                return Kill(rng.uniform(0, longest * (0.3 + 0.25 * start)))

            one_run(servers[number], data, root, kill, kills)
            same_run(root / "run", memory / "whole/run")
            assert not list(root.glob("run/**/.*.part*"))
            shutil.rmtree(root)

    try:
        for server in servers:  # the first order waits for the imports
            server.start("jetscale.train", ["--version"], memory, quiet_environment()).wait()
        began = time.monotonic()
        one_run(servers[0], data, memory / "whole", lambda _: NEVER, kills)
        longest = time.monotonic() - began
        with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
            for done in [pool.submit(many, number, longest) for number in range(RUNS_AT_ONCE)]:
                done.result()
    finally:
        for server in servers:
            server.close()
    print(f"{longest:.1f} s undisturbed; {dict(kills)}")
    assert kills.total() >= KILLS
    assert {"pretraining", "fine-tuning"} <= {name.partition(",")[0] for name in kills}
