"""How costs grow: log-log slopes of measured points, and one figure of all of them.

    python -m benchmarks.growth

A series is a list of (x, seconds), kept in ``results.json`` as an entry ``growth_NAME``: its ratio is the
slope of a straight line through the points' logarithms (1 where doubling x doubles the cost), its target the
slope that the algorithm has, and ``x`` and ``seconds`` hold the points.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.measure import Row, Rows, Way, in_turn
from benchmarks.step import training_step
from jetscale.analysis.checks.synthetic import Noise, grid_table
from jetscale.analysis.errors.estimate import estimate
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.settings import FitSettings, UncertaintySettings
from jetscale.analysis.tables.selection import select
from jetscale.jets.batch import JetBatch
from jetscale.model.transformer import SetTransformer

mpl.use("Agg")

PREFIX = "growth_"
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "growth.png"
DIMS, CONSTITUENTS, BATCHES = (8, 16, 32, 64, 128, 256), (10, 20, 40, 80, 160), (16, 32, 64, 128, 256)
ROWS, REFITS = (30, 120, 480, 1920), (100, 300, 1000, 3000)
SECONDS = 4.0  # a series of steps


def series(quantity: str, per: str, x: Iterable[float], seconds: Iterable[float], target: float) -> Row:
    """`quantity` took `seconds` at each `x` (a number of `per`); the slope is at most `target`."""
    points, times = list(x), list(seconds)
    slope = float(np.polyfit(np.log(points), np.log(times), 1)[0])
    return {
        "ratio": slope, "target": target, "met": slope <= target, "ours": times[-1], "reference": times[0],
        "unit": "s, last and first point", "quantity": quantity, "per": per,
        "x": points, "seconds": times,
    }  # fmt: skip


def run() -> Rows:
    """Growth of the training step and of the fit; about a minute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _fit(30, 10)  # imports
    try:
        found = {
            # products grow with the square of the width, all the rest with the width
            "step_dim": _steps("width", DIMS, lambda dim: _step(dim, 40, 128), 2.0),
            # products grow with the constituents, attention with their square
            "step_constituents": _steps("constituents a jet", CONSTITUENTS, lambda n: _step(32, n, 128), 2.0),
            "step_batch": _steps("jets a batch", BATCHES, lambda jets: _step(32, 40, jets), 1.1),
            "fit_rows": series("fit, 100 refits", "rows", ROWS, (_fit(rows, 100) for rows in ROWS), 1.1),
            "fit_refits": series("fit, 240 rows", "refits", REFITS, (_fit(240, n) for n in REFITS), 1.1),
        }
    finally:
        torch.set_num_threads(threads)
    return {PREFIX + name: one for name, one in found.items()}


def _steps(per: str, values: tuple[int, ...], make: Callable[[int], Way], target: float) -> Row:
    seconds = in_turn({str(value): make(value) for value in values}, SECONDS, rounds=(3, 50), settle=0.02)
    return series("training step", per, values, seconds.values(), target)


def _step(dim: int, constituents: int, jets: int) -> Way:
    generator = torch.Generator().manual_seed(0)
    spread = (torch.randn(jets, generator=generator) * 0.4 + 1).clamp(0.2, 2)
    lengths_B = (constituents * spread).round().long()
    total = int(lengths_B.sum())
    batch = JetBatch(
        x_TF=torch.randn(total, 8, generator=generator),
        pid_T=torch.randint(1, 9, (total,), generator=generator),
        lengths_B=lengths_B,
        labels_B=torch.randint(10, (jets,), generator=generator),
        positions_B=torch.arange(jets),
    )
    model = SetTransformer(dim, 10)
    return training_step(model, lambda: model(batch), batch.labels_B)


def _fit(rows: int, refits: int) -> float:
    """Processor seconds of one fit of final losses of `rows` runs with `refits` bootstrap refits."""
    side = math.isqrt(rows)
    N, D = np.meshgrid(np.geomspace(1e4, 1e7, side), np.geomspace(1e5, 1e8, rows // side))
    truth = Surfaces.single(E=0.35, A=60.0, B=6.0, alpha=0.44, beta=0.22)
    noise = Noise(runs=0.003, test_jets=1_000_000)
    losses = grid_table(truth, N.ravel(), D.ravel(), noise, np.random.default_rng(0))
    settings = FitSettings(uncertainty=UncertaintySettings(method="runs", replicates=refits))
    ways = {"fit": lambda: estimate("all", select(losses.frame, settings, losses), losses, settings)}
    return in_turn(ways, seconds=0.5, rounds=(1, 3))["fit"]


def draw(results: dict[str, Any], path: Path = FIGURE) -> None:
    """Draw all series of ``results.json``."""
    found = {name: one for name, one in results.items() if name.startswith(PREFIX)}
    columns = 4
    figure, axes = plt.subplots(
        -(-len(found) // columns), columns, figsize=(11, 2.6 * -(-len(found) // columns)), squeeze=False
    )
    for axis, one in zip(axes.flat, found.values(), strict=False):
        x, seconds = one["x"], one["seconds"]
        axis.loglog(x, seconds, "o-", color="tab:blue", markersize=4)
        axis.set_xticks(x, [f"{value:g}" for value in x], fontsize=6, rotation=45)
        axis.set_ylim(min(seconds) / 3, max(seconds) * 3)  # a flat line is to look flat
        axis.minorticks_off()
        axis.set_title(f"{one['quantity']}: slope {one['ratio']:.2f}", fontsize=9)
        axis.set_xlabel(one["per"], fontsize=8)
        axis.set_ylabel("seconds", fontsize=8)
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    for name, one in run().items():
        print(name, json.dumps(one))
