"""Small tables that once gave a wrong number without a word, and others of the same kinds.

Truth: L = 1.8 + 400/N^.34 + 2000/D^.37, scatter .3%, so a = .521 for C = 6 N D. Files of the developers are
read too where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import FitSettings, LossTable, fit, load_losses, plan
from jetscale.analysis.answers.fit_result import SubsetFit
from jetscale.analysis.fitting.approach2 import slices_of
from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.numbers import Quantity, plain
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.output.report import write_report
from jetscale.analysis.settings import Approach3Settings, UncertaintySettings
from jetscale.common.usage import UsageError

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
TRUTH = Surfaces.single(E=1.8, A=400.0, B=2000.0, alpha=0.34, beta=0.37)
A = 0.521
SIZES = (1e7, 3e7, 1e8, 3e8, 1e9, 3e9)
DATA = (3e8, 1e9, 3e9, 1e10, 3e10, 1e11)
PLAIN = FitSettings(uncertainty=UncertaintySettings(method="none", profile=False), multiverse=False)
WILD = FitSettings(uncertainty=UncertaintySettings(replicates=100, profile=False), multiverse=False)

Load = Callable[..., LossTable]


def grid(sizes: tuple[float, ...] = SIZES, seed: int = 0, scatter: float = 0.003) -> pd.DataFrame:
    N, D = (values.ravel() for values in np.meshgrid(sizes, DATA, indexing="ij"))
    noise = scatter * np.random.default_rng(seed).standard_normal(len(N))
    return pd.DataFrame({"N": N, "D": D, "loss": np.exp(TRUTH.log_loss(np.log(N), np.log(D))[0] + noise)})


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(frame: pd.DataFrame, **options: Any) -> LossTable:
        frame.to_csv(tmp_path / "table.csv", index=False)
        return load_losses(tmp_path / "table.csv", **options)

    return write_and_load


@pytest.fixture
def case() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        if not (CASES / name).is_file():
            pytest.skip(f"{CASES / name} is missing: an input of the developers")
        return CASES / name

    return find


def one(losses: LossTable, settings: FitSettings = PLAIN) -> SubsetFit:
    return fit(losses, settings).subsets["all"]


def value(found: SubsetFit, number: int) -> float:
    a = found.approach(number)["a"].value
    assert a is not None
    return a


def outliers(found: SubsetFit) -> list[str]:
    return [text for text in found.warnings if "robust standard deviations" in text]


# ---- outliers


def spoilt(rows: list[int], factor: float, seed: int = 0) -> pd.DataFrame:
    frame = grid(seed=seed)
    frame.loc[rows, "loss"] *= factor
    return frame


@pytest.mark.parametrize(
    ("rows", "factor"),
    [([3, 8, 22, 31], 3.0), ([35], 4.5), ([0], 3.0), ([14], 1 / 3), ([5, 30], 1.1), ([20], 0.94)],
)
def test_outliers_are_named_once_and_fool_nothing(load: Load, rows: list[int], factor: float) -> None:
    found = one(load(spoilt(rows, factor)), WILD)
    clean = one(load(grid()), WILD)
    (text,) = outliers(found)
    assert all(f"row {row} (N = " in text for row in rows)
    assert text.count("predicted") == len(rows)
    assert len(found.details["outliers"]) == len(rows)
    assert value(found, 2) == pytest.approx(A, abs=0.02)
    assert value(found, 3) == pytest.approx(A, abs=0.02)
    assert value(found, 1) == pytest.approx(value(clean, 1), abs=0.03)
    test = found.details["lack_of_fit"]
    assert test["residual_rms"] < 0.006
    assert test["p_value"] > 0.01


def test_the_test_of_fit_still_sees_what_an_outlier_hid(load: Load) -> None:
    frame = spoilt([35], 4.5)
    frame["loss"] *= np.exp(0.01 * np.log(frame["N"] / 1e8) * np.log(frame["D"] / 1e10))
    assert one(load(frame)).details["lack_of_fit"]["p_value"] < 1e-3


@pytest.mark.parametrize("objective", ["squared", "absolute"])
def test_outliers_are_found_whatever_is_minimised(load: Load, objective: str) -> None:
    settings = FitSettings(
        approach3=Approach3Settings(objective=objective),
        uncertainty=UncertaintySettings(method="none", profile=False),
        multiverse=False,
    )
    found = one(load(spoilt([17], 3.0)), settings)
    assert [row["run"] for row in found.details["outliers"]] == ["row 17"]


@pytest.mark.parametrize("scatter", [1e-5, 0.003, 0.05])
def test_clean_tables_have_no_outliers(load: Load, scatter: float) -> None:
    for seed in range(3):
        assert outliers(one(load(grid(seed=seed, scatter=scatter)))) == []


@pytest.mark.parametrize("digits", [3, 12])
def test_losses_without_scatter_have_no_outliers(load: Load, digits: int) -> None:
    assert outliers(one(load(grid(scatter=0.0).round({"loss": digits})))) == []


def test_a_diverged_seed_that_the_mean_hides_is_named(load: Load) -> None:
    step = np.geomspace(1e8, 1e11, 12)
    frames = []
    rng = np.random.default_rng(0)
    for N in SIZES:
        for seed in range(3):
            off = 0.003 * rng.standard_normal() + (np.log(1.3) if (N, seed) == (1e8, 1) else 0.0)
            loss = np.exp(TRUTH.log_loss(np.log(N) + 0 * step, np.log(step))[0] + off)
            run = f"{N:g}/{seed}"
            frames.append(pd.DataFrame({"run": run, "seed": seed, "N": N, "D": step, "loss": loss}))
    losses = load(pd.concat(frames))
    settings = deepcopy(PLAIN)
    settings.curves.protocol = "paper"
    (text,) = outliers(one(losses, settings))
    assert "1e+08/1 (N = 1e+08" in text


def test_diverged_file(case: Callable[[str], Path]) -> None:
    found = one(load_losses(case("diverged.csv")))
    assert len(found.details["outliers"]) == 4
    assert value(found, 2) == pytest.approx(A, abs=0.02)
    assert len(outliers(found)) == 1


def test_outlier_file(case: Callable[[str], Path]) -> None:
    found = one(load_losses(case("outlier.csv")))
    (row,) = found.details["outliers"]
    assert [row["N"], row["D"], row["loss"]] == pytest.approx([3e9, 1e11, 9.0])
    assert row["predicted"] == pytest.approx(2.2, abs=0.05)
    assert found.details["lack_of_fit"]["residual_rms"] < 0.005


# ---- approach 1


def reason(found: SubsetFit) -> str:
    (text,) = [text for text in found.warnings if text.startswith("approach 1: no exponent: ")]
    return text


def test_two_sizes_give_no_exponent(load: Load) -> None:
    found = one(load(grid(SIZES[:3:2])))
    assert found.approach1["a"].value is None
    assert "holds 2 sizes, 3 needed" in reason(found)


@pytest.mark.parametrize("ratio", [20.0, 1.0, 1000.0])
def test_data_in_proportion_to_size_give_no_exponent(load: Load, ratio: float) -> None:
    N = np.geomspace(1e7, 1e10, 20)
    loss = np.exp(TRUTH.log_loss(np.log(N), np.log(ratio * N))[0])
    found = one(load(pd.DataFrame({"N": N, "D": ratio * N, "loss": loss})))
    assert found.approach1["a"].value is None
    assert "same multiple of N" in reason(found)


def test_sizes_that_all_lie_at_the_edge_give_no_exponent(load: Load) -> None:
    """Larger models always saw more data, so no budget was tried with a larger model and less data."""
    N = np.repeat(np.geomspace(1e7, 1e10, 8), 2)
    D = 20 * N * np.tile([1.0, 1.5], 8)
    frame = pd.DataFrame({"N": N, "D": D, "loss": np.exp(TRUTH.log_loss(np.log(N), np.log(D))[0])})
    found = one(load(frame))
    assert found.approach1["a"].value is None
    assert "inside the grid" in reason(found)


def test_a_grid_gives_an_exponent(load: Load) -> None:
    assert value(one(load(grid())), 1) == pytest.approx(A, abs=0.04)


def test_two_sizes_file(case: Callable[[str], Path]) -> None:
    found = one(load_losses(case("two_sizes.csv")))
    assert [found.approach(number)["a"].value for number in (1, 2, 3)] == [None] * 3


# ---- the cost given


def with_attention(sizes: tuple[float, ...] = SIZES, scatter: float = 0.003) -> pd.DataFrame:
    frame = grid(sizes, scatter=scatter)
    return frame.assign(C=6 * frame["N"] * frame["D"] * (1 + 1.2 * (1e7 / frame["N"]) ** 0.33))


def true_optimum(log_C: np.ndarray) -> np.ndarray:
    """Ln N* by a fine search along the budget."""
    log_N = np.linspace(np.log(1e5), np.log(1e12), 100_001)
    log_k = np.log(6 * (1 + 1.2 * (1e7 / np.exp(log_N)) ** 0.33))
    return np.array([log_N[TRUTH.log_loss(log_N, one_C - log_k - log_N)[0].argmin()] for one_C in log_C])


def test_the_cost_given_is_used_for_exponents_and_plans(load: Load) -> None:
    result = fit(load(with_attention(scatter=1e-6)), PLAIN)
    found = result.subsets["all"]
    C = with_attention()["C"]
    log_C = np.linspace(np.log(C.min()), np.log(C.max()), 9)
    slope = np.polyfit(log_C, true_optimum(log_C), 1)[0]
    assert value(found, 3) == pytest.approx(slope, abs=0.001)
    assert value(found, 3) > 0.529  # 0.521 for C = k N D
    assert any("for the C given" in text for text in found.warnings)
    allocation = plan(result, 1e20).allocations["all"]
    assert allocation.N.value == pytest.approx(np.exp(true_optimum(np.log([1e20]))[0]), rel=0.005)
    assert allocation.N.value == pytest.approx(9.4e8, rel=0.01)
    assert allocation.loss.value is not None
    back = plan(result, loss=allocation.loss.value).allocations["all"]
    assert back.compute.value == pytest.approx(1e20, rel=1e-6)
    low, high = allocation.N_near_best
    assert low < allocation.N.value < high


def test_a_saved_fit_plans_with_the_cost_given(load: Load, tmp_path: Path) -> None:
    result = fit(load(with_attention()), PLAIN)
    result.save(tmp_path / "out")
    assert str(plan(tmp_path / "out", 1e20)) == str(plan(result, 1e20))
    write_report(result, tmp_path / "out")


def test_exponents_of_a_cost_that_is_a_power_are_exact() -> None:
    """C = 6 N^1.2 D^0.9: a = beta' / (alpha + beta') with beta' = 1.2 beta / 0.9, over 1.2."""
    N, D = (np.log(values.ravel()) for values in np.meshgrid(SIZES, DATA))
    cost = Cost.of_points(N, D, np.log(6) + 1.2 * N + 0.9 * D, 6.0)
    a, b = cost.exponents(TRUTH, np.log(1e18), np.log(1e21))
    power = 1 / (1.2 + 0.9 * 0.34 / 0.37)
    assert a[0] == pytest.approx(power, abs=1e-6)
    assert 1.2 * a[0] + 0.9 * b[0] == pytest.approx(1, abs=1e-6)
    assert Cost.from_json(plain(cost.to_json())) == cost


def test_a_constant_cost_is_in_closed_form() -> None:
    N, D = (np.log(values.ravel()) for values in np.meshgrid(SIZES, DATA))
    cost = Cost.of_points(N, D, np.log(240) + N + D, 240.0)
    assert cost == Cost.constant(240.0)
    alpha, beta = TRUTH["alpha"][0], TRUTH["beta"][0]
    assert cost.exponents(TRUTH, 1.0, 2.0)[0][0] == beta / (alpha + beta)


def test_a_cost_that_is_no_function_of_size_and_data_is_said(load: Load) -> None:
    frame = grid()
    factor = np.random.default_rng(0).uniform(1, 4, len(frame))
    found = one(load(frame.assign(C=6 * frame["N"] * frame["D"] * factor)))
    assert any("a and b are those of C = k N D, not of the C given" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("unit", "name"), [(1e9, "GFLOPs"), (1e12, "TFLOPs"), (1e15, "PFLOPs"), (8.64e19, "PFLOP/s-days")]
)
@pytest.mark.parametrize("with_D", [True, False])
def test_compute_in_another_unit_is_noticed(load: Load, unit: float, name: str, with_D: bool) -> None:
    frame = grid().assign(C=lambda f: 6 * f["N"] * f["D"] / unit)
    warnings = load(frame if with_D else frame.drop(columns="D")).warnings
    assert any(f"is C in {name}? Multiply it by {unit:g}" in text.replace("Multiply by", "Multiply it by")
               for text in warnings)  # fmt: skip


@pytest.mark.parametrize("k", [6.0, 2.0, 240.0, 12_288.0])
def test_usual_costs_are_not_doubted(load: Load, k: float) -> None:
    assert load(grid().assign(C=lambda f: k * f["N"] * f["D"])).warnings == []


def test_attention_file(case: Callable[[str], Path]) -> None:
    result = fit(load_losses(case("attn.csv")), WILD)
    a = result.subsets["all"].approach3["a"]
    assert a.value == pytest.approx(0.531, abs=0.005)
    assert a.ci95 is not None
    assert a.ci95[0] < 0.530 < a.ci95[1]
    assert plan(result, 1e20).allocations["all"].N.value == pytest.approx(9.4e8, rel=0.01)


# ---- columns that nothing reads


def two_compositions(shift: float = 0.05) -> pd.DataFrame:
    both = [
        grid(seed=seed).assign(
            composition=name, seed=seed, loss=lambda f, s=sign: f["loss"] * np.exp(s * shift)
        )
        for seed in range(2)
        for name, sign in (("scratch", 0), ("pre", -1))
    ]
    return pd.concat(both)


@pytest.mark.parametrize(
    "column", ["composition", "lr", "learning rate", "batch_size", "optimizer", "val_set"]
)
def test_a_column_that_splits_cells_is_refused(load: Load, column: str) -> None:
    with pytest.raises(UsageError) as error:
        load(two_compositions().rename(columns={"composition": column}))
    text = str(error.value)
    assert f"column {column!r}" in text
    assert "read by nothing" in text
    assert "2 losses" in text
    assert f"columns.subset={column}" in text
    assert "where=" in text
    assert "best_of_cell=true" in text
    assert "\n" not in text


def test_the_ways_out_that_the_refusal_names(load: Load) -> None:
    frame = two_compositions()
    apart = load(frame, columns={"subset": "composition"})
    assert set(apart.frame["subset"]) == {"scratch", "pre"}
    assert len(load(frame, where="composition == 'pre'").frame) == 72
    best = load(frame, best_of_cell=True)
    assert len(best.frame) == 72
    expected = frame.groupby(["N", "D", "seed"])["loss"].min().sort_values().to_numpy()
    np.testing.assert_allclose(np.sort(best.frame["loss"]), expected)
    assert any("72 rows go" in text for text in best.warnings)
    assert set(load(frame, columns={"seed": "composition,seed"}).frame["seed"]) == {
        "composition=scratch,seed=0", "composition=scratch,seed=1",
        "composition=pre,seed=0", "composition=pre,seed=1",
    }  # fmt: skip


def test_data_counted_a_little_differently_are_one_cell(load: Load) -> None:
    frame = two_compositions()
    frame.loc[frame["composition"] == "pre", "D"] *= 1.0003
    with pytest.raises(UsageError, match="column 'composition'"):
        load(frame)


@pytest.mark.parametrize("column", ["repeat", "random_seed", "Replicate", "trial id"])
def test_a_repeat_is_used_and_named(load: Load, column: str) -> None:
    frame = pd.concat([grid(seed=seed).assign(**{column: seed}) for seed in range(3)])
    losses = load(frame)
    assert len(losses.frame) == len(frame)
    assert any(f"column {column!r} is read by nothing" in text for text in losses.warnings)


def test_measurements_are_no_conditions(load: Load) -> None:
    frame = grid().assign(accuracy=np.linspace(0.2, 0.4, 36), host="a", hours=np.arange(36.0))
    assert load(frame).warnings == []
    repeated = pd.concat([frame, grid(seed=1).assign(accuracy=np.linspace(0.5, 0.6, 36), host="a")])
    assert any("no further column tells them apart" in text for text in load(repeated).warnings)


def test_several_seeds_of_a_final_loss_all_enter_the_slices(load: Load) -> None:
    """Interpolated slices once took one of several losses of one size and budget."""
    found = one(load(pd.concat([grid(seed=seed).assign(seed=seed) for seed in range(3)])))
    assert found.task is not None
    for part in slices_of(found.task).profiles.slices:
        assert len(part.low) == 3 * len(np.unique(part.at(found.task.curves.log_N)))
    assert value(found, 2) == pytest.approx(A, abs=0.02)


def test_two_compositions_file(case: Callable[[str], Path]) -> None:
    path = case("two_ren.csv")
    with pytest.raises(UsageError, match=r"column 'composition' .* is read by nothing.* up to 2 losses"):
        load_losses(path)
    subsets = fit(load_losses(path, columns={"subset": "composition"}), PLAIN).subsets
    assert value(subsets["pre"], 3) == pytest.approx(0.513, abs=0.001)
    assert value(subsets["scratch"], 3) == pytest.approx(0.522, abs=0.001)


# ---- numbers as they are printed


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Quantity(6820.0, 1.7e8, (11.5, 8.06e8)), "exp(8.8 ± 4.6) [11.5, 8.06e+08]"),
        (Quantity(467.0, 1248.0, (71.0, 5557.0)), "exp(6.1 ± 1.1) [71, 5.56e+03]"),
        (Quantity(0.52, 0.01, (0.5, 0.54)), "0.520 ± 0.010 [0.500, 0.540]"),
        (Quantity(-0.01, 0.03, (-0.07, 0.05)), "-0.010 ± 0.030 [-0.070, 0.050]"),
        (Quantity(None), "-"),
    ],
)
def test_a_number_smaller_than_its_error_is_printed_by_its_logarithm(quantity: Quantity, text: str) -> None:
    assert str(quantity) == text


def test_no_floor_is_a_dash_everywhere_and_plans_stay(load: Load, tmp_path: Path) -> None:
    flat = Surfaces.single(E=1e-9, A=20.0, B=30.0, alpha=0.2, beta=0.2)
    frame = grid()
    frame["loss"] = np.exp(flat.log_loss(*np.log(frame[["N", "D"]].to_numpy()).T)[0])
    result = fit(load(frame), WILD)
    found = result.subsets["all"]
    assert found.approach3["L_inf"] == Quantity(None)
    assert "L_inf = -\n" in str(found)
    result.save(tmp_path)
    assert plan(tmp_path, 1e20).allocations["all"].N.value == pytest.approx(
        np.exp(Cost.constant(6.0).optimum(flat, np.log([1e20]))[0][0, 0]), rel=0.01
    )
    assert ">L∞<" in write_report(result, tmp_path).read_text()


def test_hold_out_coverage_needs_degrees_of_freedom(load: Load) -> None:
    few = one(load(grid(SIZES[:3]).iloc[::1]), WILD).details["windows"]
    assert any("coverage95" not in window for window in few if window["fitted"] < 10)
    many = one(load(grid()), WILD).details["windows"]
    assert all("coverage95" in window for window in many)


# ---- lack of fit by what it does


def test_a_small_lack_of_fit_is_no_warning(load: Load) -> None:
    """A bend of .05% that scatter of .01% shows, and that moves nothing."""
    frame = grid(scatter=1e-4)
    x, y = (np.log(frame[name] / frame[name].mean()) for name in ("N", "D"))
    frame["loss"] *= np.exp(1e-4 * x * y)
    found = one(load(frame), WILD)
    test = found.details["lack_of_fit"]
    assert test["p_value"] < 0.01
    assert test["effect"]["verdict"] == "small"
    assert abs(test["effect"]["a"]) < 0.01
    assert not any("lack of fit" in text for text in found.warnings)


def test_a_large_lack_of_fit_says_what_it_does(load: Load) -> None:
    frame = grid()
    x, y = (np.log(frame[name]) for name in ("N", "D"))
    frame["loss"] = 1.5 + (3000 / np.exp(x) ** 0.6 + 40 / np.exp(y) ** 0.2)  # bends at both ends
    frame["loss"] *= np.exp(0.02 * np.sin(x) + 0.003 * np.random.default_rng(0).standard_normal(36))
    frame["loss"] *= np.exp(0.01 * (x - x.mean()) * (y - y.mean()))
    found = one(load(frame), WILD)
    (text,) = [text for text in found.warnings if "lack of fit" in text]
    assert "large effect" in text
    assert "a moves by up to" in text
    assert "the loss at 10 times the largest budget by up to" in text
