"""How often each nominal 95% interval contains the truth, on simulated sweeps.

``python benchmarks/coverage.py [trials]`` prints one row per design, model of errors and quantity. Surface,
ranges and noise are those of the study in docs/analysis.md: L = 0.35 + 60/N^0.44 + 6/D^0.22, scatter between
runs 0.3%, test-jet noise of which 97% of the variance is common to all models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jetscale.analysis.checks.synthetic import Noise, curves_table, grid_table
from jetscale.analysis.errors.estimate import estimate
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.settings import FitSettings, UncertaintySettings
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.selection import select
from jetscale.common.files import write_json

GRID_TRUTH = Surfaces.single(E=0.35, A=60.0, B=6.0, alpha=0.44, beta=0.22)
# the same exponents, with terms that balance inside the paper's widths and data
CURVE_TRUTH = Surfaces.single(E=0.35, A=60.0, B=14.0, alpha=0.44, beta=0.22)
Maker = Callable[[np.random.Generator], LossTable]
RESULT = Path(__file__).parents[1] / "jetscale" / "analysis" / "output" / "coverage.json"
REPLICATES = 200
QUANTITIES = ("a", "alpha", "beta", "L_inf")


def grid(sizes: int, budgets: int, noise: Noise, rng: np.random.Generator) -> LossTable:
    """Final losses on a grid of N 1e4..1e7 and D 1e5..1e8, one run a cell."""
    N, D = np.meshgrid(np.geomspace(1e4, 1e7, sizes), np.geomspace(1e5, 1e8, budgets))
    return grid_table(GRID_TRUTH, N.ravel(), D.ravel(), noise, rng)


def sweep(seeds: int, noise: Noise, rng: np.random.Generator) -> LossTable:
    """Curves of the paper's widths with test blocks."""
    return curves_table({"all": CURVE_TRUTH}, noise, rng, seeds=seeds, evaluations=30)


def truths(surface: Surfaces) -> dict[str, float]:
    """Values to be covered."""
    alpha, beta = float(surface["alpha"][0]), float(surface["beta"][0])
    a = beta / (alpha + beta)
    return {
        "a": a, "alpha": alpha, "beta": beta, "L_inf": float(np.exp(surface["log_E"][0])),
        "a, approach 2": a, "a, approach 1": a,
    }  # fmt: skip


def trial(losses: LossTable, method: str) -> dict[str, dict[str, tuple[float, float] | None]]:
    """Intervals of every model of errors on one table: model to quantity to interval."""
    settings = FitSettings(
        uncertainty=UncertaintySettings(method=method, replicates=REPLICATES),
    )
    found = estimate("all", select(losses.frame, settings, losses), losses, settings)
    groups = {method: found.quantities} | found.errors
    intervals = {
        name: {key: group[f"approach3.{key}"].ci95 for key in QUANTITIES if f"approach3.{key}" in group}
        for name, group in groups.items()
    }
    for number in (1, 2):
        intervals[method][f"a, approach {number}"] = found.quantities[f"approach{number}.a"].ci95
    return intervals


def study(name: str, make: Maker, method: str, truth: Surfaces, trials: int) -> list[dict[str, Any]]:
    """Print and return the coverage of one design, a row for each model of errors."""
    wanted = truths(truth)
    inside: dict[str, dict[str, list[bool]]] = {}
    for number in range(trials):
        for model, group in trial(make(np.random.default_rng([7, number])), method).items():
            for key, ends in group.items():
                if ends is not None:
                    found = ends[0] <= wanted[key] <= ends[1]
                    inside.setdefault(model, {}).setdefault(key, []).append(found)
    rows = []
    for model, group in inside.items():
        values = [float(np.mean(group[key])) if key in group else None for key in wanted]
        rows.append({"design": name, "errors": model, "trials": trials, "values": values})
        cells = (f"{key} {'-' if v is None else f'{v:.2f}'}" for key, v in zip(wanted, values, strict=True))
        print(f"{name:26s} {model:13s} {'  '.join(cells)}", flush=True)
    return rows


def main() -> None:
    """Run every design; the rows go into the report of every analysis."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    noise = Noise(runs=0.003, test_jets=1_000_000)
    print(f"{trials} trials a design (curves: half); coverage of nominal 95% intervals")
    rows = []
    for seeds in (5, 2, 1):
        method = "wild" if seeds == 1 else "hierarchical"
        name = f"12 widths, {seeds} seed{'s' * (seeds > 1)}, curves"
        rows += study(name, partial(sweep, seeds, noise), method, CURVE_TRUTH, trials // 2)
    for sizes, budgets in ((3, 3), (4, 4), (5, 6), (6, 8)):
        make = partial(grid, sizes, budgets, noise)
        for method in ("wild", "runs"):
            found = study(f"{sizes} x {budgets} final losses", make, method, GRID_TRUTH, trials)
            rows += [row for row in found if method == "wild" or row["errors"] == "runs"]
    write_json(RESULT, {"columns": list(truths(GRID_TRUTH)), "rows": rows})


if __name__ == "__main__":
    main()
