"""All subsets in one model: against independent fits, known truths, and what must be refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from jetscale.analysis import FitSettings, fit
from jetscale.analysis.__main__ import main
from jetscale.analysis.checks.synthetic import Noise, curves_table
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import Surfaces, _problem
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.joint.data import Facts, JointData
from jetscale.analysis.joint.groups import Composition, compositions_of
from jetscale.analysis.joint.sharing import COLUMNS, Points, SharedModel, losses_of
from jetscale.analysis.joint.transfer import LAWS, TransferModel
from jetscale.analysis.joint.transfer_forms import Tilted, WithExtraData
from jetscale.analysis.joint.transfer_starts import pooled_nodes
from jetscale.analysis.settings import JointSettings, UncertaintySettings
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.common.usage import UsageError

Array = NDArray[np.float64]

RATIO = 0.6
WIDTHS = (8, 16, 24, 32, 48, 64)
TRUE = {"E": 0.5, "A": 25.0, "B": 16.0, "alpha": 0.45, "beta": 0.30}


def quick(**joint: Any) -> FitSettings:
    errors = UncertaintySettings(replicates=60, test_jet_samples=0, profile=False)
    return FitSettings(multiverse=False, uncertainty=errors, joint=JointSettings(**joint))


def grid() -> tuple[Array, Array]:
    x, y = np.meshgrid(np.log(40.0 * np.array(WIDTHS) ** 2), np.log(np.geomspace(3e3, 4e5, 12)))
    return x.ravel(), y.ravel()


def noisy(surface: Surfaces, seed: int, sd: float = 0.004) -> Points:
    x, y = grid()
    scatter = sd * np.random.default_rng(seed).standard_normal(len(x))
    return Points(x, y, surface.log_loss(x, y)[0] + scatter)


def two_groups() -> dict[str, Points]:
    return {
        "scratch": noisy(Surfaces.single(**TRUE), 1),
        "pre.trained": noisy(Surfaces.single(**{**TRUE, "B": RATIO * TRUE["B"], "E": 0.45}), 2),
    }


def sweep_of(surfaces: dict[str, Surfaces], seeds: int = 3, runs: float = 0.004, **more: Any) -> LossTable:
    shape: dict[str, Any] = {"widths": WIDTHS, "jets": 4e5, "evaluations": 8} | more
    return curves_table(surfaces, Noise(runs=runs), np.random.default_rng(5), seeds=seeds, **shape)


def with_jets(table: LossTable, jets: dict[str, float]) -> LossTable:
    """The table with the jets each subset was pretrained on."""
    frame = table.frame.assign(pretrain_jets=table.frame["subset"].map(jets))
    return LossTable(frame, table.source, table.flops_per_param_sample, table.sample)


@pytest.mark.parametrize("form", [WithExtraData(), Tilted()], ids=lambda form: type(form).__name__)
def test_derivatives_are_those_of_the_loss(form: Any) -> None:
    assert _problem(form) == ""


def test_extra_data_is_data() -> None:
    """Where T N^q does not depend on N, the form is the additive one at D + T."""
    x, y = grid()
    common = np.array([[np.log(25.0), np.log(16.0), np.log(0.5), 0.45, 0.3]])
    more = np.log(np.exp(y) + 7000.0)
    expected = Surfaces.from_theta(common).log_loss(x, more)
    theta = np.column_stack([common, [[np.log(7000.0), 0.0]]])
    assert np.allclose(WithExtraData().log_loss(theta, x, y), expected, rtol=0, atol=1e-13)


def test_joint_minimum_is_that_of_another_optimiser() -> None:
    points, objective = two_groups(), Objective()
    model = SharedModel.of(points, ["alpha", "beta"], objective)
    fit, certificate = model.point(points)
    assert certificate.converged
    assert certificate.agreeing >= 6

    def value(p: Array) -> float:
        total = 0.0
        for at, one in enumerate(points.values()):
            log_A, log_B, log_E = p[2 + 3 * at : 5 + 3 * at]
            terms = np.exp(log_A - p[0] * one.log_N) + np.exp(log_B - p[1] * one.log_D) + np.exp(log_E)
            r = np.abs(np.log(terms) - one.log_L)
            total += np.where(r <= 1e-3, r**2 / 2, 1e-3 * (r - 5e-4)).sum()
        return 1e3 * float(total)

    found = {name: surfaces.theta[0] for name, surfaces in model.model.surfaces(fit.phi).items()}
    here = np.concatenate([found["scratch"][3:], *(theta[:3] for theta in found.values())])
    assert value(here) == pytest.approx(1e3 * fit.objective[0], rel=1e-9)
    start = here + np.random.default_rng(0).normal(scale=0.02, size=len(here))
    other = minimize(value, start, method="Nelder-Mead", options={"maxiter": 4000, "adaptive": True})
    assert other.fun > value(here) * (1 - 1e-9)  # nothing lower, from elsewhere or from here
    again = minimize(value, here, method="Powell", options={"maxiter": 4000})
    assert again.fun > value(here) * (1 - 1e-7)


def test_nothing_shared_is_every_subset_alone() -> None:
    points = two_groups()
    model = SharedModel.of(points, [], Objective())
    fit, _ = model.point(points)
    for name, one in points.items():
        alone, _ = Fitter(one.log_N, one.log_D, Objective()).point(one.log_L)
        assert np.allclose(model.model.surfaces(fit.phi)[name].theta, alone.surfaces.theta, atol=1e-7)


def test_everything_shared_is_one_table() -> None:
    points = {name: noisy(Surfaces.single(**TRUE), seed) for seed, name in enumerate(("a", "b", "c"))}
    model = SharedModel.of(points, COLUMNS, Objective())
    fit, _ = model.point(points)
    x, y, z = (
        np.concatenate([getattr(p, axis) for p in points.values()]) for axis in ("log_N", "log_D", "log_L")
    )
    alone, _ = Fitter(x, y, Objective()).point(z)
    assert fit.objective[0] == pytest.approx(alone.objective[0], rel=1e-9)
    assert np.allclose(model.model.surfaces(fit.phi)["c"].theta, alone.surfaces.theta, atol=1e-6)


def test_shared_scale_with_free_exponents_is_the_scale_itself() -> None:
    """A is shared, not A at the middle of the sizes, which would tie alpha to it."""
    points = two_groups()
    model = SharedModel.of(points, ["A", "beta"], Objective())
    values = model.values(model.point(points)[0].phi)
    assert values["scratch"]["A"] == pytest.approx(values["pre.trained"]["A"], rel=1e-9)
    assert values["scratch"]["alpha"] != pytest.approx(values["pre.trained"]["alpha"], rel=1e-6)


def test_weights_are_repetitions() -> None:
    """A point of weight 2 is the same point twice."""
    points = two_groups()
    one = points["scratch"]
    twice = np.concatenate([np.arange(len(one.log_L)), np.arange(20)])
    repeated = {**points, "scratch": Points(one.log_N[twice], one.log_D[twice], one.log_L[twice])}
    weight = np.where(np.arange(len(one.log_L)) < 20, 2.0, 1.0)
    weighted = {**points, "scratch": Points(one.log_N, one.log_D, one.log_L, weight)}
    fits = {}
    for name, some in (("repeated", repeated), ("weighted", weighted)):
        model = SharedModel.of(some, ["alpha", "beta"], Objective())
        fits[name] = model.values(model.point(some)[0].phi)["scratch"]
    for name, value in fits["weighted"].items():
        assert value[0] == pytest.approx(fits["repeated"][name][0], rel=1e-6)


@pytest.fixture(scope="module")
def five() -> Any:
    """Five subsets of one law; only B differs."""
    ratios = {"scratch": 1.0, "a": 0.9, "b": 0.8, "c": 0.7, "d": RATIO}
    surfaces = {name: Surfaces.single(**{**TRUE, "B": TRUE["B"] * r}) for name, r in ratios.items()}
    return fit(sweep_of(surfaces), quick(replicates=60))


def test_ratio_of_scales_comes_back(five: Any) -> None:
    ratio = five.details["joint"]["ratios"]["d / scratch"]["B"]
    assert abs(ratio.value - RATIO) < 0.005
    assert ratio.sd < 0.005
    assert ratio.ci95[0] < RATIO < ratio.ci95[1]


def test_tests_find_what_differs_and_nothing_else(five: Any) -> None:
    tests = five.details["joint"]["tests"]
    assert tests["same_B"]["p"] < 0.05
    assert set(tests["same_B"]["differs"]) == {"a", "b", "c", "d"}
    assert tests["offset_only"]["verdict"].startswith("differs: ")
    for name in ("same_exponents", "same_A"):
        assert tests[name]["p"] > 0.05
        assert tests[name]["verdict"] == "not distinguishable"
        assert 0 < tests[name]["p_sd"] < 0.07
    seen = tests["same_exponents"]["detectable"]["a"]
    assert 0.001 < seen < 0.2
    assert f"{seen:.2g} in a" in tests["same_exponents"]["sentence"]
    for test in tests.values():
        for key, value in test["detectable"].items():
            assert 0 < test["detectable_by_runs"][key] <= value


@pytest.mark.parametrize(("penalty", "residual"), [("squared", "log"), ("huber", "raw")])
def test_other_objectives_give_the_same_verdicts(penalty: str, residual: str) -> None:
    settings = quick(replicates=40)
    settings.approach3.objective, settings.approach3.residual = penalty, residual
    pair = {
        name: Surfaces.single(**{**TRUE, "B": TRUE["B"] * r}) for name, r in (("scratch", 1), ("b", RATIO))
    }
    joint = fit(sweep_of(pair), settings).details["joint"]
    assert joint["tests"]["same_B"]["p"] < 0.05 < joint["tests"]["same_exponents"]["p"]
    assert abs(joint["ratios"]["b / scratch"]["B"].value - RATIO) < 0.02


def test_exponents_that_differ_are_told_apart() -> None:
    other = Surfaces.single(E=0.5, A=9.0, B=60.0, alpha=0.33, beta=0.45)
    found = fit(sweep_of({"scratch": Surfaces.single(**TRUE), "far": other}), quick())
    test = found.details["joint"]["tests"]["same_exponents"]
    assert test["p"] < 0.05
    assert test["differs"] == ["far"]
    true = 0.45 / 0.78 - 0.30 / 0.75
    low, high = test["contrasts"]["far - scratch"]["a"]["ci95"]
    assert low < true < high
    assert "far - scratch" in test["verdict"]


def laws_of(k: float, p: float, q: float, jets: dict[str, float]) -> tuple[Any, Any, dict[str, Points]]:
    """Noise-free losses of scratch and of groups with D_T = k D_pre^p N^q, fitted by that law."""
    x, y = grid()
    points = {"scratch": noisy(Surfaces.single(**TRUE), 0, sd=0.0)}
    common = [np.log(TRUE["A"]), np.log(TRUE["B"]), np.log(TRUE["E"]), TRUE["alpha"], TRUE["beta"]]
    for name, D in jets.items():
        theta = np.array([[*common, np.log(k) + p * np.log(D), q]])
        points[name] = Points(x, y, WithExtraData().log_loss(theta, x, y)[0])
    law = LAWS["effective_data"]
    model = TransferModel.of(law, points, "scratch", (Composition("c", dict(jets)),), Objective())
    return model, model.point(points), points


def test_powers_of_extra_data_come_back() -> None:
    model, (fit, certificate), _ = laws_of(2.0, 0.6, 0.2, {"c@2e4": 2e4, "c@1e5": 1e5})
    theta = {key: float(value[0]) for key, value in model.theta(fit.phi).items()}
    assert certificate.agreeing >= 6
    assert theta["c.p"] == pytest.approx(0.6, abs=1e-6)
    assert theta["c.q"] == pytest.approx(0.2, abs=1e-6)
    assert np.exp(theta["c.log_k"]) == pytest.approx(2.0, rel=1e-5)
    assert theta["beta"] == pytest.approx(TRUE["beta"], abs=1e-7)
    assert np.exp(theta["log_A"]) == pytest.approx(TRUE["A"], rel=1e-5)


def test_the_decaying_law_comes_back_as_its_formula_says_it() -> None:
    """K B / (D_pre^p N^q D^(beta - s ln D_pre)), written out: k and p are those at D = 1."""
    k, p, q, s = 0.6, 0.05, 0.02, 0.008
    x, y = grid()
    points = {"scratch": noisy(Surfaces.single(**TRUE), 0, sd=0.0)}
    jets = {"c@2e4": 2e4, "c@1e5": 1e5}
    for name, D_pre in jets.items():
        of_D = k * TRUE["B"] / (D_pre**p * np.exp(q * x) * np.exp((TRUE["beta"] - s * np.log(D_pre)) * y))
        points[name] = Points(x, y, np.log(TRUE["E"] + TRUE["A"] * np.exp(-TRUE["alpha"] * x) + of_D))
    law, composition = LAWS["decaying"], Composition("c", dict(jets))
    model = TransferModel.of(law, points, "scratch", (composition,), Objective())
    fit, _ = model.point(points)
    theta = {key: float(value[0]) for key, value in model.theta(fit.phi).items()}
    for key, value in (("p", p), ("q", q), ("s", s), ("log_k", np.log(k))):
        assert theta[f"c.{key}"] == pytest.approx(value, abs=1e-5), key
    assert theta["beta"] == pytest.approx(TRUE["beta"], abs=1e-6)


def transferred(jets: dict[str, float], T: float, **shape: Any) -> LossTable:
    """Curves of scratch and of groups for which pretraining counts as T jets, with scatter."""
    common = [np.log(TRUE["A"]), np.log(TRUE["B"]), np.log(TRUE["E"]), TRUE["alpha"], TRUE["beta"]]
    surfaces = {"scratch": Surfaces.single(**TRUE)}
    for name, D in jets.items():
        size = T * D / max(jets.values()) if T else 1e-9
        surfaces[name] = Surfaces(np.array([[*common, np.log(size), 0.0]]), WithExtraData())
    return with_jets(sweep_of(surfaces, **shape), {"scratch": 0.0, **jets})


def test_worth_in_jets_and_what_is_refused() -> None:
    found = fit(transferred({"c": 1e5}, 30_000.0), quick()).details
    worth = found["transfer"]["c"]
    low, high = worth["D_T"].ci95
    assert low < 30_000 < high
    assert high / low < 1.5
    assert worth["p"].value is None
    assert "same 100,000 jets" in worth["refused"]["p"]
    assert worth["k"].value is None
    assert worth["q"].ci95[0] < 0 < worth["q"].ci95[1]
    assert worth["sentence"].startswith("pretraining on c is worth ")
    assert "at width 32 (pretrained on 100,000)" in worth["sentence"]
    assert [row["dim"] for row in worth["by_width"]] == list(WIDTHS)
    laws = found["transfer_laws"]["laws"]
    held = {name: law["held_out"]["D"] for name, law in laws.items()}
    assert held["effective_data"]["rms_error"] < 0.003 < 0.03 < held["separate"]["rms_error"]
    assert "effective_data" in found["transfer_laws"]["verdict"]
    # one surface between two groups with equally many points may pass anywhere
    none = laws["none"]
    assert none["held_out"] == {"D": None, "N": None}
    assert none["rms"] is None
    assert not none["theta"]
    assert all(value.value is None for value in none["parameters"].values())
    assert "none" not in found["transfer_laws"]["verdict"]
    (warning,) = found["transfer_laws"]["warnings"]
    assert "law none: surfaces that differ by up to 2" in warning


def test_of_minima_that_are_equal_up_to_rounding_rounding_chooses_none() -> None:
    points = {
        name: noisy(Surfaces.single(**{**TRUE, "B": B}), seed, sd=0.002)
        for name, B, seed in (("a", 16.0, 1), ("b", 8.0, 2))
    }
    law = TransferModel.of(LAWS["none"], points, "a", (Composition("b", {"b": 1e5}),), Objective())
    log_L, weight = losses_of(points)
    starts = law.starts(log_L, weight, pooled_nodes(law.model.groups, log_L, weight, 8))
    rng, found = np.random.default_rng(0), []
    for _ in range(12):
        moved = {name: np.nextafter(one, rng.choice([-9.0, 9.0], one.shape)) for name, one in log_L.items()}
        fit, certificate = law.model.point(starts[:, 0], moved, weight)
        found += [fit.phi, law.model.best(starts, moved, weight).phi]
        assert certificate.flat
        assert certificate.spread > 0.01
    assert np.ptp(np.concatenate(found), axis=0).max() < 1e-6
    assert not SharedModel.of(points, frozenset(), Objective()).point(points)[1].flat


@pytest.mark.parametrize("replicates", [2, 4])
def test_replicates_too_few_for_the_scatter_of_bends_test_none(replicates: int) -> None:
    errors = UncertaintySettings(replicates=replicates, test_jet_samples=0, profile=False)
    table = sweep_of({"scratch": Surfaces.single(**TRUE)}, runs=0.03)
    found = fit(table, FitSettings(multiverse=False, uncertainty=errors)).subsets["scratch"]
    assert found.details["lack_of_fit"] is None


def test_two_amounts_of_pretraining_give_the_power() -> None:
    found = fit(transferred({"c@20000": 2e4, "c@100000": 1e5}, 30_000.0), quick()).details["transfer"]["c"]
    assert found["refused"] == {}
    assert found["p"].ci95[0] < 1.0 < found["p"].ci95[1]
    assert found["groups"] == {"c@20000": 2e4, "c@100000": 1e5}
    assert found["at"]["pretrain_jets"] == 1e5


def test_no_effect_is_said() -> None:
    worth = fit(transferred({"c": 1e5}, 0.0), quick()).details["transfer"]["c"]
    assert worth["D_T"].ci95[0] == 0
    assert worth["D_T"].ci95[1] < 3_000
    assert worth["sentence"].startswith("pretraining on c is worth at most ")


@pytest.mark.parametrize("widths", [(32,), (8, 32)])
def test_few_sizes_carry_the_law_of_the_data(widths: tuple[int, ...]) -> None:
    found = fit(transferred({"c": 1e5}, 30_000.0, widths=widths), quick()).details
    assert "joint" not in found  # no surface of approach 3
    worth = found["transfer"]["c"]
    assert worth["D_T"].ci95[0] < 30_000 < worth["D_T"].ci95[1]
    assert ("q" in worth["refused"]) == (len(widths) == 1)
    law = found["transfer_laws"]["laws"]["effective_data"]
    assert law["parameters"]["alpha"].value is None
    assert law["parameters"]["beta"].ci95[0] < TRUE["beta"] < law["parameters"]["beta"].ci95[1]


def test_five_subsets_with_100_refits_take_under_5_seconds(five: Any) -> None:
    points = {
        name: Points(s.task.curves.log_N, s.task.curves.log_D, s.task.log_L_P)
        for name, s in five.subsets.items()
    }
    rng = np.random.default_rng(0)
    log_L = {name: p.log_L + 0.01 * rng.standard_normal((100, len(p.log_L))) for name, p in points.items()}
    ones = {name: np.ones((1, len(p.log_L))) for name, p in points.items()}
    begin = time.process_time()
    model = SharedModel.of(points, ["alpha", "beta"], Objective())
    model.point(points)
    model.replicates(log_L, ones)
    assert time.process_time() - begin < 5


def test_what_is_written(five: Any, tmp_path: Path) -> None:
    five.save(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    joint = results["joint"]
    assert set(joint["shared"]) == {"alpha", "beta", "a", "b"}
    assert set(joint["subsets"]["d"]) == {"L_inf", "A", "B", "a", "b"}
    assert {"value", "sd", "ci95"} == set(joint["shared"]["alpha"])
    assert 0 < joint["rms_separate"] < 0.01
    assert joint["rms"] < 0.01
    assert joint["warnings"] == []
    assert {"same_exponents", "offset_only"} <= set(joint["tests"])
    assert (tmp_path / "joint.parquet").is_file()
    assert five.joint_draws["joint.d.B"].shape == (60,)


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    table = sweep_of({"scratch": Surfaces.single(**TRUE), "b": Surfaces.single(**TRUE)}, seeds=2)
    (tmp_path / "joint.parquet").write_bytes(b"of another fit")
    quiet = fit(table, quick(on=False))
    quiet.save(tmp_path)
    assert not {"joint", "transfer", "transfer_laws"} & set(quiet.details)
    assert not (tmp_path / "joint.parquet").exists()


def test_unknown_parameter_is_refused(sweep: Callable[..., Path], tmp_path: Path) -> None:
    path = sweep({"scratch": 0.5, "bsm_all": 0.4}, widths=(16, 32, 64), seeds=2, evaluations=8)
    with pytest.raises(UsageError, match=r"'gamma' is no parameter .* choose among L_inf, A, B, alpha, beta"):
        main([f"path={path}", f"out={tmp_path}", "joint.shared=[gamma]"])
    assert not (tmp_path / "results.json").exists()


def test_other_forms_have_no_joint_fit() -> None:
    settings = quick()
    settings.approach3.form = "tied"
    found = fit(
        sweep_of({"scratch": Surfaces.single(**TRUE), "b": Surfaces.single(**TRUE)}, seeds=2), settings
    )
    assert "joint" not in found.details
    assert any("approach3.form=tied" in text for text in found.warnings)


def test_no_floor_is_no_number() -> None:
    """A law without a floor: L_inf and its ratios have no value, and a warning says so."""
    table = sweep_of({name: Surfaces.single(**{**TRUE, "E": 1e-6}) for name in ("scratch", "b")}, seeds=2)
    found = fit(table, quick())
    joint = found.details["joint"]
    assert joint["subsets"]["b"]["L_inf"].value is None
    assert joint["ratios"]["b / scratch"]["L_inf"].value is None
    assert joint["ratios"]["b / scratch"]["B"].value is not None
    assert any("no floor found in b, scratch" in text for text in found.warnings)


def groups(jets: dict[str, float | None]) -> Any:
    facts = {name: Facts(value, {}) for name, value in jets.items()}
    tasks: Any = dict.fromkeys(jets)
    return JointData(tasks, {}, facts, {}, 0)


def test_groups_of_one_composition_differ_in_their_pretraining_only() -> None:
    names = [
        "scratch",
        "qcd@2e4",
        "qcd@1e5",
        "b [pretrain.steps=10]",
        "b [pretrain.steps=20]",
        "c [finetune.lr=1]",
    ]
    jets = dict(zip(names, (None, 2e4, 1e5, 1e4, 2e4, 1e5), strict=True))
    scratch, found, problem = compositions_of(groups(jets))
    assert (scratch, problem) == ("scratch", "")
    assert {one.name: list(one.groups.values()) for one in found} == {
        "qcd": [2e4, 1e5],
        "b": [1e4, 2e4],
        "c [finetune.lr=1]": [1e5],
    }


@pytest.mark.parametrize(
    ("jets", "words"),
    [
        ({"a": 1e5, "b": 1e5}, "no runs from scratch"),
        ({"a": 0.0, "scratch": None, "b": 1e5}, "2 groups from scratch (a, scratch)"),
        ({"scratch": 0.0}, "no pretrained group"),
    ],
)
def test_no_law_without_one_scratch(jets: dict[str, float | None], words: str) -> None:
    scratch, found, problem = compositions_of(groups(jets))
    assert scratch is None
    assert found == ()
    assert words in problem
