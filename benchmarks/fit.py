"""Speed of approach 3: a point fit plus bootstrap refits of a 240-row table, and other recipes.

    python -m benchmarks.fit [table.csv]

Without a table, the published Chinchilla table is used if it is beside the repository; else 240 similar rows
are simulated. Every replicate is started globally, and compared with the minimum that eight distant starts
reach, converged to rounding. Other recipes for the point fit are timed in the same session
(`benchmarks.fit_peers`). Of the laptop study, the joint fit of its five subsets with 100 refits and the whole
command without figures are timed in CPU seconds, since the command takes one core.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.fit_peers import PEERS
from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.checks.synthetic import Noise, grid_table
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.joint.sharing import Points, SharedModel

Array = NDArray[np.float64]
Results = dict[str, dict[str, object]]

PUBLISHED = Path(__file__).parents[2] / "shared/data/scaling/chinchilla_epoch.csv"
ROWS = 240
TARGETS = {100: 0.5, 1000: 5.0}  # seconds on one machine of two cores
GAP = 1e-5
REPEATS = 3
STUDY = Path(__file__).parents[1] / "studies/laptop/tuned_rate/losses.parquet"
JOINT_ALLOWED, STUDY_ALLOWED = 5.0, 3.0  # seconds


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


def joint_refits(replicates: int = 100) -> float:
    """CPU seconds of the joint fit of the laptop study's five subsets and its refits."""
    losses, settings = load_losses(STUDY), FitSettings(multiverse=False)
    settings.uncertainty.replicates, settings.uncertainty.profile = replicates, False
    settings.joint.on = False
    subsets = fit(losses, settings).subsets
    points = {
        name: Points(one.task.curves.log_N, one.task.curves.log_D, one.task.log_L_P)
        for name, one in subsets.items()
        if one.task is not None
    }
    log_L = {name: one.replicates.log_L_RP for name, one in subsets.items() if one.replicates is not None}
    weight = {name: p.weights[None] for name, p in points.items()}
    begin = time.process_time()
    model = SharedModel.of(points, ("alpha", "beta"), Objective())
    model.point(points)
    model.replicates(log_L, weight)
    return time.process_time() - begin


def study() -> float:
    """CPU seconds of ``python -m jetscale.analysis ... report=false`` on the laptop study, start to end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with TemporaryDirectory() as out:
        table = ["source=table", f"path={STUDY}", f"out={out}", "report=false"]
        subprocess.run([sys.executable, "-m", "jetscale.analysis", *table], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
    results["fit_joint_100"] = entry(joint_refits(), JOINT_ALLOWED)
    results["fit_laptop_study"] = entry(study(), STUDY_ALLOWED)
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
