"""Time of runs outside of their steps: the start of a run, a sweep, `--help`, the blocks of an evaluation.

    python -m benchmarks.runs

Processes are started as a user starts them, on jets simulated for it, with the packed stores made before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch.nn import functional

from benchmarks.measure import Rows, in_turn, row
from jetscale.common.config_safety import CONF
from jetscale.jets.evaluation import EvalSet
from jetscale.jets.settings import DataSettings
from jetscale.launch.hydra_setup import register
from jetscale.model.transformer import SetTransformer
from jetscale.runs.blocks import BlockLog
from jetscale.training.evaluate import evaluate

HELPS = ("jetscale.train", "jetscale.analysis", "jetscale.simulate", "jetscale.prepare")
IMPORTS = "import torch, lightning, hydra, pyarrow"
# runs until its first optimiser step is done, then leaves at once
FIRST_STEP = """
import os
from jetscale.training.lean_module import LeanClassifier
step = LeanClassifier.training_step
def first(*args):
    step(*args)
    os._exit(0)
LeanClassifier.training_step = first
from jetscale.train import main
main()
"""
REPEATS = 3
SWEEP_RUNS, SWEEP_STEPS = 16, 625  # the quickstart's runs, all of width 8 and from scratch
TEST_JETS, TEST_COPIES = 400, 250  # 100,000 jets in an evaluation, as in the paper's budget
EVALUATIONS_BEFORE = 60


def run() -> Rows:
    """Every row; about two minutes."""
    torch.set_num_threads(1)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        _simulate(data, environment)

        def seconds(*command: str) -> float:
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, *command], cwd=folder, env=environment, check=True, capture_output=True
            )
            return time.perf_counter() - start

        common = (
            *(f"data.dir={data}", "data.repeat=true", "budget=quickstart", "model.dim=8"),
            *(f"eval.jets={TEST_JETS}", "tracking.wandb=disabled"),
        )
        imports = statistics.median(seconds("-c", IMPORTS) for _ in range(REPEATS))
        starts = [seconds("-c", FIRST_STEP, *common, f"study=start{number}") for number in range(REPEATS + 1)]
        start = statistics.median(starts[1:])  # the first one compiles kernels where they never ran
        helps = [statistics.median(seconds("-m", name, "--help") for _ in range(REPEATS)) for name in HELPS]
        seeds = ",".join(str(seed) for seed in range(SWEEP_RUNS))
        steps = (f"finetune.steps={SWEEP_STEPS}", "study=sweep", f"seed={seeds}", "-m")
        sweep = seconds("-m", "jetscale.train", *common, *steps)
        done = [json.loads(path.read_text()) for path in Path(folder, "multirun/sweep").rglob("done.json")]
        assert len(done) == SWEEP_RUNS
        inside = sum(record["seconds"] for record in done)
        least = inside + imports + SWEEP_RUNS * _composition(common)
        return {
            "start_to_first_step": row(start, 1.0, 6.0, "s", floor=imports),
            "help": row(max(helps), 1.0, 1.0, "s"),
            "sweep_of_small_runs": row(sweep, inside, 1.10, "s", floor=least),
            **_evaluation(data, Path(folder)),
        }


def _simulate(data: Path, environment: dict[str, str]) -> None:
    jets = ("dataset=jetclass", "n_jets=1000", "n_val=0", f"n_test={TEST_JETS}", f"out={data}", "mpi=false")
    for module, arguments in (("simulate", jets), ("prepare", (f"dir={data}",))):
        command = [sys.executable, "-m", f"jetscale.{module}", *arguments]
        subprocess.run(command, env=environment, check=True, capture_output=True)


def _composition(overrides: Sequence[str]) -> float:
    """Seconds that Hydra takes to compose the configuration of one run."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):

        def compose_one() -> None:
            compose("train", overrides=[*overrides, "study=sweep"])

        return in_turn({"compose": compose_one}, seconds=3.0, rounds=(5, 20))["compose"]


def _evaluation(data: Path, folder: Path) -> Rows:
    """With its 1,000 blocks, written to a file that holds some evaluations already, and without."""
    test = EvalSet(DataSettings(dir=str(data)), "jetclass", n_jets=TEST_JETS)
    batches = [  # copies in the place of more jets
        dataclasses.replace(batch, positions_B=batch.positions_B + copy * TEST_JETS)
        for copy in range(TEST_COPIES)
        for batch in test.batches(TEST_JETS)
    ]
    model, device = SetTransformer(8, test.n_classes), torch.device("cpu")
    log = BlockLog(folder / "blocks.parquet")
    result = evaluate(model, batches, device)
    for step in range(EVALUATIONS_BEFORE):
        log.append("finetune", step, "raw", result.jets, result.loss_sum)

    def blocks() -> None:
        found = evaluate(model, batches, device)
        log.append("finetune", EVALUATIONS_BEFORE, "raw", found.jets, found.loss_sum)

    @torch.no_grad()
    def bare() -> float:
        total, correct = 0.0, 0
        for batch in batches:
            logits_BK = model(batch)
            total += float(functional.cross_entropy(logits_BK, batch.labels_B, reduction="sum"))
            correct += int((logits_BK.argmax(dim=1) == batch.labels_B).sum())
        return total

    assert np.isclose(bare(), result.loss_sum.sum(), rtol=1e-5)
    seconds = in_turn({"blocks": blocks, "bare": bare}, seconds=25.0, rounds=(5, 20))
    times, unit = (1e3 * seconds["blocks"], 1e3 * seconds["bare"]), f"ms per {TEST_COPIES * TEST_JETS:,} jets"
    return {"evaluation_blocks": row(*times, 1.02, unit, floor=times[1])}


if __name__ == "__main__":
    for name, entry in run().items():
        print(name, entry)
