"""Runs that `plan runs_for=` chooses against an even grid: how many runs and how much compute they save.

    python -m benchmarks.next_runs [trials]

A grid of 4 x 4 final losses (N 1e4..1e7, D 1e5..1e8, scatter 0.3%) is fitted; the runs that the plan chooses
for a are added, and the spread of a is measured over simulated studies of the whole, each fitted anew by
least squares. The even grid is the same 16 runs with further seeds of every one, as many as the same compute
pays for (in parts of a seed, as weights). Surface: L = 0.35 + 60/N^0.44 + 6/D^0.22.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis import FitSettings, fit
from jetscale.analysis.answers.next_runs import NextRuns, next_runs
from jetscale.analysis.checks.synthetic import Noise, grid_table
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.settings import UncertaintySettings

Array = NDArray[np.float64]

TRUTH = Surfaces.single(E=0.35, A=60.0, B=6.0, alpha=0.44, beta=0.22)
SCATTER = 0.003
N, D = (value.ravel() for value in np.meshgrid(np.geomspace(1e4, 1e7, 4), np.geomspace(1e5, 1e8, 4)))
GRID_FLOPS = float((6 * N * D).sum())
SHARES = (0.05, 0.3, 1.0)  # of the grid's compute that the further runs may cost


def spread(N_P: Array, D_P: Array, seeds_P: Array, trials: int) -> float:
    """Standard deviation of a over simulated studies of these runs, `seeds_P` of each."""
    x, y = np.log(N_P), np.log(D_P)
    rng = np.random.default_rng(11)
    noise = SCATTER / np.sqrt(seeds_P) * rng.standard_normal((trials, len(x)))
    fitter = Fitter(x, y, Objective("squared"), weight=seeds_P)
    found = fitter.replicates(TRUTH.log_loss(x, y) + noise, np.ones((1, len(x)))).surfaces
    return float((found["beta"] / (found["alpha"] + found["beta"])).std(ddof=1))


def chosen(share: float) -> NextRuns:
    """What the plan chooses for a with this share of the grid's compute."""
    losses = grid_table(TRUTH, N, D, Noise(runs=SCATTER), np.random.default_rng(1))
    uncertainty = UncertaintySettings(replicates=200, profile=False)
    return next_runs(
        fit(losses, FitSettings(multiverse=False, uncertainty=uncertainty)), "a", share * GRID_FLOPS
    )


def main() -> None:
    """Print a row for each budget."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    ones = np.ones(len(N))
    bare = spread(N, D, ones, trials)
    print(f"16 runs, {GRID_FLOPS:.3g} FLOPs: sd of a = {bare:.4f} ({trials} simulated studies)")
    for share in SHARES:
        plan = chosen(share)
        more_N, more_D, seeds = (
            np.array([getattr(one, key) for one in plan.choices], dtype=float) for key in ("N", "D", "seeds")
        )
        joined = (np.append(N, more_N), np.append(D, more_D), np.append(ones, seeds))
        with_plan, even = spread(*joined, trials), spread(N, D, ones * (1 + plan.flops / GRID_FLOPS), trials)
        k = (bare / with_plan) ** 2 - 1
        print(
            f"{plan.runs} runs, {plan.flops / GRID_FLOPS:.3f} of the grid's compute: sd {with_plan:.4f}"
            f" (promised {bare * plan.sd_then / plan.sd_now:.4f}); even grid for the same compute {even:.4f};"
            f" an even grid needs {16 * k:.0f} runs and {k:.2f} of the grid's compute for this sd:"
            f" {k * GRID_FLOPS / plan.flops:.1f} times the compute"
        )
        for one in plan.choices[:6]:
            print(f"    N = {one.N:.3g}, D = {one.D:.3g}: {one.seeds} seeds")


if __name__ == "__main__":
    main()
