"""Speed of approach 3: a point fit plus bootstrap refits of a 240-row table.

``python benchmarks/fit.py [table.csv]``; without a table 240 rows like Chinchilla's are simulated. Every
replicate is started globally, and compared with its own minimum converged to rounding from eight starts far
apart. The common recipe (a grid of finite-difference L-BFGS-B starts) is timed in the same run.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis import load_losses
from jetscale.analysis.objective import Objective
from jetscale.analysis.surface import Surfaces
from jetscale.analysis.surface_fit import Fitter
from jetscale.analysis.synthetic import Noise, grid_table
from jetscale.files import write_json

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results.json"
ROWS = 240
TARGETS = {100: 0.5, 1000: 5.0}  # seconds on one machine of two cores
REPEATS = 3


def table(path: str | None) -> tuple[Array, Array, Array]:
    """Return ln N, ln D and ln L of the rows to fit."""
    if path is None:
        rng = np.random.default_rng(0)
        N, C = np.exp(rng.uniform(np.log(6e7), np.log(1.6e10), ROWS)), np.exp(rng.uniform(42, 50, ROWS))
        truth = Surfaces.single(E=1.82, A=480.0, B=2140.0, alpha=0.347, beta=0.367)
        frame = grid_table(truth, N, C / (6 * N), Noise(runs=0.007), rng).frame
    else:
        frame = load_losses(path).frame.nsmallest(ROWS, "loss")
    N, D, L = (frame[name].to_numpy(float) for name in ("n_params", "jets", "loss"))
    return np.log(N), np.log(D), np.log(L)


def weights(replicates: int, rows: int) -> Array:
    """Bootstrap multiplicities, (R, P)."""
    rng = np.random.default_rng(1)
    return rng.multinomial(rows, np.full(rows, 1 / rows), size=replicates).astype(float)


def ours(log_N: Array, log_D: Array, log_L: Array, replicates: int) -> tuple[float, float]:
    """Seconds of a point fit plus `replicates` refits, and the largest relative gap to the minimum."""
    weight = weights(replicates, len(log_L))
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        fitter = Fitter(log_N, log_D, Objective())
        fitter.point(log_L)
        found = fitter.replicates(log_L[None], weight, starts=1)
        seconds.append(time.perf_counter() - begin)
    polished = fitter.solve(fitter.centred(found.surfaces), log_L[None], weight, tolerance=1e-14)
    globally = fitter.replicates(log_L[None], weight, starts=8)
    lowest = np.minimum(polished.objective, globally.objective)
    return float(np.median(seconds)), float((found.objective / lowest - 1).max())


def epoch_style(log_N: Array, log_D: Array, log_L: Array, starts: int) -> float:
    """Seconds of one start of the common recipe (finite-difference L-BFGS-B), averaged over `starts`."""
    from scipy.optimize import minimize

    objective = Objective()

    def value(theta: Array) -> float:
        residual = Surfaces.from_theta(theta).log_loss(log_N, log_D) - log_L
        return float(objective.value(residual, np.ones((1, len(log_L))))[0])

    rng = np.random.default_rng(2)
    begin = time.perf_counter()
    for _ in range(starts):
        start = [rng.uniform(0, 25), rng.uniform(0, 25), rng.uniform(-1, 1), *rng.uniform(0, 2, 2)]
        minimize(value, start, method="L-BFGS-B")
    return (time.perf_counter() - begin) / starts


def main() -> None:
    """Time, print, and add to benchmarks/results.json."""
    log_N, log_D, log_L = table(sys.argv[1] if len(sys.argv) > 1 else None)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for replicates, target in TARGETS.items():
        seconds, gap = ours(log_N, log_D, log_L, replicates)
        met = seconds <= target and gap <= 1e-5
        print(f"point + {replicates} refits: {seconds:.3f} s (target {target}), gap {gap:.1e}, met: {met}")
        results[f"fit_{replicates}"] = {
            "ratio": target / seconds, "target": 1.0, "met": met,
            "ours": seconds, "reference": target, "unit": "s",
        }  # fmt: skip
    each = epoch_style(log_N, log_D, log_L, 20)
    print(f"4,500 finite-difference L-BFGS-B starts would take {4500 * each:.0f} s for the point alone")
    write_json(RESULTS, results)


if __name__ == "__main__":
    main()
