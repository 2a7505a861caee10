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
from jetscale.analysis.answers.total_budget import EffectiveData, Price, best_split, marginal
from jetscale.analysis.errors.profile import profile
from jetscale.analysis.fitting.envelope import fit_envelope
from jetscale.analysis.fitting.isoflop import Slice, check_slices
from jetscale.analysis.fitting.numbers import levelled, plain
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.solver import solve
from jetscale.analysis.fitting.surface import Surfaces, form_named
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.joint.groups import Composition
from jetscale.analysis.joint.sharing import Points
from jetscale.analysis.joint.transfer import LAWS, TransferModel
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.loss_table import checked, names_of_groups
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


def pretrained() -> LossTable:
    """Runs from scratch and of two compositions, each pretrained on several numbers of jets."""
    return load_losses(STUDY / "pretraining/losses.parquet")


@pytest.fixture(scope="module")
def pretraining() -> dict[str, Any]:
    return results(pretrained())


def moved(losses: LossTable, seed: int) -> LossTable:
    """Every loss, and every block's, moved by one unit in its last place, up or down."""
    rng = np.random.default_rng(seed)

    def nudged(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, float) * (1 + EPS * rng.choice([-1, 1], size=values.shape))

    blocks = losses.blocks
    assert blocks is not None
    frame = losses.frame.assign(loss=nudged(losses.frame["loss"].to_numpy()))
    return replace(losses, frame=frame, blocks=replace(blocks, loss_sum_EB=nudged(blocks.loss_sum_EB)))


def points_of_pretraining() -> tuple[dict[str, Points], tuple[Composition, ...]]:
    """Mean losses of scratch and of both compositions."""
    frame = pretrained().frame
    points = {}
    jets: dict[str, dict[str, float]] = {}
    frame = frame.assign(group=names_of_groups(frame))
    for name, rows in frame.groupby("group"):
        mean = rows.groupby(["n_params", "jets"], as_index=False)["loss"].mean()
        points[str(name)] = Points(*(np.log(mean[key].to_numpy()) for key in ("n_params", "jets", "loss")))
        if rows["pretrain_jets"].iloc[0] > 0:
            one = str(rows["subset"].iloc[0]).partition("@")[0]
            jets.setdefault(one, {})[str(name)] = float(rows["pretrain_jets"].iloc[0])
    return points, tuple(Composition(one, groups) for one, groups in jets.items())


@pytest.mark.parametrize("seed", [2, 3])
def test_last_digits_of_the_losses_move_no_law_of_transfer(pretraining: dict[str, Any], seed: int) -> None:
    assert differences(results(moved(pretrained(), seed)), pretraining) == []


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
def test_other_kernels_move_no_result(
    expected: dict[str, Any], pretraining: dict[str, Any], tmp_path: Path
) -> None:
    """Another processor's products, exponentials and logarithms, as far as one processor has them."""
    script = (
        "import json, sys; from tests.analysis.test_same_numbers import pretrained, results, table;"
        "open(sys.argv[1], 'w').write(json.dumps([results(table()), results(pretrained())]))"
    )
    out = tmp_path / "results.json"
    features = np._core._multiarray_umath.__cpu_features__
    known = [name for name in OTHER_PROCESSOR["NPY_DISABLE_CPU_FEATURES"].split() if features.get(name)]
    environment = os.environ | OTHER_PROCESSOR | {"NPY_DISABLE_CPU_FEATURES": " ".join(known)}
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script, str(out)], cwd=root, env=environment, check=True)
    assert differences(json.loads(out.read_text()), [expected, pretraining]) == []


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


def test_a_total_budget_does_not_hang_on_the_last_digit_of_a_flat_minimum() -> None:
    """Pretraining is worth next to nothing: a third less of it changes the loss by less than 1e-7."""
    rng = np.random.default_rng(0)
    #                  ln A         ln B         ln E          alpha beta  ln k          p    q
    theta = np.array([[np.log(60.0), np.log(6.0), np.log(0.35), 0.44, 0.22, np.log(20.0), 0.2, -0.01]])
    theta = theta + 0.02 * rng.standard_normal((20, 8))
    price = Price(0.0, 240.0, 240.0)
    found = best_split(EffectiveData(theta), 1e16, price, pretraining=True, replicates=20)
    assert (found.D_pre > 1).all()
    less = (found.N, found.D_pre / 1.5, found.D)
    rise = EffectiveData(theta)(*(np.log(value)[:, None] for value in less))[:, 0] - found.log_loss
    assert ((rise > 0) & (rise < 1e-7)).all()
    gains = marginal(EffectiveData(theta), found.N, found.D_pre, found.D, price)
    assert np.allclose(gains.pretrain, gains.finetune, rtol=1e-9, atol=0)
    assert np.allclose(gains.model, gains.finetune, rtol=1e-9, atol=0)
    for _ in range(3):
        nudged = EffectiveData(theta * (1 + EPS * rng.choice([-1, 1], size=theta.shape)))
        again = best_split(nudged, 1e16, price, pretraining=True, replicates=20)
        for key in ("N", "D_pre", "D", "log_loss"):
            assert np.allclose(getattr(again, key), getattr(found, key), rtol=1e-9, atol=0), key


def test_replicates_of_a_transfer_law_are_in_the_lowest_minimum_of_the_data() -> None:
    """The law of the pretraining study has two minima, and many of its replicates have both."""
    rng = np.random.default_rng(0)
    points, composition = points_of_pretraining()
    model = TransferModel.of(LAWS["effective_data"], points, "scratch", composition, Objective())
    point, certificate = model.point(points)
    assert point.minima is not None
    assert len(point.minima) == 2
    assert 2 <= certificate.agreeing < certificate.starts
    assert certificate.to_json()["agreeing"] == 2  # "two or more": a start between minima ends in either
    log_L = {name: p.log_L + 0.01 * rng.standard_normal((40, len(p.log_L))) for name, p in points.items()}
    weight = {name: p.weights[None] for name, p in points.items()}
    found = model.replicates(log_L, weight, point)
    apart = []
    for minimum in point.minima:
        alone = model.model.best(np.tile(minimum, (1, 40, 1)), log_L, weight)
        assert (found.objective <= alone.objective * (1 + 1e-9)).all()
        apart.append(alone.objective)
    assert (np.abs(apart[0] / apart[1] - 1) > 1e-6).any()  # it does matter where one starts
    moved_L = {name: v * (1 + EPS * rng.choice([-1, 1], size=v.shape)) for name, v in log_L.items()}
    again = model.replicates(moved_L, weight, point)
    assert np.allclose(again.phi, found.phi, rtol=0, atol=1e-8)


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
