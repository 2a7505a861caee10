"""One table, one answer: other kernels, row orders and last digits of the losses change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.stats import t as student

from jetscale.analysis import FitSettings, LossTable, fit, load_losses
from jetscale.analysis.errors.profile import profile
from jetscale.analysis.fitting.envelope import fit_envelope
from jetscale.analysis.fitting.isoflop import Slice, check_slices
from jetscale.analysis.fitting.numbers import levelled, plain
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.solver import solve
from jetscale.analysis.fitting.surface import Surfaces, form_named
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.loss_table import checked
from tests.test_study import STUDY, differences

TABLE = STUDY / "paper_rate/losses.parquet"  # flat minima, and a fit whose floor is at its bound
SUBSETS = "subset in ('qcd', 'scratch') and dim <= 32"
EPS = float(np.finfo(float).eps)


def table() -> LossTable:
    return load_losses(TABLE, where=SUBSETS)


def results(losses: LossTable, *, replicates: int = 40, choices: bool = False) -> dict[str, Any]:
    errors = UncertaintySettings(replicates=replicates, test_jet_samples=20)
    settings = FitSettings(blocks=125, uncertainty=errors, multiverse=choices)
    found: dict[str, Any] = json.loads(json.dumps(plain(fit(losses, settings).to_json())))
    return found


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return results(table())


def moved(losses: LossTable, seed: int) -> LossTable:
    """Every loss, and every block's, moved by one unit in its last place, up or down."""
    rng = np.random.default_rng(seed)

    def nudged(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, float) * (1 + EPS * rng.choice([-1, 1], size=values.shape))

    blocks = losses.blocks
    assert blocks is not None
    frame = losses.frame.assign(loss=nudged(losses.frame["loss"].to_numpy()))
    return replace(losses, frame=frame, blocks=replace(blocks, loss_sum_EB=nudged(blocks.loss_sum_EB)))


@pytest.mark.parametrize("seed", [1, 2])
def test_last_digits_of_the_losses_move_no_result(expected: dict[str, Any], seed: int) -> None:
    assert differences(results(moved(table(), seed)), expected) == []


def test_the_order_of_rows_moves_no_result(expected: dict[str, Any]) -> None:
    losses = table()
    shuffled = checked(replace(losses, frame=losses.frame.sample(frac=1, random_state=3)))
    assert differences(results(shuffled), expected) == []


OTHER_PROCESSOR = {
    "OPENBLAS_CORETYPE": "Prescott",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 X86_V3 AVX512_ICL",
}


@pytest.mark.slow
def test_other_kernels_move_no_result(expected: dict[str, Any], tmp_path: Path) -> None:
    """Another processor's products, exponentials and logarithms, as far as one processor has them."""
    script = (
        "import json, sys; from tests.analysis.test_same_numbers import results, table;"
        "open(sys.argv[1], 'w').write(json.dumps(results(table())))"
    )
    out = tmp_path / "results.json"
    features = np._core._multiarray_umath.__cpu_features__
    known = [name for name in OTHER_PROCESSOR["NPY_DISABLE_CPU_FEATURES"].split() if features.get(name)]
    environment = os.environ | OTHER_PROCESSOR | {"NPY_DISABLE_CPU_FEATURES": " ".join(known)}
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script, str(out)], cwd=root, env=environment, check=True)
    assert differences(json.loads(out.read_text()), expected) == []


@pytest.mark.parametrize("name", ["separate", "coupled"])
@pytest.mark.parametrize("residual", ["log", "raw"])
def test_a_fit_ends_where_the_gradient_is_rounding(name: str, residual: str) -> None:
    """Exact second derivatives: Newton steps take the gradient from 1e-4 to 1e-13 and below."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 60))
    theta = np.array([[-1.0, -0.8, 0.4, 0.3, 0.35]])
    form = form_named(name)
    log_L = form.log_loss(theta, x, y) + 0.03 * rng.normal(size=60)
    found = solve(theta + 0.02, x, y, log_L, np.ones((1, 60)), Objective("huber", 1e-2, residual), form)
    assert found.gradient[0] < 1e-14


def test_ends_of_a_profile_are_where_the_refit_rises_to_the_level() -> None:
    """The definition, by a search that shares nothing with the profile but the fit of the other four."""
    rng = np.random.default_rng(1)
    N, D = (np.log(g.ravel()) for g in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    truth = Surfaces.single(E=1.8, A=400.0, B=2000.0, alpha=0.34, beta=0.37)
    log_L = truth.log_loss(N, D)[0] + 0.003 * rng.standard_normal(36)
    fitter = Fitter(N, D, Objective("squared"))
    found = profile(fitter, log_L, fitter.point(log_L)[0].surfaces, 60.0)["alpha"]
    assert found.ci95 is not None
    rss = []
    for alpha in (found.value, *found.ci95):

        def residual(p: np.ndarray, alpha: float = alpha) -> np.ndarray:
            theta = np.array([p[0] + alpha * N.mean(), p[1] + p[3] * D.mean(), p[2], alpha, p[3]])
            return np.asarray(Surfaces.from_theta(theta).log_loss(N, D)[0] - log_L)

        at = fitter.centred(fitter.point(log_L)[0].surfaces)[0][[0, 1, 2, 4]]
        best = least_squares(residual, at, xtol=1e-15, ftol=1e-15, gtol=1e-15)
        rss.append(2 * best.cost)
    level = student.ppf(0.975, 31) ** 2
    for end in rss[1:]:
        assert (end - rss[0]) / (rss[0] / 31) == pytest.approx(level, rel=1e-6)


def test_equal_losses_are_chosen_by_rule_not_by_last_digits() -> None:
    """A smaller model reaches the same loss at the same budget, up to one unit in the last place."""
    log_C = np.log(np.repeat(np.geomspace(1e18, 1e21, 6), 2))
    log_N = np.tile(np.log([1e8, 2e8]), 6) + 0.5 * (log_C - log_C[0])
    log_L = np.repeat(np.linspace(1.3, 1.1, 6) ** 2, 2)
    for envelope in ("hull", "record-low", "bins"):
        members = []
        for seed in range(6):
            nudge = EPS * np.random.default_rng(seed).choice([-1, 0, 1], size=(2, 12))
            C, L = log_C * (1 + nudge[0]), log_L * (1 + nudge[1])
            fitted = fit_envelope(log_N, C - log_N, C, L[None], np.ones((1, 12)), envelope, 6)
            members.append(fitted.member_RP[0].tolist())
        assert members == [[False, True] * 6] * 6, envelope


def test_a_tie_with_the_edge_is_not_an_optimum_at_the_edge() -> None:
    x = np.log(np.geomspace(1e7, 1e9, 5))
    y = np.array([1.2, 1.1, 1.05, 1.06, 1.05])
    every = Slice(0.0, np.arange(5), np.arange(5), np.zeros(5))
    for nudge in (-EPS, 0.0, EPS):
        log_L = y + nudge * np.arange(5)
        (vertex,) = check_slices([every], x, log_L, 2, 4)
        assert vertex.problem == ""


def test_levels() -> None:
    values = np.array([[3.0, 1.0 + 3e-16, np.inf, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    assert levelled(values).tolist() == [[3.0, 1.0, np.inf, 1.0, 2.0], [1.0] * 5]


def test_no_digits_of_rounding_in_a_fit_without_noise() -> None:
    N, D = (np.log(g.ravel()) for g in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    log_L = Surfaces.single(E=1.8, A=400.0, B=2000.0, alpha=0.34, beta=0.37).log_loss(N, D)[0]
    fitter = Fitter(N, D, Objective())
    found, certificate = fitter.point(log_L)
    assert found.objective[0] == 0
    assert (certificate.gradient, certificate.decrease, certificate.digits) == (1e-12, 1e-15, {})
    assert all(quantity.ci95 is None for quantity in profile(fitter, log_L, found.surfaces, 60.0).values())


def test_what_rounding_leaves_undetermined_is_said() -> None:
    """D = 20 N and equal exponents: A and B trade places freely, their sum does not."""
    N = np.log(np.geomspace(1e7, 1e10, 20))
    D = N + np.log(20.0)
    log_L = np.log(1.8 + 400 / np.exp(0.3 * N))
    _, certificate = Fitter(N, D, Objective(), form_named("tied")).point(log_L)
    assert {"A", "B"} <= set(certificate.digits)
    assert "L_inf" not in certificate.digits
    assert any("few digits" in text for text in certificate.warnings())


def test_a_minimum_that_goes_on_falling_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two neighbours that creep down on each other's heels: the rounds end, and nothing is claimed."""
    rounds = []

    def falling(requests: Any) -> Any:
        rounds.append(len(requests))
        objective = 1.0 - 0.01 * len(rounds)
        return [(np.full(len(t_T), objective), start_TSF[:, 0].copy()) for _, (t_T, start_TSF) in requests]

    monkeypatch.setattr("jetscale.analysis.errors.profile._minima", falling)
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    surface = Surfaces.from_theta(np.array([-1.0, -0.8, 0.4, 0.3, 0.35]))
    log_L = surface.log_loss(x, y)[0] + 0.01 * np.sin(7 * x + y)
    fitter = Fitter(x, y, Objective("huber", 0.02, "log"))
    found = profile(fitter, log_L, surface, 0.0)
    assert all(quantity.ci95 is None for quantity in found.values())
    assert len(rounds) < 1000
