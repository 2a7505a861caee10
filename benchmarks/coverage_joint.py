"""Joint fits, their tests and laws of transfer, on simulated studies of the laptop's design.

``python -m benchmarks.coverage_joint RECORDS.jsonl [FIRST] [LAST] [WORDS]`` simulates the studies of these
numbers (0 and 200) of each scenario whose name holds the words, appends one line a study to the records
(those that are there already are kept), and sums up in ``jetscale/analysis/joint/coverage.json`` (scenarios
without a record keep their entry) and, as the tables of docs/analysis.md, on the terminal.

The design is that of studies/laptop/tuned_rate: its subsets, widths, seeds and D. Losses are a known law plus
the deviations of the real seeds from their mean, whole curves drawn at random with random signs, so scatter
and correlation along a curve are those measured there. In misspecified scenarios ln L bends in ln N and ln D
besides, by a given rms, either the same in all subsets or different in each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.coverage_transfer import (
    COMPOSITIONS,
    OPTIMUM,
    PAID,
    POWERS,
    TRUE,
    ask_decay,
    ask_total,
    ask_worth,
    truths_of_decay,
    truths_of_total,
    truths_of_worth,
    with_decaying_gain,
    with_extra_data,
)
from jetscale.analysis import FitSettings, LossTable, load_losses
from jetscale.analysis.errors import resampling
from jetscale.analysis.fitting.approach import joined
from jetscale.analysis.fitting.approach3 import NAME, SurfaceApproach
from jetscale.analysis.fitting.curves import build
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.task import Task, make_task
from jetscale.analysis.joint.answer import joint_estimates, quantity_of, ratio_of, tests_of
from jetscale.analysis.joint.bends import lacks_of_fit, misses
from jetscale.analysis.joint.data import Facts, JointData
from jetscale.analysis.joint.transfer import LAWS
from jetscale.analysis.settings import CurveSettings, UncertaintySettings
from jetscale.analysis.tables.selection import select
from jetscale.common.files import write_json

Array = NDArray[np.float64]
Record = dict[str, Any]

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "studies/laptop/tuned_rate/losses.parquet"
RESULT = ROOT / "jetscale/analysis/joint/coverage.json"
REPLICATES = 100
ASKED = ("same_exponents", "same_A")
POINTS = 9  # a curve: its points are correlated, more of them say little and take longer
SUBSETS = ("scratch", "qcd", "qcd_res2p", "qcd_res34p", "bsm_all")
RATIOS = (1.0, 0.8, 0.6, 0.6, 0.5)  # of B to scratch's, in the order of SUBSETS
STEPS = (0.0, -0.03, -0.06, -0.09, -0.12)  # of alpha (up) and beta (down) where exponents differ


@dataclass(frozen=True)
class Scenario:
    """What is true, and what is asked.

    Attributes
    ----------
    name : of it. surfaces : by subset. bend : rms of the bends of ln L. common : the same in all subsets.
    ask : from the fitted data to what is recorded.
    """

    name: str
    surfaces: dict[str, Surfaces]
    bend: float
    common: bool
    ask: Callable[[JointData], Record]


def with_ratios() -> dict[str, Surfaces]:
    """One law; only B differs."""
    return {
        name: Surfaces.single(**{**TRUE, "B": TRUE["B"] * ratio})
        for name, ratio in zip(SUBSETS, RATIOS, strict=True)
    }


def with_steps() -> dict[str, Surfaces]:
    """Exponents that differ, with the losses in the middle of the design nearly the same."""
    found = {}
    for name, step in zip(SUBSETS, STEPS, strict=True):
        alpha, beta = TRUE["alpha"] - step, TRUE["beta"] + step
        A = TRUE["A"] * np.exp((alpha - TRUE["alpha"]) * np.log(2e4))
        B = TRUE["B"] * np.exp((beta - TRUE["beta"]) * np.log(4e4))
        found[name] = Surfaces.single(E=TRUE["E"], A=float(A), B=float(B), alpha=alpha, beta=beta)
    return found


def ask_tests(data: JointData) -> Record:
    """P-values, exponents and ratios of the joint fit, and differences of separate fits."""
    shared = frozenset({"alpha", "beta"})
    whole, model, _, _ = joint_estimates(data, shared)
    tests = tests_of(data, whole, shared, "scratch", ASKED, misses(lacks_of_fit(data)))
    one = SUBSETS[-1]
    of_pair = tests["same_exponents"]["contrasts"][f"{one} - scratch"]
    return {
        "p": {name: (test["p_runs"], test["p_misfit"], test["p"]) for name, test in tests.items()},
        "detectable": tests["same_exponents"]["detectable"],
        "intervals": {
            **{key: quantity_of(data, whole, "scratch", key).ci95 for key in ("alpha", "beta", "a")},
            "B ratio": ratio_of(data, whole, one, "scratch", "B").ci95,
            **{f"difference of {key}": of_pair[key]["ci95"] for key in ("alpha", "beta", "a")},
        },
        "B ratio": float((whole.values[one]["B"] / whole.values["scratch"]["B"])[0]),
        "parameters": len(model.model.names),
    }


SCENARIOS = (
    Scenario("one law, B differs", with_ratios(), 0.0, True, ask_tests),
    Scenario("exponents differ", with_steps(), 0.0, True, ask_tests),
    Scenario("extra data", with_extra_data(POWERS), 0.0, True, ask_worth),
    Scenario("one law, bends 2% in common", with_ratios(), 0.02, True, ask_tests),
    Scenario("one law, bends 2% of each", with_ratios(), 0.02, False, ask_tests),
    Scenario("extra data, bends 2% of each", with_extra_data(POWERS), 0.02, False, ask_worth),
    Scenario("extra data that pays", with_extra_data(PAID), 0.0, True, ask_total),
    Scenario("gain that decays", with_decaying_gain(), 0.0, True, ask_decay),
)


@lru_cache(maxsize=1)
def design() -> LossTable:
    """The table whose N, D, seeds and subsets are taken."""
    return load_losses(TABLE)


@lru_cache(maxsize=1)
def deviations() -> dict[float, list[Array]]:
    """By width: curves of one seed's ln L less the mean of its seeds, free of the shrinking by that mean."""
    table, found = design(), {}
    frame = table.frame[(table.frame["split"] == "test") & (table.frame["weights"] == "ema")]
    for (dim, _), rows in frame.groupby(["dim", "subset"]):
        curves = rows.pivot_table(index="jets", columns="seed", values="loss").map(np.log)
        seeds = curves.shape[1]
        off = curves.sub(curves.mean(axis=1), axis=0) * np.sqrt(seeds / (seeds - 1))
        found.setdefault(float(dim), []).extend(off[seed].to_numpy() for seed in off)
    return found


def simulated(scenario: Scenario, rng: np.random.Generator) -> LossTable:
    """A study: the truth, bends, and scatter of the runs."""
    table = design()
    frame = table.frame[(table.frame["split"] == "test") & (table.frame["weights"] == "ema")].copy()
    log_N, log_D = np.log(frame["n_params"].to_numpy(float)), np.log(frame["jets"].to_numpy(float))
    log_L = np.empty(len(frame))
    shapes = np.stack([_unit(log_N) ** 2, _unit(log_N) * _unit(log_D), _unit(log_D) ** 2])
    drawn = rng.standard_normal((len(SUBSETS), 3))
    for at, name in enumerate(SUBSETS):
        of = (frame["subset"] == name).to_numpy()
        log_L[of] = scenario.surfaces[name].log_loss(log_N[of], log_D[of])[0]
        bend = drawn[0 if scenario.common else at] @ shapes[:, of]
        bend -= bend.mean()
        log_L[of] += scenario.bend * bend / np.sqrt((bend**2).mean())
    for _, rows in frame.groupby("run"):
        curves = deviations()[float(rows["dim"].iloc[0])]
        order = rows["jets"].argsort().to_numpy()
        where = frame.index.get_indexer(rows.index[order])
        log_L[where] += rng.choice([-1.0, 1.0]) * curves[rng.integers(len(curves))][: len(where)]
    frame["loss"] = np.exp(log_L)
    return LossTable(frame, "simulated", table.flops_per_param_sample, table.sample)


def _unit(x: Array) -> Array:
    return (x - x.mean()) / x.std()


def prepared(losses: LossTable, *, alone: bool) -> JointData:
    """Tasks and replicates of every subset; `alone`: with the fits of each subset by itself to these."""
    settings = FitSettings(
        curves=CurveSettings(points=POINTS), uncertainty=UncertaintySettings(replicates=REPLICATES)
    )
    tasks: dict[str, Task] = {}
    replicates, draws, facts = {}, {}, {}
    for name in SUBSETS:
        rows = select(losses.frame[losses.frame["subset"] == name], settings, losses)
        log_L_E = np.log(rows["loss"].to_numpy(float))
        curves = build(rows, settings.curves.resolved(losses.own_runs))
        task = make_task(name, curves, log_L_E, settings, losses.flops_per_param_sample)
        one = resampling.draw("hierarchical", curves, 5, log_L_E, None, None, None, settings.uncertainty)
        tasks[name], replicates[name] = task, one
        own = SurfaceApproach(NAME).draws(task, one.log_L_RP, one.weight_RP) if alone else {}
        draws[name] = joined(NAME, own)
        dims = dict(zip(rows["n_params"].astype(float), rows["dim"].astype(float), strict=True))
        facts[name] = Facts(0.0 if name == "scratch" else 1e5, dims)
    return JointData(tasks, replicates, facts, draws, REPLICATES)


def truths(scenario: Scenario) -> dict[str, float]:
    """True values of what has an interval."""
    one, other = (scenario.surfaces[name] for name in (SUBSETS[-1], "scratch"))
    if scenario.ask is ask_tests:
        shared = scenario.surfaces["scratch"]["alpha"][0] == one["alpha"][0]
        alpha, beta = (float(other[key][0]) for key in ("alpha", "beta"))
        found = {f"difference of {key}": float(one[key][0] - other[key][0]) for key in ("alpha", "beta")}
        a = [float(s["beta"][0] / (s["alpha"][0] + s["beta"][0])) for s in (one, other)]
        found["difference of a"] = a[0] - a[1]
        if shared:
            found |= {"alpha": alpha, "beta": beta, "a": a[1]}
            found["B ratio"] = float(np.exp(one["log_B"][0] - other["log_B"][0]))
        return found
    if scenario.ask is ask_total:
        return truths_of_total()
    if scenario.ask is ask_decay:
        return truths_of_decay()
    return truths_of_worth(np.unique(design().frame["n_params"]))


def summed_up(records: list[Record]) -> dict[str, Any]:
    """Coverage and rejections by scenario."""
    found = {}
    for scenario in SCENARIOS:
        mine = [record for record in records if record["scenario"] == scenario.name]
        if not mine:
            continue
        true, entry = truths(scenario), {"studies": len(mine), "bend": scenario.bend}
        entry["coverage"] = {
            key: float(np.mean([ends[0] <= value <= ends[1] for ends in known]))
            for key, value in true.items()
            if (known := [r["intervals"][key] for r in mine if r["intervals"].get(key)])
        }
        tested = [record for record in mine if record.get("p")]
        if tested:
            entry["tested"] = len(tested)
            entry["rejected"] = {
                test: {
                    kind: float(np.mean([(r["p"][test][at] or 0.0) < 0.05 for r in tested]))
                    for at, kind in ((0, "runs"), (2, "both"))
                }
                for test in ASKED
            }
            entry["B ratio sd"] = float(np.std([r["B ratio"] for r in mine]))
            entry["detectable a"] = float(np.median([r["detectable"]["a"] for r in tested]))
        compared = [record for record in mine if "best" in record]
        if compared:
            entry["compared"] = len(compared)
            entry["chosen"] = {name: float(np.mean([r["best"] == name for r in compared])) for name in LAWS}
            entry["chosen"]["separate"] = float(np.mean([r["best"] == "separate" for r in compared]))
            entry["worse"] = {
                name: float(np.mean([name in r["worse"] for r in compared])) for name in entry["chosen"]
            }
        found[scenario.name] = entry
    return found


def tables(found: dict[str, Any]) -> str:
    """Coverage of the tests' scenarios, and of those of extra data, as tables of docs/analysis.md."""
    asked = ("alpha", "beta", "a", "difference of a", "B ratio")
    heads = ("alpha | beta | a | difference of a | ratio of B", "same exponents rejected: by runs, verdict")
    lines = [f"| truth and misfit | studies | {' | '.join(heads)} | same A rejected: verdict | of |"]
    lines.append(f"|{'---|' * 10}")
    for name, entry in found.items():
        if "rejected" in entry:
            cells = [_cell(entry["coverage"].get(key)) for key in asked]
            exponents, A = (entry["rejected"][test] for test in ASKED)
            cells += [f"{_cell(exponents['runs'])}, {_cell(exponents['both'])}", _cell(A["both"])]
            cells.append(str(entry["tested"]))
            lines.append(f"| {name} | {entry['studies']} | {' | '.join(cells)} |")
    lines += ["", "| truth and misfit | studies | beta | B | D_T of two compositions | k | p | q |"]
    lines.append(f"|{'---|' * 8}")
    for name, entry in found.items():
        share = entry["coverage"]
        if "qcd D_T" in share:
            cells = [_cell(share.get(key)) for key in ("beta", "B")]
            cells += _of_both(share, ("D_T", "k", "p", "q"))
            lines.append(f"| {name} | {entry['studies']} | {' | '.join(cells)} |")
    lines += [
        "",
        "| truth | studies | optimum of a total budget: N | D_pre | D | loss | loss over scratch's |",
    ]
    lines.append(f"|{'---|' * 7}")
    for name, entry in found.items():
        if "qcd D_pre" in entry["coverage"]:
            cells = _of_both(entry["coverage"], OPTIMUM)
            lines.append(f"| {name} | {entry['studies']} | {' | '.join(cells)} |")
    lines += ["", "| truth | studies | alpha | beta | B | k | p | q | s |", f"|{'---|' * 9}"]
    for name, entry in found.items():
        if "qcd s" in entry["coverage"]:
            cells = [_cell(entry["coverage"].get(key)) for key in ("alpha", "beta", "B")]
            cells += _of_both(entry["coverage"], "kpqs")
            lines.append(f"| {name} | {entry['studies']} | {' | '.join(cells)} |")
    lines += ["", f"| truth | studies | {' | '.join((*LAWS, 'separate'))} |", f"|{'---|' * (3 + len(LAWS))}"]
    for name, entry in found.items():
        if "chosen" in entry:
            cells = [
                f"{_cell(entry['chosen'].get(law, 0.0))}, {_cell(entry['worse'].get(law, 0.0))}"
                for law in (*LAWS, "separate")
            ]
            lines.append(f"| {name} | {entry['compared']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of_both(share: dict[str, float], keys: Iterable[str]) -> list[str]:
    """Cells with the shares of both compositions."""
    return [", ".join(_cell(share.get(f"{one} {key}")) for one in COMPOSITIONS) for key in keys]


def _cell(share: float | None) -> str:
    return "–" if share is None else f"{share:.2f}"


def main() -> None:
    """Simulate what is not recorded yet, then sum up."""
    path = Path(sys.argv[1])
    first, last = (int(sys.argv[at]) if len(sys.argv) > at else default for at, default in ((2, 0), (3, 200)))
    words = sys.argv[4] if len(sys.argv) > 4 else ""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = {(record["scenario"], record["trial"]) for record in records}
    for trial in range(first, last):
        for number, scenario in enumerate(SCENARIOS):
            if (scenario.name, trial) in done or words not in scenario.name:
                continue
            losses = simulated(scenario, np.random.default_rng([16, number, trial]))
            data = prepared(losses, alone=scenario.ask is ask_tests)
            record = {"scenario": scenario.name, "trial": trial} | scenario.ask(data)
            records.append(json.loads(json.dumps(record)))
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
    before = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    found = before | summed_up(records)
    write_json(RESULT, found)
    print(tables(found))


if __name__ == "__main__":
    main()
