"""Pinned parameters and point weights: through solver, certificate, replicates, profiles and plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from jetscale.analysis import FitSettings, fit, load_losses, plan
from jetscale.analysis.__main__ import main as analyse
from jetscale.analysis.checks.synthetic import Noise, grid_table
from jetscale.analysis.errors.estimate import estimate
from jetscale.analysis.fitting.numbers import Quantity
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.pins import pinned_form
from jetscale.analysis.fitting.surface import Surfaces, _problem
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.settings import Approach3Settings, UncertaintySettings
from jetscale.analysis.tables.selection import select
from jetscale.common.usage import UsageError

TRUTH = Surfaces.single(E=0.35, A=60.0, B=6.0, alpha=0.44, beta=0.22)
ALL = {"alpha": 0.44, "beta": 0.22, "L_inf": 0.35, "A": 60.0, "B": 6.0}
SQUARES = FitSettings(
    multiverse=False,
    approach3=Approach3Settings(objective="squared"),
    uncertainty=UncertaintySettings(replicates=60),
)


def pinned(*, objective: str = "huber", form: str = "separate", **pins: float) -> FitSettings:
    return FitSettings(
        multiverse=False,
        approach3=Approach3Settings(objective=objective, form=form, pin=pins),
        uncertainty=UncertaintySettings(replicates=100),
    )


def grid(seed: int = 0, runs: float = 0.003) -> Any:
    N, D = np.meshgrid(np.geomspace(1e4, 1e7, 5), np.geomspace(1e5, 1e8, 6))
    return grid_table(TRUTH, N.ravel(), D.ravel(), Noise(runs=runs), np.random.default_rng([4, seed]))


def estimated(losses: Any, chosen: FitSettings) -> dict[str, Quantity]:
    """Quantities with their errors, without the checks that a whole fit makes."""
    return estimate("all", select(losses.frame, chosen, losses), losses, chosen).quantities


def lowest_by_scipy(losses: Any, pins: dict[str, float], weight: Any = 1.0) -> tuple[float, dict[str, float]]:
    """Minimum of the weighted sum of squares over what is not pinned, by Nelder-Mead and BFGS."""
    x, y, z = (np.log(losses.frame[name].to_numpy(float)) for name in ("n_params", "jets", "loss"))
    free = [name for name in ALL if name not in pins]
    middle = {"A": 0.44 * x.mean(), "B": 0.22 * y.mean(), "L_inf": 0.0, "alpha": 0.0, "beta": 0.0}

    def values(phi: Any) -> dict[str, float]:
        found = dict(pins)
        for name, value in zip(free, phi, strict=True):
            found[name] = value if name in ("alpha", "beta") else float(np.exp(value + middle[name]))
        return found

    def objective(phi: Any) -> float:
        p = values(phi)
        with np.errstate(all="ignore"):
            L = p["L_inf"] + p["A"] * np.exp(-p["alpha"] * x) + p["B"] * np.exp(-p["beta"] * y)
            return 1e4 * float((weight * (np.log(L) - z) ** 2).sum())

    start = [ALL[n] * 1.05 if n in ("alpha", "beta") else np.log(ALL[n]) - middle[n] for n in free]
    options = {"maxiter": 50_000, "maxfev": 50_000, "xatol": 1e-11, "fatol": 1e-13, "adaptive": True}
    found = minimize(objective, start, method="Nelder-Mead", options=options)
    for _ in range(3):
        found = minimize(objective, found.x, method="Nelder-Mead", options=options)
    return found.fun / 1e4, values(found.x)


PINS: list[dict[str, float]] = [
    {"alpha": 0.44},
    {"beta": 0.3},
    {"L_inf": 0.35},
    {"A": 60.0},
    {"B": 6.0},
    {"alpha": 0.5, "L_inf": 0.4},
    {"alpha": 0.44, "beta": 0.22},
    {"A": 60.0, "B": 6.0},
]


@pytest.mark.parametrize("pins", PINS, ids=lambda pins: "+".join(pins))
def test_pins_hold_and_the_rest_is_the_minimum(pins: dict[str, float]) -> None:
    losses = grid()
    found = fit(losses, pinned(objective="squared", **pins)).subsets["all"]
    lowest, expected = lowest_by_scipy(losses, pins)
    three = found.approach3
    assert three["objective"].value == pytest.approx(lowest, rel=1e-6)
    for name, value in expected.items():
        assert three[name].value == pytest.approx(value, rel=1e-12 if name in pins else 3e-3), name
    for name, value in pins.items():
        assert three[name].sd == 0.0
        assert three[name].ci95 == (three[name].value, three[name].value)
        assert three[name].value == pytest.approx(value, rel=1e-12)
    assert found.certificate is not None
    assert found.certificate.converged
    assert found.certificate.agreeing >= 2
    assert found.details["approach3"]["pinned"] == pins
    (said,) = [text for text in found.warnings if "pinned, not fitted" in text]
    assert all(f"{name} = {value:g}" in said for name, value in pins.items())
    for name in pins:
        draws = found.draws[f"approach3.{name}"]
        assert np.allclose(draws, pins[name], rtol=1e-12)


def test_a_pin_narrows_what_it_informs_and_profiles_agree() -> None:
    losses = grid()
    free, held = (
        fit(losses, pinned(objective="squared", **pins)).subsets["all"].errors["profile"]
        for pins in ({}, {"alpha": 0.44})
    )
    assert set(held) == {f"approach3.{name}" for name in ("a", "beta", "L_inf", "N_star", "D_star")}
    # least squares: what is known besides widens nothing (but for the scatter, which is estimated anew)
    for key, quantity in held.items():
        assert (quantity.sd or 1) < 1.05 * (free[key].sd or 0), key
    # and the standard deviation is the textbook's, from the derivatives by what is free
    found = fit(losses, pinned(objective="squared", alpha=0.44)).subsets["all"]
    x, y = (np.log(losses.frame[name].to_numpy(float)) for name in ("n_params", "jets"))
    p = {name: found.approach3[name].value or 0.0 for name in ALL}
    of_N, of_D = p["A"] * np.exp(-0.44 * x), p["B"] * np.exp(-p["beta"] * y)
    L = p["L_inf"] + of_N + of_D
    J = np.stack([1 / L, of_N / L, of_D / L, -of_D * y / L], axis=1)  # by L_inf, ln A, ln B and beta
    variance = (found.approach3["objective"].value or 0.0) / (len(x) - 4)
    textbook = np.sqrt(variance * np.diag(np.linalg.inv(J.T @ J)))
    assert held["approach3.L_inf"].sd == pytest.approx(textbook[0], rel=0.1)
    assert held["approach3.beta"].sd == pytest.approx(textbook[3], rel=0.1)
    # a = beta / (alpha + beta) with alpha held: the ends of a are those of beta
    (low, high), (low_a, high_a) = (held[f"approach3.{name}"].ci95 or (0, 0) for name in ("beta", "a"))
    assert (low_a, high_a) == pytest.approx((low / (0.44 + low), high / (0.44 + high)), rel=1e-6)


def test_profile_of_squares_with_a_pin_is_the_textbook_one() -> None:
    """Where the rise reaches F(1, n - p) times the residual variance, by an independent minimiser."""
    losses = grid()
    found = fit(losses, pinned(objective="squared", alpha=0.44)).subsets["all"]
    from scipy.stats import t

    low, high = found.errors["profile"]["approach3.beta"].ci95 or (np.nan, np.nan)
    base, _ = lowest_by_scipy(losses, {"alpha": 0.44})
    dof = 30 - 4
    for end in (low, high):
        rise, _ = lowest_by_scipy(losses, {"alpha": 0.44, "beta": end})
        assert (rise - base) / (base / dof) == pytest.approx(t.ppf(0.975, dof) ** 2, rel=1e-4)


def test_coverage_with_a_true_pin() -> None:
    """25 tables: the 95% intervals of beta and L_inf hold the truth at least 19 times each."""
    inside = {"beta": 0, "L_inf": 0, "a": 0}
    chosen = pinned(alpha=0.44)
    chosen.uncertainty.profile = False
    for seed in range(25):
        quantities = estimated(grid(seed), chosen)
        for name, value in (("beta", 0.22), ("L_inf", 0.35), ("a", 1 / 3)):
            low, high = quantities[f"approach3.{name}"].ci95 or (np.nan, np.nan)
            inside[name] += low <= value <= high
    assert min(inside.values()) >= 19, inside


def test_pins_of_other_forms() -> None:
    losses = grid()
    tied = fit(losses, pinned(form="tied", alpha=0.3)).subsets["all"].approach3
    assert tied["alpha"].value == 0.3
    assert tied["beta"].value == pytest.approx(0.3, rel=1e-12)
    coupled = fit(losses, pinned(form="coupled", L_inf=0.3)).subsets["all"].approach3
    assert coupled["L_inf"].value == pytest.approx(0.3, rel=1e-12)
    for name, pins in (("separate", {"alpha": 0.3}), ("coupled", {"L_inf": 0.3}), ("separate", {"A": 3.0})):
        assert _problem(pinned_form(name, pins)) == ""


@pytest.mark.parametrize(
    ("form", "pins", "message"),
    [
        ("separate", {"gamma": 0.3}, "has no such parameter; it has L_inf, A, B, alpha, beta"),
        ("separate", {"alpha": -0.3}, "must lie between 0.001 and 4"),
        ("separate", {"A": 0.0}, "must lie between 0 and inf"),
        ("separate", ALL, "leave nothing to fit"),
        ("tied", {"alpha": 0.3, "beta": 0.4}, "cannot be held together"),
    ],
)
def test_pins_that_cannot_be_held_are_refused(form: str, pins: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        fit(grid(), pinned(form=form, **pins))
    assert "\n" not in str(error.value)


def test_the_command_line_pins_and_plans_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = grid().frame.rename(columns={"n_params": "N", "jets": "D"})[["N", "D", "loss"]]
    frame.to_csv(tmp_path / "t.csv", index=False)
    where = ["source=table", f"path={tmp_path / 't.csv'}", f"out={tmp_path}", "uncertainty.replicates=40"]
    analyse([*where, "approach3.pin.alpha=0.44", "approach3.pin.beta=0.22", "report=false"])
    assert "alpha = 0.44 and beta = 0.22 are pinned, not fitted" in capsys.readouterr().out
    found = plan(tmp_path, 1e14).allocations["all"]
    assert found.tenfold["N"].value == pytest.approx(10 ** (1 / 3))
    assert found.tenfold["N"].sd == 0.0
    assert found.N.ci95 is not None
    assert found.N.ci95[0] < (found.N.value or 0) < found.N.ci95[1]


# ---- weights


def weighted(tmp_path: Path, frame: pd.DataFrame, name: str = "t.csv") -> Any:
    frame.to_csv(tmp_path / name, index=False)
    return load_losses(tmp_path / name)


def columns(losses: Any) -> pd.DataFrame:
    named: pd.DataFrame = losses.frame.rename(columns={"n_params": "N", "jets": "D"})[["N", "D", "loss"]]
    return named


def test_weights_minimise_the_weighted_sum(tmp_path: Path) -> None:
    frame = columns(grid())
    frame["weight"] = np.random.default_rng(0).gamma(2.0, 1.0, len(frame))
    losses = weighted(tmp_path, frame)
    assert any("weighted by a column" in text for text in losses.warnings)
    three = fit(losses, SQUARES).subsets["all"].approach3
    weight = losses.frame["point_weight"].to_numpy(float)
    lowest, expected = lowest_by_scipy(losses, {}, weight / weight.mean())
    assert three["objective"].value == pytest.approx(lowest, rel=1e-6)
    for name, value in expected.items():
        assert three[name].value == pytest.approx(value, rel=5e-3)
    renamed = weighted(tmp_path, frame.rename(columns={"weight": "how much"}), "u.csv")
    assert "point_weight" not in renamed.frame
    asked = load_losses(tmp_path / "u.csv", columns={"weight": "how much"})
    assert asked.frame["point_weight"].to_numpy() == pytest.approx(weight)


def test_the_unit_of_weights_and_equal_weights_change_nothing(tmp_path: Path) -> None:
    frame = columns(grid())
    plain = fit(weighted(tmp_path, frame), SQUARES).subsets["all"]
    for unit in (1.0, 1e9, 1e-9):
        same = fit(weighted(tmp_path, frame.assign(weight=unit)), SQUARES).subsets["all"]
        for name, quantity in plain.approach3.items():
            assert same.approach3[name].value == pytest.approx(quantity.value, rel=1e-7), name
            assert same.approach3[name].ci95 == pytest.approx(quantity.ci95, rel=1e-6), name
        for key, quantity in plain.errors["profile"].items():
            assert same.errors["profile"][key].ci95 == pytest.approx(quantity.ci95, rel=1e-6), key
        assert same.approach1["a"].value == plain.approach1["a"].value


def test_a_whole_weight_is_a_repeated_row() -> None:
    """Weight 3 on some points gives the minimum that three copies of them give, in point and replicates."""
    frame = grid().frame
    x, y, z = (np.log(frame[name].to_numpy(float)) for name in ("n_params", "jets", "loss"))
    weight = np.where(np.arange(len(x)) % 3 == 0, 3.0, 1.0)
    copies = np.repeat(np.arange(len(x)), weight.astype(int))
    for objective in (Objective(), Objective("squared"), Objective("absolute")):
        one = Fitter(x, y, objective, weight=weight).point(z)[0]
        other = Fitter(x[copies], y[copies], objective).point(z[copies])[0]
        assert one.objective[0] == pytest.approx(other.objective[0], rel=1e-9)
        assert one.surfaces["alpha"] == pytest.approx(other.surfaces["alpha"], rel=1e-5)
    draws = np.random.default_rng(1).integers(0, 3, (6, len(x))).astype(float)
    one = Fitter(x, y, Objective(), weight=weight).replicates(z[None], draws)
    other = Fitter(x[copies], y[copies], Objective()).replicates(z[copies][None], draws[:, copies])
    assert one.objective == pytest.approx(other.objective, rel=1e-7)


def test_weights_that_tell_the_scatter_narrow_the_intervals_and_cover(tmp_path: Path) -> None:
    """A third of the runs scatter five times as much; weights 1/25 for them. 25 tables."""
    noisy = np.arange(30) % 3 == 0
    spread = np.where(noisy, 0.015, 0.003)
    smooth = columns(grid(runs=0.0))
    inside, widths = 0, []
    chosen = FitSettings(multiverse=False, uncertainty=UncertaintySettings(replicates=60, profile=False))
    for seed in range(25):
        scatter = np.exp(spread * np.random.default_rng([3, seed]).standard_normal(30))
        frame = smooth.assign(loss=smooth["loss"] * scatter, weight=np.where(noisy, 1 / 25, 1.0))
        found = estimated(weighted(tmp_path, frame), chosen)["approach3.a"]
        low, high = found.ci95 or (np.nan, np.nan)
        inside += low <= 1 / 3 <= high
        if seed < 5:
            bare = estimated(weighted(tmp_path, frame.drop(columns="weight")), chosen)["approach3.a"]
            widths.append((found.sd or 1) / (bare.sd or 1))
    assert inside >= 19
    assert np.median(widths) < 0.95


def test_weights_of_curves(tmp_path: Path) -> None:
    """Every run has several rows: equal weights change nothing, tiny ones leave a run out of the fit."""
    chosen = FitSettings(
        multiverse=False,
        approach3=Approach3Settings(objective="squared"),
        uncertainty=UncertaintySettings(method="none", profile=False),
    )
    frame = columns(grid()).assign(run=lambda f: f["N"].rank(method="dense").astype(str))
    last = frame["run"] == frame["run"].max()
    plain, equal, light, without = (
        estimated(weighted(tmp_path, table), chosen)
        for table in (
            frame,
            frame.assign(weight=7.0),
            frame.assign(weight=np.where(last, 1e-9, 1.0)),
            frame[~last],
        )
    )
    for name in ("alpha", "beta", "L_inf"):
        assert equal[f"approach3.{name}"].value == pytest.approx(plain[f"approach3.{name}"].value, rel=1e-7)
        assert light[f"approach3.{name}"].value == pytest.approx(without[f"approach3.{name}"].value, rel=1e-4)
        assert light[f"approach3.{name}"].value != pytest.approx(plain[f"approach3.{name}"].value, rel=1e-4)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_out_of_range_name_the_row(tmp_path: Path, bad: float) -> None:
    frame = columns(grid()).assign(weight=1.0)
    frame.loc[7, "weight"] = bad
    with pytest.raises(UsageError, match=r"weight is .* in row 7 .*finite and positive"):
        weighted(tmp_path, frame)


def test_pretraining_amounts_of_one_subset_are_fitted_apart(tmp_path: Path) -> None:
    frame = columns(grid())
    both = pd.concat(
        [frame.assign(pretrain_jets=jets, loss=frame["loss"] * (1 - jets / 1e7)) for jets in (0, 1e5)]
    )
    losses = weighted(tmp_path, both.assign(subset="qcd"))
    assert list(losses.groups()) == ["qcd [pretrain.jets=0]", "qcd [pretrain.jets=100000]"]
    one = weighted(tmp_path, frame.assign(d_pre=1e5, subset="qcd"), "u.csv")
    assert list(one.groups()) == ["qcd"]
    assert set(one.frame["pretrain_jets"]) == {1e5}
    with pytest.raises(UsageError, match=r"D_pre is -1\.0 in row 0"):
        weighted(tmp_path, frame.assign(d_pre=-1.0), "v.csv")
