"""Where the form of the law is wrong: the centre of the wild bootstrap, intervals that stop covering."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.coverage import Bent, Truth, points, wrong_by
from jetscale.analysis import FitSettings, fit
from jetscale.analysis.checks import coverage
from jetscale.analysis.checks.synthetic import Noise, grid_table
from jetscale.analysis.errors.resampling import wild_noise
from jetscale.analysis.fitting.curves import build
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.settings import CurveSettings, UncertaintySettings

SETTINGS = FitSettings(
    multiverse=False, uncertainty=UncertaintySettings(method="wild", replicates=40, profile=False)
)
COUPLED = wrong_by(0.02, lambda p: Truth(p=p), (1.0, 6.0), *points(5, 6))


def table(truth: Truth, seed: int = 0) -> Any:
    rng = np.random.default_rng([1, seed])
    return grid_table(truth, *points(5, 6), Noise(runs=0.003), rng)  # type: ignore[arg-type]  # Truth has the part that is drawn from


def test_the_simulated_form_is_wrong_by_what_its_name_says() -> None:
    x, y = np.log(points(5, 6))
    for truth in (COUPLED, wrong_by(0.04, lambda bend: Bent(bend=bend), (0.0, 3.0), *points(5, 6))):
        log_L = truth.log_loss(x, y)[0]
        fitted = Fitter(x, y, Objective("squared")).point(log_L)[0].surfaces.log_loss(x, y)[0]
        assert np.sqrt(((fitted - log_L) ** 2).mean()) == pytest.approx(
            0.02 if truth is COUPLED else 0.04, rel=1e-3
        )
    # a and the optimum that the intervals are held against
    log_N = np.linspace(5, 25, 400_001)
    for truth in (COUPLED, Truth()):
        best = log_N[truth.log_loss(log_N, np.log(1e15 / 6) - log_N)[0].argmin()]
        assert truth.optimum(1e15)[0] == pytest.approx(np.exp(best), rel=1e-3)


def test_the_wild_bootstrap_flips_residuals_about_their_own_centre() -> None:
    """Both are of one least-squares fit: the residuals are orthogonal to its directions."""
    losses = table(COUPLED)
    curves = build(losses.frame, CurveSettings("off"))
    log_L = np.log(losses.frame["loss"].to_numpy(float))
    fitter = Fitter(curves.log_N, curves.log_D, Objective())
    surface = fitter.point(log_L)[0].surfaces
    centre, noise = wild_noise(curves, fitter, log_L, surface)
    residual = log_L - centre
    squares = Fitter(curves.log_N, curves.log_D, Objective("squared")).point(log_L)[0].surfaces
    np.testing.assert_allclose(centre, squares.log_loss(curves.log_N, curves.log_D)[0], atol=1e-7)
    J = squares.directions(curves.log_N, curves.log_D)
    assert np.abs(J.T @ residual).max() < 1e-6 * np.abs(J).sum(axis=0).max()
    robust = surface.log_loss(curves.log_N, curves.log_D)[0]
    assert np.abs(centre - robust).max() > 1e-3  # the form is wrong, so the two fits differ
    hat = J @ np.linalg.solve(J.T @ J, J.T)
    np.testing.assert_allclose(noise, residual / (1 - np.minimum(np.diag(hat), 0.8)), rtol=1e-5)


def test_a_wrong_form_names_the_intervals_that_stop_covering() -> None:
    said = [
        text for text in fit(table(COUPLED), SETTINGS).subsets["all"].warnings if "held the truth" in text
    ]
    assert len(said) == 1
    assert "wrong by 2%" in said[0]
    assert "only this often: " in said[0]
    assert "alpha 0%" in said[0]
    assert "do not read the former as 95% intervals" in said[0]
    clean = fit(table(Truth()), SETTINGS).subsets["all"].warnings
    assert not [text for text in clean if "held the truth" in text]


def test_what_is_said_is_what_was_simulated() -> None:
    level, lowest = coverage.where_wrong(0.017)
    assert level == 0.02
    rows = [row for row in coverage.table()["rows"] if row["design"].endswith("wrong by 2%")]
    columns = coverage.table()["columns"]
    for name, value in lowest.items():
        of_wild = [
            dict(zip(columns, row["values"], strict=True))[name] for row in rows if row["errors"] == "wild"
        ]
        assert value == min(one for one in of_wild if one is not None)
    assert all(row["trials"] >= 40 for row in rows)
    assert coverage.warning(0.001) == ""
