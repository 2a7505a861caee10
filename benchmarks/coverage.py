"""How often each nominal 95% interval contains the truth, on simulated sweeps.

``python benchmarks/coverage.py [trials]`` prints one row per design, model of errors and quantity. Surface,
ranges and noise are those of the study in docs/analysis.md: L = 0.35 + 60/N^0.44 + 6/D^0.22, scatter between
runs 0.3%, test-jet noise of which 97% of the variance is common to all models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np

from jetscale.analysis.estimate import estimate
from jetscale.analysis.selection import select
from jetscale.analysis.settings import Approach3Settings, FitSettings, UncertaintySettings
from jetscale.analysis.surface import Surfaces
from jetscale.analysis.synthetic import Noise, curves_table, grid_table
from jetscale.analysis.table import LossTable

GRID_TRUTH = Surfaces.single(E=0.35, A=60.0, B=6.0, alpha=0.44, beta=0.22)
# the same exponents, with terms that balance inside the paper's widths and data
CURVE_TRUTH = Surfaces.single(E=0.35, A=60.0, B=14.0, alpha=0.44, beta=0.22)
Maker = Callable[[np.random.Generator], LossTable]
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
    return {
        "a": float(surface.a[0]), "alpha": float(surface.alpha[0]), "beta": float(surface.beta[0]),
        "L_inf": float(np.exp(surface.log_E[0])),
    }  # fmt: skip


def trial(losses: LossTable, method: str, objective: str) -> dict[str, dict[str, tuple[float, float] | None]]:
    """Intervals of every model of errors on one table: model to quantity to interval."""
    settings = FitSettings(
        approach3=Approach3Settings(objective=objective),
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


def study(name: str, make: Maker, method: str, objective: str, truth: Surfaces, trials: int) -> None:
    """Print the coverage of one design."""
    wanted = truths(truth)
    wanted |= {"a, approach 1": wanted["a"], "a, approach 2": wanted["a"]}
    inside: dict[tuple[str, str], list[bool]] = {}
    width: dict[tuple[str, str], list[float]] = {}
    for number in range(trials):
        for model, group in trial(make(np.random.default_rng([7, number])), method, objective).items():
            for key, ends in group.items():
                if ends is not None:
                    inside.setdefault((model, key), []).append(ends[0] <= wanted[key] <= ends[1])
                    width.setdefault((model, key), []).append(ends[1] - ends[0])
    for model in dict.fromkeys(model for model, _ in inside):
        cells = [
            f"{key} {np.mean(inside[model, key]):.2f} (width {np.median(width[model, key]):.3g})"
            for key in wanted
            if (model, key) in inside
        ]
        print(f"{name:26s} {objective:8s} {model:13s} {'  '.join(cells)}", flush=True)


def main() -> None:
    """Run every design."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    noise = Noise(runs=0.003, test_jets=1_000_000)
    print(f"{trials} trials a design (curves: {max(20, trials // 3)}); coverage of nominal 95% intervals")
    for sizes, budgets in ((3, 3), (4, 4), (5, 6), (6, 7), (6, 8)):
        make = partial(grid, sizes, budgets, noise)
        for method, objective in (("wild", "huber"), ("wild", "squared"), ("runs", "huber")):
            study(f"{sizes} x {budgets} final losses", make, method, objective, GRID_TRUTH, trials)
    for seeds in (5, 2, 1):
        method = "wild" if seeds == 1 else "hierarchical"
        make = partial(sweep, seeds, noise)
        study(f"12 widths, {seeds} seeds, curves", make, method, "huber", CURVE_TRUTH, max(20, trials // 3))


if __name__ == "__main__":
    main()
