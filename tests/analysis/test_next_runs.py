"""Which runs to train next: the design against brute force, its promise against simulation, the command."""

from __future__ import annotations

import json
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.answers import next_runs as module
from jetscale.analysis.answers.laws import of_estimate
from jetscale.analysis.answers.next_runs import next_runs
from jetscale.analysis.checks.synthetic import Noise, grid_table
from jetscale.analysis.errors.estimate import estimate
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.plan import main
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.selection import select
from jetscale.common.usage import UsageError

TRUTH = Surfaces.single(E=0.35, A=60.0, B=6.0, alpha=0.44, beta=0.22)
N, D = (value.ravel() for value in np.meshgrid(np.geomspace(1e4, 1e7, 4), np.geomspace(1e5, 1e8, 4)))
PLAIN = FitSettings(multiverse=False, uncertainty=UncertaintySettings(replicates=200, profile=False))
GRID_FLOPS = float((6 * N * D).sum())


def table(seed: int = 0, subset: str = "all") -> Any:
    found = grid_table(TRUTH, N, D, Noise(runs=0.003), np.random.default_rng([2, seed]))
    return found.frame.rename(columns={"n_params": "N", "jets": "D"})[["N", "D", "loss"]].assign(
        subset=subset
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("fit")
    pd.concat([table(1, "scratch"), table(2, "qcd")]).to_csv(folder / "t.csv", index=False)
    fit(load_losses(folder / "t.csv"), PLAIN).save(folder)
    return folder


def spread_of_a(more_N: Any, more_D: Any, trials: int = 120) -> float:
    """Standard deviation of a over simulated studies of the grid with these runs besides (least squares)."""
    x, y = np.log(np.append(N, more_N)), np.log(np.append(D, more_D))
    rng = np.random.default_rng(11)
    log_L = TRUTH.log_loss(x, y) + 0.003 * rng.standard_normal((trials, len(x)))
    found = Fitter(x, y, Objective("squared")).replicates(log_L, np.ones((1, len(x)))).surfaces
    return float((found["beta"] / (found["alpha"] + found["beta"])).std(ddof=1))


def test_the_promised_spread_is_that_of_simulated_studies(saved: Path) -> None:
    """Of the spread of a over 120 studies, as a ratio to that of the bare grid: linearised and simulated."""
    found = next_runs(saved, "a", 0.3 * GRID_FLOPS, subset="scratch")
    assert found.flops <= 0.3 * GRID_FLOPS
    more = [(one.N, one.D) for one in found.choices for _ in range(one.seeds)]
    bare = spread_of_a([], [])
    chosen = spread_of_a(*np.array(more).T)
    assert chosen / bare == pytest.approx(found.sd_then / found.sd_now, rel=0.2)
    assert chosen < 0.8 * bare
    # the even grid for the same compute: 0.3 further seeds of every run divide the variance by 1.3
    assert found.sd_even == pytest.approx(found.sd_now / np.sqrt(1 + found.flops / GRID_FLOPS), rel=1e-6)
    assert chosen < 0.95 * bare / np.sqrt(1.3)
    assert found.even_flops > 1.5 * found.flops


def test_greedy_is_close_to_the_best_pair(saved: Path) -> None:
    laws = module.sources.of(saved)
    parts, _ = module._asked(laws, "a", "scratch", "", 0.0)
    part = module._Part.of(*parts[0])
    budget = 0.05 * GRID_FLOPS
    cheap = [k for k in range(len(part.cost)) if part.cost[k] <= budget]
    best = min(
        part.scale
        * float(part.slope @ np.linalg.solve(part.information + part.added[i] + part.added[j], part.slope))
        for i, j in combinations_with_replacement(cheap, 2)
        if part.cost[i] + part.cost[j] <= budget
    )
    assert next_runs(saved, "a", budget, subset="scratch").sd_then <= np.sqrt(best) * 1.02


def test_the_information_is_that_of_the_fit() -> None:
    """The linearised spread of a, unscaled, is that of least squares: J' J over the scatter."""
    losses = grid_table(TRUTH, N, D, Noise(runs=0.0), np.random.default_rng(0))
    chosen = FitSettings(uncertainty=UncertaintySettings(replicates=20, profile=False, method="runs"))
    found = estimate("all", select(losses.frame, chosen, losses), losses, chosen)
    law = of_estimate(found, losses.frame)
    part = module._Part.of(law, 1.0, module._exponent(law))
    linear = 0.003 * np.sqrt(part.slope @ np.linalg.solve(part.information, part.slope))
    assert spread_of_a([], [], 400) == pytest.approx(linear, rel=0.12)


def test_every_quantity_names_runs_that_help_it(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for quantity in module.QUANTITIES:
        found = next_runs(saved, quantity, 0.2 * GRID_FLOPS, subset="qcd")
        assert found.sd_then < found.sd_even < found.sd_now, quantity
        assert found.even_flops > found.flops
    assert {one.subset for one in next_runs(saved, "difference", GRID_FLOPS).choices} == {"qcd", "scratch"}
    out = saved / "next.json"
    main(
        [f"results={saved}", "runs_for=N_star", f"budget={GRID_FLOPS}", "subset=qcd", "C=1e17", f"out={out}"]
    )
    text = capsys.readouterr().out
    assert "ln N* of qcd at C = 1e+17: standard deviation" in text
    assert "further seeds of every run would need" in text
    assert json.loads(out.read_text())["choices"][0]["subset"] == "qcd"
    for wrong, message in (
        (["runs_for=beta"], "must be one of"),
        (["runs_for=a", f"budget={GRID_FLOPS}"], "give subset=, one of qcd, scratch"),
        (["runs_for=a", "subset=qcd", "budget=1"], "below the cheapest run"),
        (["runs_for=a", "subset=nobody", "budget=1e15"], "no subset 'nobody'"),
    ):
        with pytest.raises(UsageError, match=message):
            main([f"results={saved}", *wrong])


def test_curves_are_designed_too(sweep: Any) -> None:
    path = sweep({"scratch": 0.5}, widths=(16, 32, 64, 128), seeds=2, evaluations=12)
    settings = FitSettings(
        multiverse=False, uncertainty=UncertaintySettings(replicates=60, profile=False, test_jet_samples=0)
    )
    found = next_runs(fit(load_losses(path), settings), "a", 1e17)
    assert found.runs > 0
    assert found.sd_then < found.sd_now
