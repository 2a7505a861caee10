"""Each bad table gets an error that names the trouble, or a stated warning; none a wrong number."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.checks.synthetic import Noise, grid_table
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.output.report import write_report
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.loss_table import MAX_ROWS, check_values
from jetscale.common.usage import UsageError

TRUTH = Surfaces.single(E=1.8, A=480.0, B=2100.0, alpha=0.35, beta=0.37)
QUICK = FitSettings(uncertainty=UncertaintySettings(method="none"))


def good() -> pd.DataFrame:
    N, D = (g.ravel() for g in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    frame = grid_table(TRUTH, N, D, Noise(runs=0.002), np.random.default_rng(0)).frame
    return frame[["n_params", "jets", "loss"]].set_axis(["N", "D", "loss"], axis=1)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., object]:
    def write_and_load(frame: pd.DataFrame, **options: object) -> object:
        path = tmp_path / "table.csv"
        frame.to_csv(path, index=False)
        return load_losses(path, **options)

    return write_and_load


def spoiled(column: str, value: object) -> pd.DataFrame:
    frame = good().astype({column: object})
    frame.loc[3, column] = value
    return frame


@pytest.mark.parametrize("column", ["N", "D", "loss"])
@pytest.mark.parametrize("value", [float("nan"), 0, -1.5, float("inf")])
def test_values_that_are_not_finite_and_positive(
    load: Callable[..., object], column: str, value: float
) -> None:
    with pytest.raises(UsageError, match="row 3"):
        load(spoiled(column, value))


@pytest.mark.parametrize(("text", "message"), [("n/a?", "not a number"), ("3 parsecs", "not a number")])
def test_text_in_numbers(load: Callable[..., object], text: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"'N' in row 3.*{message}"):
        load(spoiled("N", text))


def test_suffixes_are_read_when_all_have_them(load: Callable[..., object]) -> None:
    frame = good()
    plain = load(frame)
    frame["N"] = [f"{value / 1e6:.17g}M" for value in frame["N"]]
    losses = load(frame)
    np.testing.assert_allclose(losses.frame["n_params"], plain.frame["n_params"])
    assert any("read as powers of 1,000" in text for text in losses.warnings)
    frame.loc[0, "N"] = "70"
    with pytest.raises(UsageError, match="with and without a suffix"):
        load(frame)


def test_thousands_separators_are_read_and_said(load: Callable[..., object]) -> None:
    frame = good()
    frame["D"] = [f"{value:,.0f}" for value in frame["D"]]
    losses = load(frame)
    assert losses.frame["jets"].max() == 1e12
    assert any("holds text" in text for text in losses.warnings)


def test_integers_do_not_overflow(load: Callable[..., object]) -> None:
    frame = good().assign(
        N=lambda f: f["N"].round().astype(int) * 1000, D=lambda f: f["D"].round().astype(int)
    )
    losses = load(frame)
    assert losses.frame["flops"].max() == pytest.approx(6 * 1e13 * 1e12)
    assert (losses.frame["flops"] > 0).all()


def test_one_width(load: Callable[..., object]) -> None:
    frame = good()
    result = fit(load(frame[frame["N"] == frame["N"].min()]), QUICK)
    one = result.subsets["all"]
    assert one.approach3["a"].value is None
    assert one.approach2["a"].value is None
    assert any("N takes 1" in text for text in one.warnings)


def test_one_seed_of_every_size_says_nothing_about_run_scatter(load: Callable[..., object]) -> None:
    frame = good().iloc[:5]
    result = fit(load(frame))
    assert result.subsets["all"].approach3["a"].value is None
    assert any("scatter between runs" in text for text in result.subsets["all"].warnings)


def test_duplicate_rows_are_said(load: Callable[..., object]) -> None:
    frame = good()
    losses = load(pd.concat([frame, frame.iloc[:2]]))
    assert any(text.startswith("2 rows repeat") for text in losses.warnings)


def test_a_run_with_two_losses_at_one_step(load: Callable[..., object]) -> None:
    frame = good().assign(run=lambda f: [f"r{i}" for i in range(len(f))])
    clash = pd.concat([frame, frame.iloc[:1].assign(loss=9.0)])
    with pytest.raises(UsageError, match="run r0 has two losses"):
        load(clash)


def test_unsorted_steps_change_nothing(load: Callable[..., object]) -> None:
    frame = good().assign(run=lambda f: f["N"].astype(str))
    shuffled = frame.sample(frac=1, random_state=1)
    values = [fit(load(f), QUICK).subsets["all"].approach3["a"].value for f in (frame, shuffled)]
    assert values[0] == values[1]


def test_mixed_units_are_said(load: Callable[..., object]) -> None:
    frame = good()
    frame.loc[:3, "N"] /= 1e6
    assert any("two units" in text for text in load(frame).warnings)
    frame = good().assign(C=lambda f: 6 * f["N"] * f["D"])
    frame.loc[:3, "C"] /= 1e15
    assert any("two units" in text for text in load(frame).warnings)


def test_mixed_evaluation_sets_are_said(load: Callable[..., object]) -> None:
    frame = good()
    losses = load(pd.concat([frame, frame.assign(loss=2 * frame["loss"])]))
    assert any("evaluation sets" in text for text in losses.warnings)


@pytest.mark.slow
def test_ten_million_rows_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "large.parquet"
    N = np.random.default_rng(0).uniform(1e6, 1e9, 10_000_000)
    pd.DataFrame({"N": N, "D": 20 * N, "loss": 2.0 + 1e6 / N}).to_parquet(path)
    with pytest.raises(UsageError, match=r"10,000,000 rows, more than .* where="):
        load_losses(path)
    assert len(load_losses(path, where=f"N < {1e6 + 1e9 * MAX_ROWS / 4e7}").frame) < MAX_ROWS


def test_missing_and_ambiguous_columns(load: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match=r"columns\.D=NAME or columns\.C=NAME"):
        load(good()[["N", "loss"]])
    with pytest.raises(UsageError, match="could all be N"):
        load(good().rename(columns={"N": "params"}).assign(model_size=1.0))
    with pytest.raises(UsageError, match="no column 'size' for N"):
        load(good(), columns={"N": "size"})
    with pytest.raises(UsageError, match="selects none"):
        load(good(), where="N < 0")
    with pytest.raises(UsageError, match="not a query"):
        load(good(), where="nothing > 3")


def test_collinear_design_is_said(load: Callable[..., object]) -> None:
    N = np.geomspace(1e7, 1e10, 20)
    frame = grid_table(TRUTH, N, 20 * N, Noise(runs=0.001), np.random.default_rng(0)).frame
    columns = frame[["n_params", "jets", "loss"]].set_axis(["N", "D", "loss"], axis=1)
    warnings = fit(load(columns), QUICK).subsets["all"].warnings
    assert any("collinear" in text for text in warnings)


def test_no_floor_is_said(load: Callable[..., object]) -> None:
    flat = Surfaces.single(E=1e-9, A=20.0, B=30.0, alpha=0.2, beta=0.2)
    N, D = (g.ravel() for g in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    frame = grid_table(flat, N, D, Noise(runs=1e-5), np.random.default_rng(0)).frame
    columns = frame[["n_params", "jets", "loss"]].set_axis(["N", "D", "loss"], axis=1)
    one = fit(load(columns), FitSettings(uncertainty=UncertaintySettings(replicates=30))).subsets["all"]
    assert any("no floor" in text for text in one.warnings)
    assert one.approach3["L_inf"].ci95 is None  # replicates heap up at the bound
    assert one.approach3["alpha"].ci95 is not None


def test_one_outlier_neither_moves_nor_blurs_the_exponent(load: Callable[..., object]) -> None:
    frame = good()
    settings = FitSettings(uncertainty=UncertaintySettings(replicates=200), multiverse=False)
    clean = fit(load(frame), settings).subsets["all"].approach3["a"]
    frame.loc[5, "loss"] = 50.0
    spoilt = fit(load(frame), settings).subsets["all"].approach3["a"]
    assert spoilt.value == pytest.approx(clean.value, abs=0.003)
    assert spoilt.ci95 is not None
    assert clean.ci95 is not None
    assert spoilt.ci95[1] - spoilt.ci95[0] < 2 * (clean.ci95[1] - clean.ci95[0])


@pytest.mark.parametrize("loss", ["constant", "rising", "one budget of data"])
def test_losses_that_do_not_fall_give_no_exponent(
    load: Callable[..., object], loss: str, tmp_path: Path
) -> None:
    frame = good()
    if loss == "constant":
        frame["loss"] = 2.0
    elif loss == "rising":
        frame["loss"] = 1 / frame["loss"]
    else:
        frame = frame[frame["D"] == frame["D"].max()]
    result = fit(load(frame), FitSettings(uncertainty=UncertaintySettings(replicates=30)))
    one = result.subsets["all"]
    for number in (1, 2, 3):
        assert one.approach(number)["a"].value is None
        assert any(text.startswith(f"approach {number}") for text in one.warnings)
    write_report(result, tmp_path / "report")


def test_data_in_proportion_to_parameters_cannot_tell_a_from_b(load: Callable[..., object]) -> None:
    N = np.geomspace(1e7, 1e10, 20)
    frame = grid_table(TRUTH, N, 20 * N, Noise(runs=0.001), np.random.default_rng(0)).frame
    columns = frame[["n_params", "jets", "loss"]].set_axis(["N", "D", "loss"], axis=1)
    assert fit(load(columns), QUICK).subsets["all"].approach3["a"].value is None


def test_a_bad_loss_of_a_run_is_named_by_run_and_step(sweep: Callable[..., Path]) -> None:
    path = sweep({"scratch": 0.5}, widths=(16, 32), seeds=1, evaluations=6)
    losses = load_losses(path)
    one = losses.frame.iloc[[5]]
    for value, message in ((np.nan, "loss is nan"), (5e3, "a loss of 5e\\+03")):
        frame = losses.frame.copy()
        frame.loc[frame.index[5], "loss"] = value
        run, step = re.escape(str(one["run"].iloc[0])), f"{one['step'].iloc[0]:g}"
        with pytest.raises(UsageError, match=rf"{message} in run {run} at step {step} \(test, "):
            check_values(frame, "here")
