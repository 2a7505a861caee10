"""Invariances: the order of rows and the units of N and D change no exponent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from jetscale.analysis import FitSettings, LossTable, fit
from jetscale.analysis.checks.synthetic import Noise, curves_table, grid_table
from jetscale.analysis.errors.estimate import estimate
from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.moments import BLOCK, moments
from jetscale.analysis.fitting.numbers import plain
from jetscale.analysis.fitting.objective import Objective, Penalty
from jetscale.analysis.fitting.solver import solve
from jetscale.analysis.fitting.surface import Surfaces, form_named
from jetscale.analysis.fitting.surface_fit import Fitter, Undetermined, prefit
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.loss_table import checked
from jetscale.analysis.tables.selection import select

SETTINGS = FitSettings(uncertainty=UncertaintySettings(replicates=30), multiverse=False)
TRUTH = Surfaces.single(E=0.35, A=60.0, B=14.0, alpha=0.44, beta=0.3)
EXPONENTS = ("approach1.a", "approach2.a", "approach2.b", "approach3.alpha", "approach3.beta", "approach3.a")


def grid(seed: int) -> LossTable:
    N, D = (g.ravel() for g in np.meshgrid(np.geomspace(1e4, 1e7, 7), np.geomspace(1e5, 1e8, 7)))
    return grid_table(TRUTH, N, D, Noise(runs=0.003), np.random.default_rng(seed))


def curves(seed: int) -> LossTable:
    return curves_table(
        {"all": TRUTH},
        Noise(),
        np.random.default_rng(seed),
        widths=(16, 32, 64, 128, 256),
        seeds=2,
        evaluations=15,
    )


def quantities(losses: LossTable) -> dict[str, tuple[float | None, float | None]]:
    found = estimate("all", select(losses.frame, SETTINGS, losses), losses, SETTINGS).quantities
    return {name: (found[name].value, found[name].sd) for name in EXPONENTS}


def test_fits_side_by_side_are_those_of_each_alone() -> None:
    """Of different numbers of points, objectives and forms; too few points are passed over."""
    rng, problems = np.random.default_rng(3), []
    for points in (20, 35, 50):
        x, y = rng.uniform(-3, 3, (2, points))
        log_L = Surfaces.from_theta(np.array([-1.0, -0.8, 0.4, 0.3, 0.35])).log_loss(x, y)[0]
        log_L = log_L + 0.01 * rng.standard_normal(points)
        for objective in (Objective(), Objective("squared", residual="raw")):
            for form in ("separate", "tied"):
                weight = None if points == 35 else rng.uniform(0.5, 2.0, points)
                problems.append((Fitter(x + 9, y + 11, objective, form_named(form), weight), log_L))
    fitter, log_L = problems[0]
    few = np.arange(20) < 4
    prefit([*problems, (fitter.of(few), log_L[few])])
    with pytest.raises(Undetermined, match="4 points"):
        fitter.of(few).point(log_L[few])
    for fitter, log_L in problems:
        (together, said), (alone, also) = fitter.point(log_L), fitter.search(log_L)
        np.testing.assert_allclose(together.surfaces.theta, alone.surfaces.theta, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(together.objective, alone.objective, rtol=1e-12)
        assert (said.agreeing, said.at_bound, said.converged) == (also.agreeing, also.at_bound, True)


def test_blocks_of_replicates_change_nothing() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 60))
    theta = np.array([-1.0, -0.8, -0.4, 0.3, 0.35]) + 0.05 * rng.standard_normal((900, 5))
    log_L = 0.1 * rng.standard_normal((900, 60))
    assert BLOCK < 900 * 60 / 2
    for data, weight in ((log_L, np.ones((1, 60))), (log_L[:1], rng.uniform(0, 2, (900, 60)))):
        whole = moments(form_named("separate"), theta, x, y, data, weight, Objective())
        for row in (0, 416, 417, 899):
            its = [value[[row]] if len(value) > 1 else value for value in (data, weight)]
            one = moments(form_named("separate"), theta[[row]], x, y, *its, Objective())
            for part, of_row in zip(whole, one, strict=True):
                np.testing.assert_allclose(part[row], of_row[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("make", [grid, curves])
@given(seed=st.integers(0, 1000), order=st.integers(0, 2**31))
@settings(max_examples=8, deadline=None)
def test_permuting_rows_changes_nothing(make, seed: int, order: int) -> None:
    losses = make(seed)
    shuffled = checked(replace(losses, frame=losses.frame.sample(frac=1, random_state=order)))
    assert quantities(shuffled) == quantities(losses)


@pytest.mark.parametrize("make", [grid, curves])
@given(seed=st.integers(0, 1000), per_N=st.floats(1e-6, 1e6), per_D=st.floats(1e-6, 1e6))
@settings(max_examples=8, deadline=None)
def test_units_of_n_and_d_change_no_exponent(make, seed: int, per_N: float, per_D: float) -> None:
    losses = make(seed)
    scaled = losses.frame.assign(
        n_params=losses.frame["n_params"] * per_N,
        jets=losses.frame["jets"] * per_D,
        flops=losses.frame["flops"] * per_N * per_D,
    )
    before, after = quantities(losses), quantities(checked(replace(losses, frame=scaled)))
    for name in EXPONENTS:
        for one, other in zip(before[name], after[name], strict=True):
            assert (one is None) == (other is None), name
            if one is not None:
                assert other == pytest.approx(one, rel=1e-4, abs=1e-6), name


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_gradient_is_the_derivative_of_the_objective(seed: int) -> None:
    """Against central differences of an objective written out here, for every penalty and residual."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 30))
    theta = np.array([-1.0, -0.8, 0.4, 0.3, 0.35]) + 0.1 * rng.uniform(-2, 2, size=5)  # exponents above 0
    log_L = Surfaces.from_theta(theta).log_loss(x, y)[0] + 0.05 * rng.normal(size=30)
    penalty = ("huber", "squared", "absolute")[seed % 3]
    residual = ("log", "raw")[seed % 2]
    objective = Objective(penalty, 0.02, residual)

    def value(at: np.ndarray) -> float:
        fitted = np.logaddexp(np.logaddexp(at[0] - at[3] * x, at[1] - at[4] * y), at[2])
        r = fitted - log_L if residual == "log" else np.exp(fitted) - np.exp(log_L)
        if penalty == "squared":
            return float((r**2).sum())
        corner = 0.02 if penalty == "huber" else 1e-5
        size = np.abs(r)
        huber = np.where(size <= corner, r**2 / 2, corner * (size - corner / 2)).sum()
        return float(huber if penalty == "huber" else huber / corner)

    # a step far below the corner of 1e-5: a residual that crosses the corner in between has no one derivative
    numeric = np.array([(value(theta + step) - value(theta - step)) / 6e-9 for step in 3e-9 * np.eye(5)])
    start = solve(theta[None], x, y, log_L[None], np.ones((1, 30)), objective, TRUTH.form, max_iterations=0)
    assert start.objective[0] == pytest.approx(value(theta), rel=1e-12)
    assert start.gradient[0] == pytest.approx(np.abs(numeric).max(), rel=1e-4)


@pytest.mark.parametrize("penalty", ["huber", "squared", "absolute"])
def test_every_start_ends_in_the_minimum_of_losses_that_do_not_fit(penalty: Penalty) -> None:
    """Residuals far beyond delta; a simplex from the minimum finds nothing lower."""
    rng = np.random.default_rng(0)
    N, D = (np.log(g.ravel()) for g in np.meshgrid(np.geomspace(1e7, 1e10, 8), np.geomspace(1e9, 1e12, 8)))
    log_L = Surfaces.single(E=1.7, A=400.0, B=400.0, alpha=0.34, beta=0.28).log_loss(N, D)[0]
    log_L = log_L + 0.03 * rng.standard_normal(len(N))
    fitter = Fitter(N, D, Objective(penalty))
    found, certificate = fitter.point(log_L)
    assert certificate.converged
    assert certificate.agreeing == certificate.starts

    def value(centred: np.ndarray) -> float:
        residual = fitter.uncentred(centred[None]).log_loss(N, D) - log_L
        return float(fitter.objective.value(residual, np.ones((1, len(N))))[0])

    start = fitter.centred(found.surfaces)[0]
    simplex = start + 1e-3 * np.vstack([np.zeros(5), np.eye(5)])
    options = {"initial_simplex": simplex, "maxiter": 2000, "xatol": 1e-10, "fatol": 0}
    polished = minimize(value, start, method="Nelder-Mead", options=options)
    assert value(start) == pytest.approx(found.objective[0])
    assert polished.fun >= found.objective[0] * (1 - 1e-6)


@given(a=st.floats(0.2, 0.8), alpha=st.floats(0.15, 0.6), floor=st.floats(0.1, 2.0))
@settings(max_examples=25, deadline=None)
def test_noise_free_surfaces_are_recovered(a: float, alpha: float, floor: float) -> None:
    beta = alpha * a / (1 - a)
    if not 0.1 <= beta <= 1.0:
        return
    truth = Surfaces.from_theta(
        np.array(
            [
                [
                    np.log(0.4) + alpha * np.log(3e5),
                    np.log(0.4) + beta * np.log(3e6),
                    np.log(floor),
                    alpha,
                    beta,
                ]
            ]
        )
    )
    N, D = (np.log(g.ravel()) for g in np.meshgrid(np.geomspace(1e4, 1e7, 7), np.geomspace(1e5, 1e8, 7)))
    found, certificate = Fitter(N, D, Objective("squared")).point(truth.log_loss(N, D)[0])
    assert certificate.agreeing >= 1
    np.testing.assert_allclose(found.surfaces.theta, truth.theta, rtol=2e-3, atol=2e-3)


def test_optimum_is_the_minimum_on_the_constraint() -> None:
    log_C, log_k = np.log(np.array([1e18, 1e22])), np.log(6)
    log_N, log_D = Cost.constant(6.0).optimum(TRUTH, log_C)
    np.testing.assert_allclose(log_N + log_D + log_k, log_C[None])
    for k in range(2):
        near = log_N[0, k] + np.linspace(-0.5, 0.5, 1001)
        loss = TRUTH.log_loss(near, log_C[k] - log_k - near)[0]
        assert near[loss.argmin()] == pytest.approx(log_N[0, k], abs=1e-3)


def test_same_settings_give_the_same_bits() -> None:
    results = [plain(fit(curves(3), SETTINGS).to_json()) for _ in range(2)]
    assert results[0]["subsets"] == results[1]["subsets"]
