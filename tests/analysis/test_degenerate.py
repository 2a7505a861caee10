"""Groups, budgets and amounts at the edge of sense: a reason instead of a number that means nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import FitSettings, fit, load_losses, plan, predict_loss
from jetscale.analysis.answers.fit_result import FitResult
from jetscale.analysis.answers.next_runs import next_runs
from jetscale.analysis.answers.total_plan import plan_total
from jetscale.analysis.fitting.numbers import distinct, plain, same_values, summarise
from jetscale.analysis.settings import (
    Approach2Settings,
    Approach3Settings,
    CurveSettings,
    JointSettings,
    UncertaintySettings,
)
from jetscale.common.usage import UsageError
from tests.analysis.test_cases import grid

FEW = FitSettings(
    uncertainty=UncertaintySettings(replicates=25, profile=False),
    multiverse=False,
    joint=JointSettings(replicates=25),
)
NAN, INF = float("nan"), float("inf")


def fitted(path: Path, rows: pd.DataFrame, settings: FitSettings = FEW) -> FitResult:
    rows.to_csv(path, index=False)
    return fit(load_losses(path), settings)


def beside_scratch(loss: Any) -> pd.DataFrame:
    other = grid(seed=2)
    return pd.concat([grid(seed=1).assign(subset="scratch"), other.assign(subset="qcd", loss=loss(other))])


def flat_in_data(rows: pd.DataFrame) -> pd.Series[float]:
    return (1.8 + 400 / rows["N"] ** 0.34) * np.exp(0.003 * np.random.default_rng(0).standard_normal(36))


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (flat_in_data, "its losses do not fall with D: D_T is at least 10,000 times the largest D"),
        (lambda rows: 1 / rows["loss"], "alpha at a bound: the losses do not fall with N and D"),
    ],
)
def test_a_group_whose_loss_does_not_fall_is_not_worth_a_number(tmp_path: Path, loss: Any, why: str) -> None:
    """D_T was the limit of the search: "worth 1,800,000,000,000,000 [1,200,..., 2,500,...] samples"."""
    result = fitted(tmp_path / "t.csv", beside_scratch(loss))
    found = plain(result.to_json())
    worth = found["transfer"]["qcd"]
    assert worth["D_T"]["value"] is None
    assert worth["sentence"].startswith(f"what pretraining on qcd is worth is not known: {why}")
    assert worth["refused"]["q"].startswith(why)
    assert all(row["D_T"]["value"] is None for row in worth["by_width"])
    if why.startswith("alpha"):  # its A was 4.5e-215 in the joint fit, whose ratio to scratch's was tested
        assert "joint" not in found
        assert any("joint: without qcd, whose loss does not fall" in text for text in result.warnings)
    # what scratch says by itself stays
    assert result.subsets["scratch"].approach3["a"].value == pytest.approx(0.521, abs=0.02)


def test_what_extra_data_is_worth_is_found_where_it_is_determined(tmp_path: Path) -> None:
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(36))
    rows = beside_scratch(lambda r: (1.8 + 400 / r["N"] ** 0.34 + 2000 / (r["D"] + 5e9) ** 0.37) * noise)
    found = plain(fitted(tmp_path / "t.csv", rows).to_json())
    low, high = found["transfer"]["qcd"]["D_T"]["ci95"]
    assert low < 5e9 < high < 1.5 * low
    assert "joint" in found


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return fitted(tmp_path_factory.mktemp("plain") / "t.csv", grid())


@pytest.mark.parametrize("amount", [-1.0, NAN, INF, 1e61, "1e20", None, True])
def test_amounts_that_are_none_are_refused_from_python_too(result: FitResult, amount: Any) -> None:
    for ask in (
        lambda: plan(result, amount),
        lambda: plan(result, amount, loss=2.5),  # would be passed over
        lambda: plan(result, loss=amount),
        lambda: plan(result, gpu_hours=1.0, rate=amount),
        lambda: plan(result, 1e20, simulate_seconds=amount),
        lambda: predict_loss(result, N=amount, D=1e9),
        lambda: predict_loss(result, N=1e8, C=amount),
        lambda: next_runs(result, "a", amount),
        lambda: plan_total(result, amount),
        lambda: plan_total(result, 1e18, simulate=amount),
    ):
        with pytest.raises(UsageError, match="must be a number from 0 to 1e\\+60"):
            ask()


@pytest.mark.parametrize("level", [0, 100, -5, NAN, "95"])
def test_levels_that_are_none_are_refused_from_python_too(result: FitResult, level: Any) -> None:
    with pytest.raises(UsageError, match=r"must be a number from 1 to 99\.9, in %"):
        predict_loss(result, N=1e8, D=1e9, levels=[80, level])


def test_a_loss_near_the_floor_has_no_upper_end(result: FitResult) -> None:
    """Replicates whose floor lies above the loss need infinite compute; they were left out."""
    floor = result.subsets["all"].approach3["L_inf"].value
    assert floor is not None
    near = plan(result, loss=floor + 1e-3).allocations["all"]
    assert near.compute.value is not None
    assert near.compute.ci95 is None
    assert any("% of the replicates the floor L_inf lies above this loss" in flag for flag in near.flags)
    far = plan(result, loss=floor + 0.5).allocations["all"]
    assert far.compute.ci95 is not None
    assert not any("floor" in flag for flag in far.flags)


def test_infinite_replicates_are_an_upper_end() -> None:
    draws = np.exp(np.random.default_rng(0).standard_normal(1000))
    draws[:20] = np.inf  # 2%: below the upper tail of 95%, not of 99%
    assert summarise(1.0, draws, "wild", 30, "log").ci95 is not None
    assert summarise(1.0, draws, "wild", 30, "log", [99.0]).ci95 is None
    draws[:50] = np.inf
    assert summarise(1.0, draws, "wild", 30, "log").ci95 is None


def test_a_law_of_one_variable_refuses_a_budget_it_says_nothing_of(tmp_path: Path) -> None:
    rows = grid()
    of_N = fitted(tmp_path / "n.csv", rows[rows["D"] == rows["D"].max()])
    assert predict_loss(of_N, N=1e8).predictions["all"].loss.value == pytest.approx(2.74, abs=0.03)
    with pytest.raises(UsageError, match=r"says nothing of C = 1e\+21; leave C out"):
        predict_loss(of_N, N=1e8, C=1e21)
    ray = fitted(tmp_path / "c.csv", grid(sizes=tuple(np.geomspace(1e7, 3e9, 9)))[lambda f: f["D"] < 0].pipe(
        lambda _: pd.DataFrame({"N": np.geomspace(1e7, 3e9, 12)}).assign(
            D=lambda f: 20 * f["N"], loss=lambda f: 1.8 + 2e3 / (120 * f["N"] ** 2) ** 0.18)
    ))  # fmt: skip
    N = 1e8
    assert predict_loss(ray, N=N, D=20 * N, C=120 * N**2).predictions["all"].loss.value is not None
    with pytest.raises(UsageError, match="is not that of N"):
        predict_loss(ray, N=N, D=20 * N, C=1e21)


def test_sizes_that_scratch_does_not_have_are_named(tmp_path: Path) -> None:
    """Counts that differ by a head made the whole table of gains go away without a word."""
    curves = grid().assign(run=lambda rows: rows["N"].astype(str))
    other = curves.assign(subset="qcd", N=1.005 * curves["N"], loss=0.95 * curves["loss"])
    rows = pd.concat([curves.assign(subset="scratch"), other])
    result = fitted(tmp_path / "t.csv", rows, FitSettings(
        uncertainty=UncertaintySettings(method="none", profile=False), multiverse=False,
        joint=JointSettings(on=False)))  # fmt: skip
    said = [text for text in result.warnings if text.startswith("no gain of qcd")]
    sizes = "1.005e+07, 3.015e+07, 1.005e+08, 3.015e+08, 1.005e+09, 3.015e+09"
    assert said == [f"no gain of qcd at n_params = {sizes}: scratch has no curve of the same size"]


def test_settings_at_the_ends_of_their_ranges(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    grid().to_csv(path, index=False)
    losses = load_losses(path)

    def one(**settings: Any) -> Any:
        errors = UncertaintySettings(method="none", profile=False)
        return fit(losses, FitSettings(uncertainty=errors, multiverse=False, **settings)).subsets["all"]

    tiny = one(approach3=Approach3Settings(delta=1e-300))  # the curvature underflows: no digit is known
    assert tiny.approach3["a"].value is None
    with pytest.raises(UsageError, match=r"approach2\.window=0\.5: must be a factor of at least 1"):
        one(approach2=Approach2Settings(window=0.5))
    narrow = one(approach2=Approach2Settings(window=1.0))
    assert narrow.approach2["a"].value is None
    assert any("1 sizes, 4 needed" in text for text in narrow.warnings)


# ---- counts of one thing that differ by a little


def test_counts_that_differ_by_less_than_a_thousandth_are_one() -> None:
    three = np.log([1e7, 1.0001e7, 1.0009e7, 3e7])
    assert distinct(three) == 2
    np.testing.assert_array_equal(same_values(three[::-1])[::-1], np.log([1e7, 1e7, 1e7, 3e7]))
    steps = np.log(np.arange(2_000, 20_000))  # a chain of small steps is no single D
    assert distinct(steps) > 2_000
    np.testing.assert_array_equal(same_values(steps), steps)
    assert (distinct(np.empty(0)), len(same_values(np.empty(0)))) == (0, 0)


@pytest.mark.parametrize("jitter", [1e-4, 3e-3])
def test_two_sizes_of_three_counts_each_carry_no_parabola(tmp_path: Path, jitter: float) -> None:
    """Approach 2 took them for six sizes: a = 0.05 without a warning."""
    rows = grid(sizes=(1e7, 3e8))
    rng = np.random.default_rng(1)
    seeds = pd.concat([
        rows.assign(N=rows["N"] * (1 + jitter * k), loss=rows["loss"] * noise)
        for k, noise in enumerate(np.exp(0.003 * rng.standard_normal((3, 12))))
    ])  # fmt: skip
    found = fitted(tmp_path / "t.csv", seeds).subsets["all"]
    assert all(found.approach(number)["a"].value is None for number in (1, 2))
    assert (found.approach3["a"].value is None) == (jitter < 1e-3)


@pytest.mark.parametrize("jitter", [0.0, 1e-4])
def test_seeds_whose_counts_differ_are_seeds(tmp_path: Path, jitter: float) -> None:
    """They were 18 sizes: not averaged, and approach 2 at .43 for .51 where only two true sizes were left."""
    rng, runs = np.random.default_rng(5), []
    for N in np.geomspace(1e6, 1e9, 6).round():
        for seed in range(3):
            D = np.geomspace(1e8, 1e11, 25).round()
            noise = np.exp(0.002 * rng.standard_normal() + 5e-4 * rng.standard_normal(25))
            curve = {
                "N": N * (1 + jitter * seed),
                "D": D,
                "loss": (1.8 + 400 / N**0.34 + 2000 / D**0.37) * noise,
            }
            runs.append(pd.DataFrame(curve).assign(run=f"{N:g}-{seed}", seed=seed))
    settings = FitSettings(
        curves=CurveSettings("paper"), uncertainty=UncertaintySettings(replicates=30, profile=False),
        multiverse=False)  # fmt: skip
    found = fitted(tmp_path / "t.csv", pd.concat(runs), settings).subsets["all"]
    assert found.method == "hierarchical"
    assert found.n_sizes == 6
    assert found.approach2["a"].value == pytest.approx(0.5115, abs=0.001)
    assert found.approach3["a"].value == pytest.approx(0.5218, abs=0.001)
