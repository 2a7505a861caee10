"""A sweep among random kills: drivers and workers die in the middle of runs, the exponents come out the same.

CI kills four times. For ten minutes: ``JETSCALE_CHAOS_SECONDS=600 python -m pytest tests/test_chaos.py -s``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.runs import TINY, metrics_of, quiet_environment
from tests.warm import WarmServer

SECONDS = float(os.environ.get("JETSCALE_CHAOS_SECONDS", "0"))
KILLS = 4
"""So many at least, each kind of them."""
KINDS = ("driver", "worker", "all", "run")
"""A driver, any process of its group, the whole group, and the worker whose run is under way."""
STEPS, SEEDS = (120, "0,1") if SECONDS < 300 else (900, "0,1,2")
GRID = (
    *(word for word in TINY if not word.startswith("model.dim")), "study=chaos", "data.repeat=true",
    f"pretrain.steps={STEPS // 2}", f"finetune.steps={STEPS}", f"eval.every={STEPS // 12}",
    "checkpoint_every=20", "-m", "+experiment=scratch,qcd", "model.dim=8,16,24", f"seed={SEEDS}",
)  # fmt: skip


def results_json(warm: WarmServer, root: Path) -> dict[str, Any]:
    """What the analysis makes of the sweep below `root`, without the path it was given."""
    quick = [
        "uncertainty.replicates=10",
        "uncertainty.profile=false",
        "joint=false",
        "multiverse=false",
        "report=false",
    ]
    words = ["source=local", "path=multirun/chaos", *quick]
    analysis = warm.start("jetscale.analysis", words, root, quiet_environment())
    assert analysis.wait(300) == 0, analysis.printed("stderr")
    content: dict[str, Any] = json.loads((root / "multirun/chaos/analysis/results.json").read_text())
    return content


def processes_of(group: int) -> list[int]:
    """Living processes of a process group: the driver and its workers."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def owners(root: Path) -> list[int]:
    """Processes that own a run below `root` which has written metrics and is not finished."""
    logs = [
        log for log in (root / "multirun").rglob("metrics.jsonl") if not (log.parent / "done.json").exists()
    ]
    files = [log.parent / "owner.json" for log in logs]
    return [json.loads(file.read_text())["pid"] for file in files if file.exists()]


def kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def written(root: Path) -> int:
    """Bytes of metrics that all runs below `root` have written."""
    return sum(log.stat().st_size for log in (root / "multirun").rglob("metrics.jsonl"))


@pytest.mark.slow
def test_a_sweep_disturbed_by_random_kills_gives_the_same_exponents(warm, tmp_path, simulated_data):
    roots = [tmp_path / "undisturbed", tmp_path / "disturbed"]
    for root in roots:
        root.mkdir()
    words = [f"data.dir={simulated_data}", *GRID]
    whole = warm.start("jetscale.train", words, roots[0], quiet_environment())
    assert whole.wait() == 0, whole.printed("stderr")

    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    rng = random.Random(7)
    started = time.monotonic()
    kills: list[str] = []
    groups = []
    done = False
    while not done:
        with warm.start("jetscale.train", words, roots[1], quiet_environment(), session=True) as driver:
            groups.append(driver.pid)
            here: list[str] = []
            while len(kills) < KILLS or time.monotonic() - started < SECONDS:
                before = written(roots[1])
                while written(roots[1]) == before and driver.poll() is None:
                    time.sleep(0.05)  # a worker imports for seconds before it runs anything
                time.sleep(rng.uniform(0, 1))
                victims = processes_of(driver.pid)
                if driver.poll() is not None or not victims:
                    break
                what = KINDS[len(kills)] if len(kills) < len(KINDS) else rng.choice(KINDS)
                if what == "run" and not (victims := [pid for pid in owners(roots[1]) if pid in victims]):
                    continue
                kills.append(what)
                here.append(what)
                if what == "all":
                    kill_group(driver.pid)
                else:
                    os.kill(driver.pid if what == "driver" else rng.choice(victims), signal.SIGKILL)
            done = driver.wait() == 0
            # joblib's pool breaks with its worker; the driver starts another, and no run is lost
            assert done or here != ["run"], driver.printed("stderr")
            # orphans of a killed driver may go on: the next one must cope with them
            if not done and rng.random() < 0.5:
                kill_group(driver.pid)
    for group in groups:
        kill_group(group)
    print(f"kills: {Counter(kills)}, {time.monotonic() - started:.0f} s")
    assert len(kills) >= KILLS

    runs = sorted((roots[0] / "multirun/chaos").rglob("done.json"))
    assert len(runs) == 6 * len(SEEDS.split(","))
    for run in runs:
        relative = run.parent.relative_to(roots[0])
        assert metrics_of(roots[1] / relative) == metrics_of(run.parent), relative
    assert results_json(warm, roots[1]) == results_json(warm, roots[0])
