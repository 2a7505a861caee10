"""Loss curves of one run: captured and eager in bfloat16, float32 on card and CPU, and scatter of seeds."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.commands import Bench, Run, Running, running
from benchmarks.gpu.timeline import Timeline
from jetscale.common.files import DamagedFile

STEPS, SEEDS, DIMS = 2_000, (0, 1, 2), (8, 128, 512)
ON_CPU = (8, 128)  # 2,000 steps of width 512 take hours there
# A run with a callback of the user goes step by step, without a graph.
EAGER, TRUST = "+callbacks.timer._target_=lightning.pytorch.callbacks.Timer", ("--trust", "lightning")

Curves = dict[tuple[str, int], list[float]]
"""Losses of the lines of a run, by the way that it went and its seed."""


def run(bench: Bench, dims: Sequence[int] = DIMS, steps: int = STEPS) -> None:
    """One row a width, written as soon as it is computed; all runs at once, each on a core.

    A run that is not done when the time is over is stopped, and compared as far as it came: width 128 on a
    CPU core takes 140 to 270 ms a step.

    Parameters
    ----------
    bench : where, and with which jets
    dims, steps : widths, and steps of each run
    """
    runs = {(dim, way, run.seed): run for dim in dims for way, run in _ways(dim, steps)}
    flags = {key: TRUST if key[1] == "eager" else () for key in runs}
    folders = {(dim, way, seed): bench.work / f"{way}-{dim}-{seed}" for dim, way, seed in runs}
    for folder in folders.values():
        folder.mkdir()
    commands = [(bench.words(run, *flags[key]), folders[key]) for key, run in runs.items()]
    with running(commands, bench.start) as processes:
        problems = [
            f"{key}: {problem}"
            for key, process in zip(runs, processes, strict=True)
            if (problem := _problem(process, bench.session.left)) is not None
        ]
    bench.session.results["agreement"]["problems"] = problems
    for dim in dims:
        directories = {
            (way, run.seed): folders[dim, way, run.seed] / bench.directory(run).relative_to(bench.work)
            for way, run in _ways(dim, steps)
        }
        bench.session.record("agreement", str(dim), partial(_row, directories, problems))


def _row(directories: Mapping[tuple[str, int], Path], problems: list[str]) -> dict[str, Any]:
    """Compare the runs of a width that have a curve; of the others, `problems` is told."""
    curves: Curves = {}
    for key, directory in directories.items():
        try:
            curves[key] = _curve(directory)
        except (ValueError, DamagedFile) as error:
            problems.append(str(error))
    return compared(curves)


def _problem(process: Running, seconds: float) -> str | None:
    """Wait for a run; why it has not come to its end, None where it has."""
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return "not done in time"
    return process.printed()[-600:] if status else None


def _curve(directory: Path) -> list[float]:
    """Losses of the lines of a run; an error where it has none."""
    losses = [line["loss"] for line in Timeline.of(directory).lines]
    if not losses:
        raise ValueError(f"{directory} has no line of the training loss")
    return losses


def _ways(dim: int, steps: int) -> list[tuple[str, Run]]:
    more = ("tracking.log_every=50",)
    overrides = {"eager": EAGER, "float32": "device.precision=32-true"}
    if dim in ON_CPU:
        overrides["cpu"] = "device.accelerator=cpu"
    return [
        *(("captured", Run(dim, seed, steps, more)) for seed in SEEDS),
        *((way, Run(dim, 0, steps, (*more, override))) for way, override in overrides.items()),
    ]


def compared(curves: Mapping[tuple[str, int], Sequence[float]]) -> dict[str, Any]:
    """Root mean square difference of each way's curve from the captured one, and of seeds from their mean.

    Parameters
    ----------
    curves : losses of the lines of each run, at least one, by way and seed

    Returns
    -------
    For each way: last loss and number of lines, and by how much it differs from the captured run of its seed
    over the lines that both have; ``scatter_of_seeds`` where several captured runs are there; and all
    ``curves``. An ``error`` instead of the comparison where no captured run of the first seed is.
    """
    kept = {f"{way}, seed {seed}": list(curve) for (way, seed), curve in curves.items()}
    if ("captured", SEEDS[0]) not in curves:
        return {"error": "no captured run to compare with", "curves": kept}
    first = {way: np.array(curve) for (way, seed), curve in curves.items() if seed == SEEDS[0]}
    found: dict[str, Any] = {
        "last": {way: float(curve[-1]) for way, curve in first.items()},
        "lines": {way: len(curve) for way, curve in first.items()},
    }
    seeds = [np.array(curve) for (way, _), curve in curves.items() if way == "captured"]
    if len(seeds) > 1:
        length = min(map(len, seeds))
        stacked = np.stack([curve[:length] for curve in seeds])
        found["scatter_of_seeds"] = float(np.sqrt(stacked.var(axis=0, ddof=1).mean()))
    for way in first.keys() - {"captured"}:
        length = min(len(first[way]), len(first["captured"]))
        difference = first[way][:length] - first["captured"][:length]
        found[f"{way}_minus_captured"] = float(np.sqrt(np.mean(difference**2)))
    return {**found, "curves": kept}
