"""Answers published for three public tables; shared/facts/scaling.md, section 4, gives the tolerances."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.__main__ import main
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.settings import Approach3Settings, UncertaintySettings

Shared = Callable[[str], Path]
C4 = "val_full.str.contains('c4_val')"
BIG = "(model == 'open_lm_1b' or model == 'open_lm_7b') and 6.0 * params * tokens > 2.6e20"


def command(out: Path, *arguments: str) -> dict[str, Any]:
    main(["source=table", f"out={out}", *arguments])
    return json.loads((out / "results.json").read_text())


def values(group: dict[str, Any], *names: str) -> list[float]:
    return [group[name]["value"] for name in names]


CHINCHILLA = [
    # objective, A, B, E, alpha, beta, a, F
    (["approach3.delta=0.001"], 477.826, 2143.42, 1.81722, 0.347311, 0.367172, 0.513900, 1.018274018e-3),
    (["approach3.delta=0.01"], 538.752, 2905.60, 1.83808, 0.354416, 0.381538, 0.518426, 4.69622e-3),
    (["approach3.delta=0.0001"], 478.689, 2065.41, 1.81582, 0.347409, 0.365385, 0.512609, 1.1177875e-4),
    (["approach3.delta=1e-6"], 481.934, 2085.00, 1.81684, 0.347804, 0.365844, 0.512639, 1.129376e-6),
    (["approach3.objective=squared", "approach3.residual=raw"],
     567.805, 7581.85, 1.882814, 0.357615, 0.427621, 0.544576, 0.08320381),
]  # fmt: skip


@pytest.mark.parametrize(("options", "A", "B", "E", "alpha", "beta", "a", "F"), CHINCHILLA)
def test_chinchilla(
    shared: Shared,
    options: list[str],
    A: float,
    B: float,
    E: float,
    alpha: float,
    beta: float,
    a: float,
    F: float,
) -> None:
    three = dict(option.removeprefix("approach3.").split("=") for option in options)
    if "delta" in three:
        three["delta"] = float(three["delta"])
    losses = load_losses(shared("chinchilla_epoch.csv"), columns={"N": "Model Size", "C": "Training FLOP"})
    settings = FitSettings(
        drop_largest=5,
        approach3=Approach3Settings(**three),
        uncertainty=UncertaintySettings(method="none"),
        multiverse=False,
    )
    found = fit(losses, settings).subsets["all"].approach3
    assert [found[name].value for name in ("A", "B")] == pytest.approx([A, B], rel=0.012)
    assert found["L_inf"].value == pytest.approx(E, abs=0.001)
    assert [found[n].value for n in ("alpha", "beta", "a")] == pytest.approx([alpha, beta, a], abs=6e-4)
    assert found["objective"].value == pytest.approx(F, rel=1e-5)


@pytest.mark.parametrize(("options", "A", "B", "E", "alpha", "beta", "a", "F"), CHINCHILLA[:1])
def test_chinchilla_by_command(
    shared: Shared, tmp_path: Path, options: list[str], A: float, B: float, E: float, alpha: float,
    beta: float, a: float, F: float,
) -> None:  # fmt: skip
    path = shared("chinchilla_epoch.csv")
    columns = ["columns.N=Model Size", "columns.C=Training FLOP"]
    results = command(
        tmp_path, f"path={path}", *columns, "drop_largest=5", "uncertainty.method=none", *options
    )
    three = results["subsets"]["all"]["approach3"]
    assert values(three, "A", "B") == pytest.approx([A, B], rel=0.012)
    assert values(three, "L_inf")[0] == pytest.approx(E, abs=0.001)
    assert values(three, "alpha", "beta", "a") == pytest.approx([alpha, beta, a], abs=6e-4)
    assert values(three, "objective")[0] == pytest.approx(F, rel=1e-5)
    assert three["certificate"]["agreeing"] >= 2


def test_chinchilla_intervals_by_resampled_rows(shared: Shared) -> None:
    losses = load_losses(shared("chinchilla_epoch.csv"), columns={"N": "Model Size", "C": "Training FLOP"})
    settings = FitSettings(drop_largest=5, uncertainty=UncertaintySettings(method="runs"), multiverse=False)
    three = fit(losses, settings).subsets["all"].approach3
    for name, low, high, tolerance in (
        ("alpha", 0.319, 0.372, 0.005), ("beta", 0.335, 0.413, 0.005), ("a", 0.482, 0.553, 0.005),
        ("L_inf", 1.772, 1.871, 0.005), ("A", 299, 725, 73), ("B", 1136, 5520, 1104),
    ):  # fmt: skip
        assert three[name].ci95 == pytest.approx((low, high), abs=tolerance), name
    assert three["a"].sd == pytest.approx(0.019, abs=0.002)


@pytest.mark.parametrize(
    ("dropped", "a"), [(0, 0.5646), (1, 0.544), (3, 0.524), (5, 0.514), (10, 0.509), (20, 0.484)]
)
def test_chinchilla_outlier_rule(shared: Shared, dropped: int, a: float) -> None:
    losses = load_losses(shared("chinchilla_epoch.csv"))
    settings = FitSettings(
        drop_largest=dropped, uncertainty=UncertaintySettings(method="none"), multiverse=False
    )
    assert fit(losses, settings).subsets["all"].approach3["a"].value == pytest.approx(a, abs=0.001)


@pytest.mark.parametrize(("envelope", "points", "a"), [("hull", 10, 0.51512), ("record-low", 68, 0.50699)])
def test_chinchilla_envelopes(shared: Shared, envelope: str, points: int, a: float) -> None:
    losses = load_losses(shared("chinchilla_epoch.csv"))
    settings = FitSettings(drop_largest=5, uncertainty=UncertaintySettings(method="none"), multiverse=False)
    settings.approach1.envelope = envelope
    one = fit(losses, settings).subsets["all"]
    assert one.approach1["a"].value == pytest.approx(a, abs=1e-5)
    assert one.approach1["b"].value == pytest.approx(1 - a, abs=1e-5)
    assert one.details["approach1"]["points"] == points


@pytest.mark.parametrize(("bins", "a"), [(10, 0.528), (20, 0.538), (30, 0.512), (50, 0.549), (750, 0.540)])
def test_chinchilla_bins(shared: Shared, bins: int, a: float) -> None:
    losses = load_losses(shared("chinchilla_epoch.csv"))
    settings = FitSettings(drop_largest=5, uncertainty=UncertaintySettings(method="none"), multiverse=False)
    settings.approach1.envelope, settings.approach1.bins = "bins", bins
    assert fit(losses, settings).subsets["all"].approach1["a"].value == pytest.approx(a, abs=0.005)


GADRE = [
    # train_set, multiplier of the 1b run, exponent, errors at 1b and 7b
    ("rpj", 32, 0.27285, (0.007103, 0.007320)),
    ("c4_original", 4, 0.24247, (0.01498, -0.04295)),
    ("rw_original", 16, 0.25439, (-0.00005, -0.01619)),
]


@pytest.mark.parametrize(("rows", "multiplier", "g", "errors"), GADRE)
def test_gadre_published_extrapolation(
    shared: Shared, tmp_path: Path, rows: str, multiplier: int, g: float, errors: tuple[float, float]
) -> None:
    small = (
        "((chinchilla_multiplier == 1 and model != 'open_lm_1b' and model != 'open_lm_7b')"
        " or (model == 'd=96_l=8_h=4' and chinchilla_multiplier == 16))"
    )
    held_out = f"(model == 'open_lm_1b' and chinchilla_multiplier == {multiplier}) or model == 'open_lm_7b'"
    results = command(
        tmp_path,
        f"path={shared('gadre.csv')}",
        f"where={C4} and train_set == '{rows}' and ({small} or {held_out})",
        f"held_out={held_out}",
        "columns.N=params",
        "approach3.form=tied",
        "approach3.objective=squared",
        "approach3.residual=raw",
    )
    fitted = results["subsets"]["all"]
    assert fitted["points"] == 5
    three = fitted["approach3"]
    assert values(three, "alpha")[0] == pytest.approx(g, abs=1e-5)
    if rows == "rpj":
        assert values(three, "L_inf")[0] == pytest.approx(1.83665, rel=1e-4)
        assert values(three, "A", "B") == pytest.approx([166.2, 287.2], rel=0.01)
    assert sorted(fitted["held_out"]["errors"]) == pytest.approx(sorted(errors), abs=1e-5)


GADRE_SMALL = [
    # train_set, rows, A, B, E, alpha, beta, a, F, errors at 1b and 7b
    (
        "c4_original",
        32,
        105.589,
        257.557,
        1.57216,
        0.24143,
        0.26601,
        0.52421,
        4.7959339e-4,
        (0.0175, -0.0355),
    ),
    ("rpj", 33, 75.990, 308.160, 1.56928, 0.21826, 0.27471, 0.55726, 4.1803317e-4, (-0.0047, -0.0189)),
    ("rw_original", 33, 60.640, 372.945, 1.5783, 0.20484, 0.28777, 0.58418, 4.4916358e-4, (0.0071, -0.0239)),
]


@pytest.mark.parametrize("expected", GADRE_SMALL)
def test_gadre_small_rows(shared: Shared, expected: tuple[Any, ...]) -> None:
    train_set, rows, A, B, E, alpha, beta, a, F, errors = expected
    path, chosen = shared("gadre.csv"), f"{C4} and train_set == '{train_set}'"
    small = load_losses(path, columns={"N": "params"}, where=f"{chosen} and not ({BIG})")
    big = load_losses(path, columns={"N": "params"}, where=f"{chosen} and {BIG}")
    settings = FitSettings(uncertainty=UncertaintySettings(method="none"), multiverse=False)
    fitted = fit(small, settings, held_out=big).subsets["all"]
    assert fitted.n_points == rows
    three = {name: quantity.value for name, quantity in fitted.approach3.items()}
    assert [three[name] for name in ("alpha", "beta", "a")] == pytest.approx([alpha, beta, a], abs=7e-4)
    assert three["L_inf"] == pytest.approx(E, abs=0.005)
    assert [three["A"], three["B"]] == pytest.approx([A, B], rel=0.02)
    assert three["objective"] == pytest.approx(F, rel=1e-5)
    assert sorted(fitted.details["held_out"]["errors"]) == pytest.approx(sorted(errors), abs=2e-4)


def test_farseer_is_fitted_exactly_and_flagged(shared: Shared, tmp_path: Path) -> None:
    train, test = shared("farseer_scaling_law.train.parquet"), shared("farseer_scaling_law.test.parquet")
    results = command(tmp_path, f"path={train}", f"held_out={test}", "uncertainty.replicates=100")
    fitted = results["subsets"]["all"]
    three = fitted["approach3"]
    assert values(three, "A", "B") == pytest.approx([28.7466, 138.280], rel=0.012)
    assert values(three, "L_inf", "alpha", "beta", "a") == pytest.approx(
        [0.368672, 0.280533, 0.311666, 0.526286], abs=6e-4
    )
    assert values(three, "objective")[0] == pytest.approx(2.488411e-3, rel=1e-5)
    errors = [0.0207, 0.0255, 0.0309, 0.0353, 0.0304, 0.0301, 0.0363]
    assert sorted(fitted["held_out"]["errors"]) == pytest.approx(sorted(errors), abs=5e-4)
    assert fitted["held_out"]["r2"] == pytest.approx(-2.03, abs=0.05)
    assert fitted["lack_of_fit"]["p_value"] < 0.01
    assert any("lack of fit" in text for text in fitted["warnings"])


def test_farseer_squared_raw(shared: Shared) -> None:
    losses = load_losses(shared("farseer_scaling_law.train.parquet"))
    settings = FitSettings(
        approach3=Approach3Settings(objective="squared", residual="raw"),
        uncertainty=UncertaintySettings(method="none"),
        multiverse=False,
    )
    three = fit(losses, settings).subsets["all"].approach3
    found = [three[name].value for name in ("L_inf", "alpha", "beta")]
    assert found == pytest.approx([0.373599, 0.289233, 0.317044], abs=1e-5)


def test_replicates_reach_the_converged_minimum(shared: Shared) -> None:
    """Every replicate against a far longer polish from itself and from eight starts far apart."""
    frame = load_losses(shared("chinchilla_epoch.csv")).frame.nsmallest(240, "loss")
    log_N, log_D, log_L = (np.log(frame[name].to_numpy(float)) for name in ("n_params", "jets", "loss"))
    weight = np.random.default_rng(5).multinomial(240, np.full(240, 1 / 240), size=200).astype(float)
    fitter = Fitter(log_N, log_D, Objective())
    found = fitter.replicates(log_L[None], weight, starts=1)
    longer = fitter.solve(fitter.centred(found.surfaces), log_L[None], weight, tolerance=1e-14)
    globally = fitter.replicates(log_L[None], weight, starts=8)
    lowest = np.minimum(longer.objective, globally.objective)
    assert (found.objective / lowest - 1).max() < 1e-5


@pytest.mark.parametrize(
    ("cut", "rows", "a", "mean", "rms"),
    [
        (1e20, 104, 0.602, 0.0024, 0.0115),
        (3e20, 63, 0.578, 0.0051, 0.0126),
        (1e21, 23, 0.548, -0.0002, 0.0125),
    ],
)
def test_chinchilla_hold_out_by_compute(
    shared: Shared, cut: float, rows: int, a: float, mean: float, rms: float
) -> None:
    path = shared("chinchilla_epoch.csv")
    small, large = (load_losses(path, where=f"`Training FLOP` {sign} {cut}") for sign in ("<", ">="))
    settings = FitSettings(
        drop_largest=5, multiverse=False, uncertainty=UncertaintySettings(method="none", profile=False)
    )
    found = fit(small, settings, held_out=large).subsets["all"]
    assert found.approach3["a"].value == pytest.approx(a, abs=0.001)
    held_out = found.details["held_out"]
    assert held_out["rows"] == rows
    assert held_out["mean_error"] == pytest.approx(mean, abs=5e-4)
    assert held_out["rms_error"] == pytest.approx(rms, abs=5e-4)
