"""Predicted losses of new runs, intervals of other levels, and laws of one variable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from jetscale.analysis import FitSettings, fit, load_losses, predict_loss
from jetscale.analysis.__main__ import main as analyse
from jetscale.analysis.answers import laws
from jetscale.analysis.answers.prediction import LEVELS, _quantile, on_surface
from jetscale.analysis.checks.synthetic import Noise, grid_table
from jetscale.analysis.errors.estimate import estimate
from jetscale.analysis.fitting.numbers import Quantity, plain, summarise
from jetscale.analysis.fitting.power_law import POWER_LAW
from jetscale.analysis.fitting.surface import Surfaces, _problem
from jetscale.analysis.plan import main
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.selection import select
from jetscale.common.usage import UsageError

TRUTH = Surfaces.single(E=0.35, A=60.0, B=6.0, alpha=0.44, beta=0.22)
PLAIN = FitSettings(multiverse=False, uncertainty=UncertaintySettings(replicates=200))


def settings(**uncertainty: Any) -> FitSettings:
    return FitSettings(
        multiverse=False, uncertainty=UncertaintySettings(**{"replicates": 200, **uncertainty})
    )


def grid(seed: int, runs: float = 0.003, sizes: int = 5, amounts: int = 6) -> Any:
    N, D = np.meshgrid(np.geomspace(1e4, 1e7, sizes), np.geomspace(1e5, 1e8, amounts))
    return grid_table(TRUTH, N.ravel(), D.ravel(), Noise(runs=runs), np.random.default_rng([5, seed]))


def law_of(losses: Any, **uncertainty: Any) -> laws.Law:
    """Law of one subset as `fit` gives it, without the checks that a whole fit makes."""
    chosen = settings(profile=False, **uncertainty)
    found = estimate("all", select(losses.frame, chosen, losses), losses, chosen)
    return laws.of_estimate(found, losses.frame)


# ---- levels


def test_levels_of_normal_draws_are_those_of_the_normal_distribution() -> None:
    draws = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    found = summarise(1.0, 1.0 + 0.1 * draws, "wild", np.inf, "linear", [80, 90, 95])
    assert found.ci95 == pytest.approx((1 - 0.196, 1 + 0.196), abs=2e-4)
    for level in (80, 90):
        half = 0.1 * norm.ppf(0.5 + level / 200)
        assert found.interval(level) == pytest.approx((1 - half, 1 + half), abs=2e-4)
    assert found.interval(95) == found.ci95
    assert found.interval(50) is None
    written = found.to_json()
    assert list(written) == ["value", "sd", "ci95", "ci80", "ci90"]
    assert summarise(1.0, draws, "wild", np.inf).to_json().keys() == {"value", "sd", "ci95"}


def test_levels_stand_beside_ci95_in_results() -> None:
    losses = grid(0)
    three, one = (
        plain(fit(losses, settings(replicates=50, **how)).to_json())
        for how in ({"levels": [80.0, 90.0, 95.0]}, {})
    )
    profile = three["subsets"]["all"]["errors"]["profile"]
    for group, names in (
        (three["subsets"]["all"]["approach3"], ("a", "alpha", "L_inf")),
        (profile, ("approach3.a", "approach3.alpha", "approach3.N_star")),
    ):
        for name in names:
            low, high = zip(*(group[name][f"ci{level}"] for level in (80, 90, 95)), strict=True)
            assert low[0] > low[1] > low[2]
            assert high[0] < high[1] < high[2]
    for name, quantity in one["subsets"]["all"]["approach3"].items():
        if isinstance(quantity, dict) and "ci95" in quantity:
            assert set(quantity) == {"value", "sd", "ci95"}
            assert quantity["ci95"] == three["subsets"]["all"]["approach3"][name]["ci95"]
    with pytest.raises(UsageError, match=r"uncertainty.levels"):
        fit(losses, settings(levels=[0.0, 95.0]))


# ---- prediction


def test_quantile_of_draws_and_noise_is_that_of_their_sum() -> None:
    rng = np.random.default_rng(0)
    draws = rng.gamma(2.0, 1.0, 400)
    summed = (draws[:, None] + 0.7 * norm.ppf((np.arange(5_000) + 0.5) / 5_000)).ravel()
    for share in (0.025, 0.1, 0.5, 0.975):
        assert _quantile(draws, 0.7, share) == pytest.approx(np.quantile(summed, share), abs=2e-3)
        assert _quantile(draws, 0.0, share) == np.quantile(draws, share)


def test_prediction_intervals_hold_new_runs() -> None:
    """30 studies, a new run inside and one far outside: of 95% at least 24 inside, of 80% 16 to 29."""
    inside = {(at, level): 0 for at in ((3e5, 3e6), (1e8, 1e9)) for level in (80.0, 95.0)}
    width = []
    for seed in range(30):
        law = law_of(grid(seed), replicates=100)
        for at in ((3e5, 3e6), (1e8, 1e9)):
            log_truth = float(TRUTH.log_loss(*np.log([[at[0]], [at[1]]]))[0, 0])
            new = np.exp(log_truth + 0.003 * np.random.default_rng([6, seed]).standard_normal())
            found = on_surface(law, "jet", {"N": at[0], "D": at[1]}, LEVELS)
            for level in (80.0, 95.0):
                low, high = found.loss.interval(level) or (np.nan, np.nan)
                inside[at, level] += low <= new <= high
            if at == (3e5, 3e6):
                width.append(np.log(high / low) / 2)
    assert all(count >= (24 if level == 95 else 16) for (_, level), count in inside.items()), inside
    assert all(count <= 29 for (_, level), count in inside.items() if level == 80), inside
    # inside the grid the run's own scatter dominates, and intervals are not all-embracing
    assert 0.0055 < np.median(width) < 0.010


def test_flags_say_by_how_many_decades(tmp_path: Path) -> None:
    result = fit(grid(1), PLAIN)
    result.save(tmp_path)
    inside = predict_loss(tmp_path, N=3e5, D=3e6).predictions["all"]
    assert not any("decades" in flag for flag in inside.flags)
    assert any("test block" in flag for flag in inside.flags)
    far = predict_loss(tmp_path, N=1e9, D=1e8).predictions["all"]
    assert any(
        "extrapolated by 2.0 decades in N (above the largest fitted, 1e+07" in flag for flag in far.flags
    )
    assert not any("in D" in flag for flag in far.flags)
    by_compute = predict_loss(tmp_path, N=3e5, C=6 * 3e5 * 3e6).predictions["all"]
    assert by_compute.loss.value == pytest.approx(inside.loss.value)
    assert inside.loss == predict_loss(result, N=3e5, D=3e6).predictions["all"].loss
    low, high = inside.loss.interval(80) or (np.nan, np.nan)
    assert inside.loss.ci95 is not None
    assert inside.loss.ci95[0] < low < high < inside.loss.ci95[1]
    for wrong in ({"N": 1e5}, {"N": 1e5, "D": 1e6, "C": 1e12}, {"N": 1e5, "D": 1e6, "subset": "nobody"}):
        with pytest.raises(UsageError):
            predict_loss(tmp_path, **wrong)  # type: ignore[arg-type]  # what is refused


def test_command_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(grid(2), PLAIN).save(tmp_path)
    out = tmp_path / "loss.json"
    main([f"results={tmp_path}", "N=3e5", "D=3e6", "levels=[80,95]", f"out={out}"])
    text = capsys.readouterr().out
    assert "predicted loss of a new run" in text
    assert "95% of such runs" in text
    written = json.loads(out.read_text())["predictions"]["all"]["loss"]
    assert set(written) == {"value", "sd", "ci95", "ci80"}
    assert written["value"] == pytest.approx(
        float(np.exp(TRUTH.log_loss(*np.log([[3e5], [3e6]]))[0, 0])), rel=0.01
    )


def test_test_jets_widen_a_prediction_where_blocks_are_known(sweep: Callable[..., Path]) -> None:
    path = sweep(
        {"scratch": 0.5}, Noise(test_jets=2_000), widths=(16, 32, 64, 128, 256), seeds=3, evaluations=12
    )
    losses = load_losses(path)
    found = predict_loss(fit(losses, settings(test_jet_samples=0)), N=40 * 96**2, D=3e7).predictions[
        "scratch"
    ]
    loss = found.loss.value
    assert loss is not None
    assert found.test_sd == pytest.approx(0.9 / np.sqrt(2_000) / loss, rel=0.1)
    own = 0.9 * np.sqrt((1 - 0.97) / 2_000) / loss  # test-jet noise that is not common to all models
    assert found.run_sd == pytest.approx(np.hypot(0.003, own), rel=0.4)
    assert found.loss.sd is not None
    assert found.loss.sd > 0.9 / np.sqrt(2_000)


# ---- laws of one variable


def of_size(seed: int = 0, points: int = 12, runs: float = 0.002) -> pd.DataFrame:
    N = np.geomspace(1e5, 1e8, points)
    scatter = runs * np.random.default_rng([8, seed]).standard_normal(points)
    return pd.DataFrame({"N": N, "loss": (0.6 + 90.0 / N**0.4) * np.exp(scatter)})


def huber_by_scipy(x: Any, log_L: Any, delta: float = 1e-3) -> tuple[float, Any]:
    """Lowest sum of Huber penalties by Nelder-Mead from many starts: objective, centred theta."""

    def objective(theta: Any) -> float:
        r = np.logaddexp(theta[0] - theta[2] * x, theta[1]) - log_L
        size = np.minimum(np.abs(r), delta)
        return 1e6 * float((size * (np.abs(r) - size / 2)).sum())

    best = None
    for alpha in (0.1, 0.3, 0.5, 0.8):
        for share in (0.3, 0.7):
            start = [np.log(0.3), log_L.min() + np.log(share), alpha]
            options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-12, "fatol": 1e-12}
            found = minimize(objective, start, method="Nelder-Mead", options=options)
            found = minimize(objective, found.x, method="Nelder-Mead", options=options)
            if best is None or found.fun < best.fun:
                best = found
    assert best is not None
    return best.fun / 1e6, best.x


def test_the_form_passes_the_checks_of_every_form() -> None:
    assert _problem(POWER_LAW) == ""


@pytest.mark.parametrize(
    ("symbol", "table"),
    [
        ("N", lambda f: f.assign(D=3e9)),
        ("N", lambda f: f),
        ("D", lambda f: f.rename(columns={"N": "D"}).assign(N=5e6)),
        ("D", lambda f: f.rename(columns={"N": "D"})),
        ("C", lambda f: f.rename(columns={"N": "C"})),
        ("C", lambda f: f.assign(D=20 * f["N"])),
    ],
)
def test_a_table_of_one_variable_is_fitted_as_such(tmp_path: Path, symbol: str, table: Any) -> None:
    frame = table(of_size())
    frame.to_csv(tmp_path / "t.csv", index=False)
    result = fit(load_losses(tmp_path / "t.csv"), PLAIN)
    found = result.subsets["all"]
    assert found.law is not None
    assert found.law.variable.symbol == symbol
    assert found.approach3["a"] == Quantity(None)
    words = [text for text in found.warnings if f"law of {symbol} alone, L_inf + A / {symbol}^alpha" in text]
    assert len(words) == 1
    # an independent minimum of the same objective
    x = np.log(frame[symbol]) if symbol in frame else np.log(6 * frame["N"] * frame["D"])
    lowest, theta = huber_by_scipy((x - x.mean()).to_numpy(), np.log(frame["loss"]).to_numpy())
    assert found.law.surfaces is not None
    residual = found.law.surfaces.log_loss(x.to_numpy(), 0 * x.to_numpy())[0] - np.log(frame["loss"])
    size = np.minimum(np.abs(residual), 1e-3)
    assert float((size * (np.abs(residual) - size / 2)).sum()) == pytest.approx(lowest, rel=1e-6)
    assert found.law.quantities["alpha"].value == pytest.approx(theta[2], abs=2e-4)
    assert found.law.certificate is not None
    assert found.law.certificate.converged
    # truth inside the interval, and a profile beside it
    for name, value in (("alpha", 0.4 if symbol != "C" or "C" in frame else 0.2), ("L_inf", 0.6)):
        low, high = found.law.quantities[name].ci95 or (np.nan, np.nan)
        assert low < value < high, name
        low, high = found.law.profile[name].ci95 or (np.nan, np.nan)
        assert low < value < high, name


def test_coverage_of_a_law_of_one_variable() -> None:
    """25 tables: 95% intervals of alpha and of the next run hold the truth at least 19 times."""
    inside, predicted = 0, 0
    for seed in range(25):
        losses = load_frame(of_size(seed))
        result = fit(losses, settings(replicates=100, profile=False))
        law = result.subsets["all"].law
        assert law is not None
        low, high = law.quantities["alpha"].ci95 or (np.nan, np.nan)
        inside += low <= 0.4 <= high
        found = predict_loss(result, N=1e9).predictions["all"]
        assert any("1.0 decades in N" in flag for flag in found.flags)
        new = (0.6 + 90 / 1e9**0.4) * np.exp(0.002 * np.random.default_rng([9, seed]).standard_normal())
        low, high = found.loss.ci95 or (np.nan, np.nan)
        predicted += low <= new <= high
    assert inside >= 19
    assert predicted >= 19


def test_one_variable_that_does_not_explain_the_losses_is_refused() -> None:
    both = pd.concat([of_size(), of_size().assign(loss=lambda f: 1.2 * f["loss"])])
    with pytest.raises(
        UsageError, match=r"which N alone does not explain; say columns.D=NAME or columns.C=NAME"
    ):
        load_frame(both)


def load_frame(frame: pd.DataFrame) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        frame.to_csv(Path(folder) / "t.csv", index=False)
        return load_losses(Path(folder) / "t.csv")


def test_one_variable_is_saved_fitted_again_and_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_size().to_csv(tmp_path / "t.csv", index=False)
    where = ["multiverse=false", "uncertainty.replicates=60", "source=table"]
    analyse([*where, f"path={tmp_path / 't.csv'}", f"out={tmp_path / 'a'}"])
    assert "law of N alone, L_inf + A / N^alpha: alpha = 0." in capsys.readouterr().out
    analyse([*where, f"path={tmp_path / 'a/losses.parquet'}", f"out={tmp_path / 'b'}", "report=false"])
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in "ab")
    assert one["subsets"]["all"]["law"] == two["subsets"]["all"]["law"]
    assert one["subsets"]["all"]["law"]["reason"] == "the table gives N alone"
    assert "L_inf + A / N^alpha" in (tmp_path / "a/report.html").read_text()
    capsys.readouterr()
    main([f"results={tmp_path / 'a'}", "N=1e9"])
    assert "extrapolated by 1.0 decades in N" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"D = 3e.09, but its law of N says nothing of D"):
        main([f"results={tmp_path / 'a'}", "N=1e9", "D=3e9"])
    main([f"results={tmp_path / 'a'}", "budget=1e20"])
    assert "no plan (the table gives N alone: its loss is a law of N alone" in capsys.readouterr().out
    assert list(laws.of(tmp_path / "a").lines) == ["all"]


def test_a_ray_predicts_along_itself_only(tmp_path: Path) -> None:
    of_size().assign(D=lambda f: 20 * f["N"]).to_csv(tmp_path / "t.csv", index=False)
    result = fit(load_losses(tmp_path / "t.csv"), settings(replicates=40, profile=False))
    found = predict_loss(result, C=120 * 1e7**2).predictions["all"]
    assert found.loss.value == pytest.approx(0.6 + 90 / 1e7**0.4, rel=0.005)
    assert predict_loss(result, N=1e7, D=2e8).predictions["all"].loss.value == pytest.approx(found.loss.value)
    off = predict_loss(result, N=1e6, D=2e9).predictions["all"]
    assert any("the law of C holds there only" in flag for flag in off.flags)


def test_curves_of_one_size_are_a_law_of_data(sweep: Callable[..., Path]) -> None:
    path = sweep({"scratch": 0.5}, widths=(64,), seeds=3, evaluations=20)
    found = fit(load_losses(path), settings(test_jet_samples=0)).subsets["scratch"]
    assert found.law is not None
    assert found.law.variable.symbol == "D"
    assert found.law.method == "hierarchical"
    low, high = found.law.quantities["alpha"].ci95 or (np.nan, np.nan)
    assert low < 0.3 < high


def test_d_and_c_say_where_a_run_is_where_c_is_no_multiple_of_n_and_d(tmp_path: Path) -> None:
    """C = 6 N D (N / 1e5)^-0.2: N of D and C is the inverse of it."""
    rng = np.random.default_rng(3)
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e4, 1e7, 6), np.geomspace(1e6, 1e9, 6)))
    C = 6 * N * D * (N / 1e5) ** -0.2
    loss = (1.5 + 40 / N**0.3 + 300 / D**0.35) * np.exp(0.002 * rng.standard_normal(len(N)))
    lines = [f"{n},{d},{c},{value}" for n, d, c, value in zip(N, D, C, loss, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["N,D,C,loss", *lines]))
    settings = FitSettings(multiverse=False, uncertainty=UncertaintySettings(method="none"))
    fitted = fit(load_losses(tmp_path / "t.csv"), settings)
    assert not fitted.subsets["all"].task.cost.is_constant
    (by_N,) = predict_loss(fitted, N=3e5, D=2e7).predictions.values()
    assert by_N.at["C"] == pytest.approx(6 * 3e5 * 2e7 * 3**-0.2, rel=1e-6)
    (by_C,) = predict_loss(fitted, D=2e7, C=by_N.at["C"]).predictions.values()
    assert by_C.at["N"] == pytest.approx(3e5, rel=1e-9)
    assert by_C.loss.value == pytest.approx(by_N.loss.value, rel=1e-9)
    (far,) = predict_loss(fitted, D=1e30, C=1e10).predictions.values()
    assert far.at["N"] > 0
    with pytest.raises(UsageError, match="give two of N=, D= and C="):
        predict_loss(fitted, C=1e13)


def test_an_exponent_above_1_has_an_interval() -> None:
    """It has no logit, on whose scale intervals of exponents are else taken."""
    draws = 1.02 + 0.05 * np.random.default_rng(0).standard_normal(400)
    found = summarise(1.02, draws, "wild", np.inf, "logit")
    plain = summarise(1.02, draws, "wild", np.inf, "linear")
    assert found.ci95 == plain.ci95
    assert found.ci95 is not None
    assert np.isfinite(found.ci95).all()
