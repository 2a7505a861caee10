"""How often each nominal 95% interval contains the truth, on simulated sweeps.

``python -m benchmarks.coverage [trials] [file] [words]`` prints one row per design, model of errors and
quantity, and writes the rows into the report of every analysis. Surface, ranges and noise are those of the
study in docs/analysis.md: L = 0.35 + 60/N^0.44 + 6/D^0.22, scatter between runs 0.3%, test-jet noise of which
97% of the variance is common to all models. In the designs "wrong by 2%" the two terms are coupled, L = 0.35
+ ((60/N^0.44)^p + (6/D^0.22)^p)^(1/p), with p such that the best surface of approach 3 leaves so much (rms)
on these points without noise; "bent" are designs in which the exponent of N changes along ln N, and a is the
mean slope of the true optimum over the budgets of the grid. A `file` keeps every trial, so the command goes
on where it stopped; of `words` only designs whose names hold them are run, and the rows of the others stay.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers import laws
from jetscale.analysis.answers.prediction import on_surface
from jetscale.analysis.checks.synthetic import Noise, curves_table, grid_table
from jetscale.analysis.errors.estimate import estimate
from jetscale.analysis.fitting.numbers import summarise
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.settings import FitSettings, UncertaintySettings
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.selection import select
from jetscale.common.files import write_json

Array = NDArray[np.float64]
Maker = Callable[[np.random.Generator], LossTable]
Intervals = dict[str, dict[str, tuple[float, float] | None]]

RESULT = Path(__file__).parents[1] / "jetscale" / "analysis" / "checks" / "coverage.json"
REPLICATES = 200
QUANTITIES = ("a", "alpha", "beta", "L_inf")
COLUMNS = (
    "a", "alpha", "beta", "L_inf", "a, approach 2", "a, approach 1",
    "N* of the largest C", "next run", "next run, 10 C",
)  # fmt: skip
SIZES, AMOUNTS = (1e4, 1e7), (1e5, 1e8)
WRONG = (0.01, 0.02, 0.04)  # rms that the best surface leaves


@dataclass(frozen=True)
class Truth:
    """A surface with terms that are coupled by the power p; 1: approach 3's own form.

    a, alpha, beta and L_inf are defined for every p: the terms keep their exponents, and at the optimum they
    are in a fixed proportion.
    """

    E: float = 0.35
    A: float = 60.0
    B: float = 6.0
    alpha: float = 0.44
    beta: float = 0.22
    p: float = 1.0

    def log_loss(self, log_N: Array, log_D: Array) -> Array:
        """Ln L (1, P), as `Surfaces.log_loss`."""
        of_N, of_D = np.log(self.A) - self.alpha * log_N, np.log(self.B) - self.beta * log_D
        reducible = np.logaddexp(self.p * of_N, self.p * of_D) / self.p
        return np.asarray(np.logaddexp(np.log(self.E), reducible))[None]

    def known(self, C_ends: tuple[float, float]) -> dict[str, float]:  # noqa: ARG002 (the interface has it)
        """Values of the quantities that the form defines."""
        a = self.beta / (self.alpha + self.beta)
        return {"a": a, "alpha": self.alpha, "beta": self.beta, "L_inf": self.E}

    def optimum(self, C: float) -> tuple[float, float]:
        """N* and D* of C = 6 N D, from alpha t_N^p = beta t_D^p for the terms t."""
        log_ratio = np.log(self.alpha / self.beta) / self.p
        reach = np.log(C / 6)
        log_N = (log_ratio + np.log(self.A / self.B) + self.beta * reach) / (self.alpha + self.beta)
        return float(np.exp(log_N)), float(np.exp(reach - log_N))


@dataclass(frozen=True)
class Bent(Truth):
    """Truth with a term of N whose exponent changes: ln(A / N^alpha) + bend z^2, z = ln N from the middle.

    z is in halves of the range of the grid, and the term goes on straight beyond it.
    """

    bend: float = 0.0

    def log_loss(self, log_N: Array, log_D: Array) -> Array:
        """Ln L (1, P)."""
        middle, half = np.log(SIZES[0] * SIZES[1]) / 2, np.log(SIZES[1] / SIZES[0]) / 2
        z = (log_N - middle) / half
        inside = np.clip(z, -1, 1)
        bend = self.bend * (inside**2 + 2 * inside * (z - inside))
        of_N = np.log(self.A) - self.alpha * log_N + bend
        of_D = np.log(self.B) - self.beta * log_D
        return np.asarray(np.logaddexp(np.log(self.E), np.logaddexp(of_N, of_D)))[None]

    def known(self, C_ends: tuple[float, float]) -> dict[str, float]:
        """A over these budgets, and what the data term and the floor define; alpha is not one number."""
        C = np.geomspace(*C_ends, 9)
        best = [np.log(self.optimum(value)[0]) for value in C]
        a = float(np.polyfit(np.log(C), best, 1)[0])
        return {"a": a, "beta": self.beta, "L_inf": self.E}

    def optimum(self, C: float) -> tuple[float, float]:
        """N* and D* of C = 6 N D, on a fine grid of ln N."""
        log_N = np.linspace(np.log(SIZES[0]) - 6, np.log(SIZES[1]) + 6, 20_001)
        reach = np.log(C / 6)
        best = float(log_N[self.log_loss(log_N, reach - log_N)[0].argmin()])
        return float(np.exp(best)), float(np.exp(reach - best))


GRID_TRUTH = Truth()
# the same exponents, with terms that balance inside the paper's widths and data
CURVE_TRUTH = Truth(B=14.0)
# N and D of runs to come: one inside the grid, one near the optimum of ten times its largest budget
FUTURE = {"next run": (3e5, 3e6), "next run, 10 C": GRID_TRUTH.optimum(10 * 6 * SIZES[1] * AMOUNTS[1])}


def points(sizes: int, amounts: int) -> tuple[Array, Array]:
    """N and D of a grid, (P,) each."""
    N, D = np.meshgrid(np.geomspace(*SIZES, sizes), np.geomspace(*AMOUNTS, amounts))
    return N.ravel(), D.ravel()


def wrong_by(
    rms: float, of: Callable[[float], Truth], ends: tuple[float, float], N: Array, D: Array
) -> Truth:
    """The truth of a family of which the best additive surface leaves `rms` at these points.

    Parameters
    ----------
    rms : of ln L.
    of : number to the truth; what it leaves grows from the first of `ends` to the second.
    ends : between which the number is searched.
    N, D : (P,) the points.
    """
    x, y = np.log(N), np.log(D)

    def left(number: float) -> float:
        log_L = of(number).log_loss(x, y)[0]
        fitted = Fitter(x, y, Objective("squared")).point(log_L)[0].surfaces.log_loss(x, y)[0]
        return float(np.sqrt(((fitted - log_L) ** 2).mean()))

    low, high = ends
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if left(middle) < rms else (low, middle)
    return of(0.5 * (low + high))


def grid(truth: Truth, sizes: int, amounts: int, noise: Noise, rng: np.random.Generator) -> LossTable:
    """Final losses on a grid of N 1e4..1e7 and D 1e5..1e8, one run a cell; and the runs to come."""
    N, D = points(sizes, amounts)
    later = np.array(list(FUTURE.values()))
    return grid_table(truth, np.append(N, later[:, 0]), np.append(D, later[:, 1]), noise, rng)  # type: ignore[arg-type]  # as below


def without_future(losses: LossTable) -> tuple[LossTable, dict[str, float]]:
    """The table that is fitted, and the losses of the runs to come, on the same test jets."""
    frame, found = losses.frame, {}
    kept = np.ones(len(frame), dtype=bool)
    for name, (N, D) in FUTURE.items():
        it = np.isclose(frame["n_params"], N) & np.isclose(frame["jets"], D)
        if it.any():
            found[name] = float(frame["loss"][it].iloc[0])
        kept &= ~it
    return replace(losses, frame=frame[kept].reset_index(drop=True)), found


def sweep(seeds: int, noise: Noise, rng: np.random.Generator) -> LossTable:
    """Curves of the paper's widths with test blocks."""
    curves = {"all": CURVE_TRUTH}
    return curves_table(curves, noise, rng, seeds=seeds, evaluations=30)  # type: ignore[arg-type]  # a truth has the part that is drawn from


def trial(losses: LossTable, method: str, *, profile: bool) -> Intervals:
    """Intervals of every model of errors on one table: model to quantity to interval."""
    settings = FitSettings(
        uncertainty=UncertaintySettings(method=method, replicates=REPLICATES, profile=profile),
    )
    rows = select(losses.frame, settings, losses)
    found = estimate("all", rows, losses, settings)
    groups = {method: found.quantities} | found.errors
    intervals: Intervals = {
        name: {key: group[f"approach3.{key}"].ci95 for key in QUANTITIES if f"approach3.{key}" in group}
        for name, group in groups.items()
    }
    for number in (1, 2):
        intervals[method][f"a, approach {number}"] = found.quantities[f"approach{number}.a"].ci95
    if "profile" in found.errors and "approach3.N_star" in found.errors["profile"]:
        intervals["profile"]["N* of the largest C"] = found.errors["profile"]["approach3.N_star"].ci95
    if not found.task.curves.is_curve:
        intervals[method] |= of_law(laws.of_estimate(found, rows))
    return intervals


def of_law(law: laws.Law) -> dict[str, tuple[float, float] | None]:
    """Intervals of N* at the largest budget and of the losses of two runs to come."""
    log_C = np.log([law.C_range[1]])
    assert law.replicates is not None
    N = (np.exp(law.cost.optimum(surfaces, log_C)[0][:, 0]) for surfaces in (law.surface, law.replicates))
    value, draws = N
    return {
        "N* of the largest C": summarise(float(value[0]), draws, law.method, law.dof, "log").ci95,
    } | {
        name: on_surface(law, "sample", {"N": N, "D": D}, []).loss.ci95 for name, (N, D) in FUTURE.items()
    }  # fmt: skip


def wanted(truth: Truth, C_ends: tuple[float, float], future: dict[str, float]) -> dict[str, float]:
    """Values to be covered: of the truth, and the losses of the runs to come."""
    known = truth.known(C_ends)
    return known | future | {
        "a, approach 2": known["a"], "a, approach 1": known["a"],
        "N* of the largest C": truth.optimum(C_ends[1])[0],
    }  # fmt: skip


@dataclass(frozen=True)
class Design:
    """A kind of table, and how many of them.

    Attributes
    ----------
    name : in the table of results.
    make : draws a table.
    method : model of errors.
    truth : behind the tables.
    trials : how many tables.
    profile : whether the profile likelihood is asked too.
    """

    name: str
    make: Maker
    method: str
    truth: Truth
    trials: int
    profile: bool = True


def study(design: Design, kept: Path | None) -> list[dict[str, Any]]:
    """Print and return the coverage of one design, a row for each model of errors."""
    inside: dict[str, dict[str, list[bool]]] = {}
    done = {} if kept is None or not kept.is_file() else _read(kept, design)
    for number in range(design.trials):
        found = done.get(number)
        if found is None:
            found = _one(design, number)
            if kept is not None:
                line = {"design": design.name, "method": design.method, "trial": number, "inside": found}
                with kept.open("a") as file:
                    file.write(json.dumps(line) + "\n")
        for model, group in found.items():
            for key, value in group.items():
                inside.setdefault(model, {}).setdefault(key, []).append(value)
    rows = []
    for model, group in inside.items():
        values = [float(np.mean(group[key])) if key in group else None for key in COLUMNS]
        rows.append({"design": design.name, "errors": model, "trials": design.trials, "values": values})
        cells = (f"{key} {'-' if v is None else f'{v:.2f}'}" for key, v in zip(COLUMNS, values, strict=True))
        print(f"{design.name:30s} {model:13s} {'  '.join(cells)}", flush=True)
    return rows


def _one(design: Design, number: int) -> dict[str, dict[str, bool]]:
    """Which intervals of one table hold the truth: model of errors to quantity."""
    losses, future = without_future(design.make(np.random.default_rng([7, number])))
    C_ends = float(losses.frame["flops"].min()), float(losses.frame["flops"].max())
    values = wanted(design.truth, C_ends, future)
    return {
        model: {
            key: bool(ends[0] <= values[key] <= ends[1])
            for key, ends in group.items()
            if ends is not None and key in values
        }
        for model, group in trial(losses, design.method, profile=design.profile).items()
    }


def _read(kept: Path, design: Design) -> dict[int, dict[str, dict[str, bool]]]:
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    own = (line for line in lines if (line["design"], line["method"]) == (design.name, design.method))
    return {line["trial"]: line["inside"] for line in own}


def designs(noise: Noise, trials: int) -> list[Design]:
    """Everything that is simulated, the longest last."""
    found = []
    families: tuple[tuple[str, Callable[[float], Truth], tuple[float, float]], ...] = (
        ("wrong", lambda p: Truth(p=p), (1.0, 6.0)),
        ("bent, wrong", lambda bend: Bent(bend=bend), (0.0, 3.0)),
    )
    for word, of, ends in families:
        for rms in WRONG:
            truth = wrong_by(rms, of, ends, *points(5, 6))
            make = partial(grid, truth, 5, 6, noise)
            found.append(Design(f"5 x 6, form {word} by {100 * rms:g}%", make, "wild", truth, trials))
    for sizes, amounts in ((3, 3), (4, 4), (5, 6), (6, 8)):
        name, make = f"{sizes} x {amounts} final losses", partial(grid, GRID_TRUTH, sizes, amounts, noise)
        found += [  # the profile is the same for both
            Design(name, make, method, GRID_TRUTH, trials, method == "wild") for method in ("wild", "runs")
        ]
    for seeds in (1, 2, 5):
        method = "wild" if seeds == 1 else "hierarchical"
        name, make = f"12 widths, {seeds} seed{'s' * (seeds > 1)}, curves", partial(sweep, seeds, noise)
        found.append(Design(name, make, method, CURVE_TRUTH, trials // 2))
    return found


def main() -> None:
    """Run the designs; the rows go into the report of every analysis."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    kept = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    words = sys.argv[3] if len(sys.argv) > 3 else ""
    noise = Noise(runs=0.003, test_jets=1_000_000)
    print(f"{trials} trials a design (curves: half); coverage of nominal 95% intervals")
    rows = {(row["design"], row["errors"]): row for row in before()}
    for design in designs(noise, trials):
        if words in design.name:
            rows |= {(row["design"], row["errors"]): row for row in study(design, kept)}
    write_json(RESULT, {"columns": list(COLUMNS), "rows": list(rows.values())})


def before() -> list[dict[str, Any]]:
    """Rows of the last result, with the columns of this one."""
    if not RESULT.is_file():
        return []
    found = json.loads(RESULT.read_text())
    for row in found["rows"]:
        values = dict(zip(found["columns"], row["values"], strict=True))
        row["values"] = [values.get(key) for key in COLUMNS]
    return list(found["rows"])


if __name__ == "__main__":
    main()
