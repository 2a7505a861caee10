"""Speed of approach 3: a point fit plus bootstrap refits of a 240-row table, and other recipes.

    python -m benchmarks.fit [table.csv]

Without a table, the published Chinchilla table is used if it is beside the repository; else 240 similar rows
are simulated. Every replicate is started globally, and compared with the minimum that eight distant starts
reach, converged to rounding. Other recipes for the point fit are timed in the same session
(`benchmarks.fit_peers`).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.fit_peers import PEERS
from jetscale.analysis import load_losses
from jetscale.analysis.checks.synthetic import Noise, grid_table
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter

Array = NDArray[np.float64]
Results = dict[str, dict[str, object]]

PUBLISHED = Path(__file__).parents[2] / "shared/data/scaling/chinchilla_epoch.csv"
ROWS = 240
TARGETS = {100: 0.5, 1000: 5.0}  # seconds on one machine of two cores
GAP = 1e-5
REPEATS = 3


def table(path: Path | None) -> tuple[Array, Array, Array]:
    """Return ln N, ln D and ln L of the rows to fit."""
    if path is None and PUBLISHED.is_file():
        path = PUBLISHED
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


def point(log_N: Array, log_D: Array, log_L: Array) -> float:
    """Seconds of a point fit with its certificate."""
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        Fitter(log_N, log_D, Objective()).search(log_L)  # `point` remembers
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def refits(log_N: Array, log_D: Array, log_L: Array, replicates: int) -> tuple[float, float]:
    """Seconds of a point fit plus `replicates` refits, and the largest relative gap to the minimum."""
    weight = weights(replicates, len(log_L))
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        fitter = Fitter(log_N, log_D, Objective())
        fitter.search(log_L)
        found = fitter.replicates(log_L[None], weight, starts=1)
        seconds.append(time.perf_counter() - begin)
    polished = fitter.solve(fitter.centred(found.surfaces), log_L[None], weight, tolerance=1e-14)
    globally = fitter.replicates(log_L[None], weight, starts=8)
    lowest = np.minimum(polished.objective, globally.objective)
    return float(np.median(seconds)), float((found.objective / lowest - 1).max())


def entry(ours: float, reference: float, *, right: bool = True) -> dict[str, object]:
    """Times faster than the reference, `right` where the answer is too."""
    ratio = reference / ours
    return {
        "ratio": ratio,
        "target": 1.0,
        "met": ratio >= 1 and right,
        "ours": ours,
        "reference": reference,
        "unit": "s",
    }


def run(path: Path | None = None) -> Results:
    """Time the fits; `fit_REPLICATES` against the seconds allowed, `fit_point_vs_NAME` against others."""
    log_N, log_D, log_L = table(path)
    results: Results = {}
    for replicates, allowed in TARGETS.items():
        seconds, gap = refits(log_N, log_D, log_L, replicates)
        print(f"point + {replicates} refits: largest relative gap to the minimum {gap:.1e}")
        results[f"fit_{replicates}"] = entry(seconds, allowed, right=gap <= GAP)
    ours = point(log_N, log_D, log_L)
    for name, peer in PEERS.items():
        try:
            reference = peer(log_N, log_D, log_L)
        except ImportError as error:
            print(f"fit_point_vs_{name} left out: {error}")
            continue
        results[f"fit_point_vs_{name}"] = entry(ours, reference)
    return results


def main() -> None:
    for name, r in run(*(Path(argument) for argument in sys.argv[1:2])).items():
        print(
            f"{name:28} {r['ratio']:8.1f} target {r['target']:5.1f} {'met' if r['met'] else 'NOT met':7}"
            f" ours {r['ours']:.3f} reference {r['reference']:.3f} {r['unit']}"
        )


if __name__ == "__main__":
    main()
