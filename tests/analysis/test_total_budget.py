"""A total budget: the optimum against scipy and closed forms, the truth inside its intervals, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.answers.total_budget import (
    EffectiveData,
    Price,
    best_split,
    marginal,
    pays_until,
)
from jetscale.analysis.answers.total_plan import plan_total
from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.numbers import Quantity, plain
from jetscale.analysis.output.report import page
from jetscale.analysis.output.sentences import answers
from jetscale.analysis.plan import main
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables import checksums
from jetscale.common.usage import UsageError

PRICE = Price(simulate=2e7, pretrain=240.0, finetune=240.0)
#                 ln A        ln B         ln E          alpha beta  ln k         p    q
TRUTH = np.array([[np.log(60.0), np.log(6.0), np.log(0.35), 0.44, 0.22, np.log(8.0), 0.7, 0.15]])
BUDGET = 1e16


def law(**changes: float) -> EffectiveData:
    theta = TRUTH.copy()
    for name, value in changes.items():
        theta[0, ("log_A", "log_B", "log_E", "alpha", "beta", "log_k", "p", "q").index(name)] = value
    return EffectiveData(theta)


def by_scipy(one: EffectiveData, budget: float, price: Price) -> tuple[float, np.ndarray]:
    """Lowest ln L over ln N and ln D_pre, D from what is left of the budget; many starts of Nelder-Mead."""

    def objective(z: np.ndarray) -> float:
        N, D_pre = np.exp(np.clip(z, -50, 80))
        left = budget - (price.simulate + price.pretrain * N) * D_pre
        if left <= 0:
            return 1e3
        D = left / (price.simulate + price.finetune * N)
        return float(one(np.log([[N]]), np.log([[D_pre]]), np.log([[D]]))[0, 0])

    best = None
    for log_N in np.log([1e4, 1e5, 1e6, 1e7]):
        for share in (0.01, 0.3, 0.9):
            D_pre = share * budget / (price.simulate + price.pretrain * np.exp(log_N))
            options = {"maxiter": 5000, "xatol": 1e-10, "fatol": 1e-14}
            found = minimize(objective, [log_N, np.log(D_pre)], method="Nelder-Mead", options=options)
            if best is None or found.fun < best.fun:
                best = found
    assert best is not None
    return float(best.fun), np.exp(best.x)


@pytest.mark.parametrize(
    "one", [law(), law(p=0.4), law(q=-0.2), law(p=1.0, log_k=-1.0), law(log_k=2.5, p=0.9)], ids=str
)
@pytest.mark.parametrize("price", [PRICE, Price(0.0, 240.0, 240.0), Price(1e9, 80.0, 240.0)], ids=str)
def test_the_optimum_is_scipys(one: EffectiveData, price: Price) -> None:
    found = best_split(one, BUDGET, price, pretraining=True, replicates=1)
    lowest, at = by_scipy(one, BUDGET, price)
    assert found.log_loss[0] <= lowest + 1e-9
    assert found.log_loss[0] == pytest.approx(lowest, abs=1e-6)
    assert price.total(found.N, found.D_pre, found.D)[0] == pytest.approx(BUDGET, rel=1e-9)
    if found.D_pre[0] > 10 and found.D[0] * price.finetune * found.N[0] > 1e-3 * BUDGET:
        # inside, a FLOP gains as much whatever it buys
        assert found.N[0] == pytest.approx(at[0], rel=1e-3)
        assert found.D_pre[0] == pytest.approx(at[1], rel=1e-2)
        gains = marginal(one, found.N, found.D_pre, found.D, price)
        assert gains.pretrain[0] == pytest.approx(gains.finetune[0], rel=1e-3)
        assert gains.model[0] == pytest.approx(gains.finetune[0], rel=1e-3)


def test_scratch_is_the_closed_form() -> None:
    """N* = G (C/k)^a for C = k N D, without simulation and pretraining."""
    found = best_split(law(log_k=-np.inf), BUDGET, Price(0.0, 240.0, 240.0), pretraining=False, replicates=1)
    G = (0.44 * 60 / (0.22 * 6)) ** (1 / 0.66)
    assert found.N[0] == pytest.approx(G * (BUDGET / 240) ** (1 / 3), rel=1e-6)
    assert found.D_pre[0] == 0.0


def test_pretraining_that_is_worth_nothing_is_not_bought() -> None:
    found = best_split(law(log_k=-60.0, p=1.0), BUDGET, PRICE, pretraining=True, replicates=1)
    assert found.D_pre[0] == 0.0
    scratch = best_split(law(log_k=-np.inf), BUDGET, PRICE, pretraining=False, replicates=1)
    assert found.log_loss[0] == scratch.log_loss[0]


def test_replicates_are_found_as_if_each_were_alone() -> None:
    rng = np.random.default_rng(0)
    theta = TRUTH + 0.05 * rng.standard_normal((20, 8))
    together = best_split(EffectiveData(theta), BUDGET, PRICE, pretraining=True, replicates=20)
    for row in (0, 7, 19):
        alone = best_split(EffectiveData(theta[[row]]), BUDGET, PRICE, pretraining=True, replicates=1)
        assert together.N[row] == alone.N[0]
        assert together.log_loss[row] == alone.log_loss[0]


def test_marginal_gains_are_those_of_the_formula() -> None:
    N, D_pre, D = (np.array([value]) for value in (3e5, 2e6, 5e6))
    found = marginal(law(), N, D_pre, D, PRICE)
    data = D + 8 * D_pre**0.7 * N**0.15
    by_data = 0.22 * 6 / data**1.22
    assert found.finetune_jet[0] == pytest.approx(by_data[0], rel=1e-5)
    assert found.pretrain_jet[0] == pytest.approx((by_data * 8 * 0.7 * D_pre**-0.3 * N**0.15)[0], rel=1e-5)
    of_jet = 2e7 + 240 * N[0]
    assert found.finetune[0] == pytest.approx(found.finetune_jet[0] / of_jet, rel=1e-9)
    by_N = 0.44 * 60 / N**1.44 + by_data * 8 * D_pre**0.7 * 0.15 * N**-0.85
    assert found.model[0] == pytest.approx((by_N / (240 * (D_pre + D)))[0], rel=1e-5)


def test_where_pretraining_stops_paying_is_the_closed_form() -> None:
    """A jet of either phase costs the same: k p D_pre^(p - 1) N^q = 1."""
    N, D = np.array([3e5]), np.array([5e6])
    ends = (0.0, float(np.log(1e15)))
    expected = (8 * 0.7 * 3e5**0.15) ** (1 / 0.3)
    assert pays_until(law(), N, D, PRICE, ends)[0] == pytest.approx(expected, rel=1e-4)
    assert pays_until(law(log_k=-40.0), N, D, PRICE, ends)[0] == 0.0
    assert np.isinf(pays_until(law(p=1.0, log_k=3.0), N, D, PRICE, ends)[0])
    dear = Price(simulate=2e7, pretrain=480.0, finetune=240.0)
    ratio = (2e7 + 480 * 3e5) / (2e7 + 240 * 3e5)
    assert pays_until(law(), N, D, dear, ends)[0] == pytest.approx(
        (8 * 0.7 * 3e5**0.15 / ratio) ** (1 / 0.3), rel=1e-4
    )


# ---- from a fit: its laws of transfer, and their replicates


def written(folder: Path, seed: int, compositions: dict[str, EffectiveData], spread: float = 0.01) -> Path:
    """A folder as the analysis writes it: a point fit, and 60 replicates with the same scatter."""
    rng = np.random.default_rng([12, seed])
    folder.mkdir(parents=True, exist_ok=True)
    draws, theta = {}, {}

    def put(key: str, true: float) -> None:
        point = true + spread * rng.standard_normal()
        theta[key] = point
        draws[f"transfer.effective_data.{key}"] = point + spread * rng.standard_normal(60)

    first = next(iter(compositions.values())).theta[0]
    for key, value in zip(("log_A", "log_B", "log_E", "alpha", "beta"), first, strict=False):
        put(key, value)
    for name, one in compositions.items():
        for key, value in zip(("log_k", "p", "q"), one.theta[0, 5:], strict=True):
            put(f"{name}.{key}", value)
    groups = {name: {f"{name}@1": 1e5, f"{name}@2": 2e6} for name in compositions}
    results = {
        "settings": {}, "sample": "jet", "flops_per_param_sample": 240.0, "source": "made here",
        "subsets": {group: {"approach3": {}} for of in groups.values() for group in of},
        "joint": {"method": "hierarchical", "dof": None},
        "transfer": {
            name: {"law": "effective_data", "groups": of, "D_T": {"value": 1.0}}
            for name, of in groups.items()
        },
        "transfer_laws": {"laws": {"effective_data": {"theta": theta}}},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    pd.DataFrame(draws).to_parquet(folder / "joint.parquet")
    names = [group for of in groups.values() for group in of]
    frame = pd.DataFrame({"subset": names, "variant": "", "n_params": 3e5, "jets": 5e6, "run": names})
    frame = frame.assign(flops=3.6e14, split="test", weights="raw", loss=1.0, seed="0", dim=np.nan)
    frame.to_parquet(folder / "losses.parquet")
    return folder


COMPOSITIONS = {"qcd": law(log_k=np.log(1.0)), "bsm_all": law()}


def test_the_truth_lies_in_the_intervals_of_a_plan(tmp_path: Path) -> None:
    """15 studies: each 95% interval holds the truth at least 11 times."""
    price = {"simulate": 2e7, "pretrain": 240.0, "finetune": 240.0}
    truth = {
        name: best_split(one, BUDGET, PRICE, pretraining=True, replicates=1)
        for name, one in COMPOSITIONS.items()
    }
    scratch = best_split(law(log_k=-np.inf), BUDGET, PRICE, pretraining=False, replicates=1)
    inside: dict[str, int] = {}

    def count(key: str, quantity: Quantity | None, value: float) -> None:
        assert quantity is not None
        low, high = quantity.ci95 or (np.nan, np.nan)
        inside[key] = inside.get(key, 0) + (low <= value <= high)

    for seed in range(15):
        found = plan_total(written(tmp_path / str(seed), seed, COMPOSITIONS), BUDGET, **price)
        for name, best in truth.items():
            split = found.splits[name]
            count(f"{name} N", split.N, best.N[0])
            count(f"{name} D_pre", split.D_pre, best.D_pre[0])
            count(f"{name} D", split.D, best.D[0])
            count(f"{name} loss", split.loss, np.exp(best.log_loss[0]))
            share = 2e7 * (best.D_pre[0] + best.D[0]) / BUDGET
            count(f"{name} simulated", split.shares["to simulate"], share)
            over = np.exp(best.log_loss[0] - scratch.log_loss[0])
            count(f"{name} scratch", split.against_scratch, over)
            stops = pays_until(COMPOSITIONS[name], np.array([3e5]), np.array([5e6]), PRICE, (0.0, 34.0))
            count(f"{name} stops", found.next[name].stops_paying, stops[0])
    assert min(inside.values()) >= 11, inside


def test_what_a_plan_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = written(tmp_path / "fit", 0, COMPOSITIONS), tmp_path / "plan.json"
    main([f"results={folder}", "total_budget=1e16", "price.simulate=2e7", f"out={out}"])
    text = capsys.readouterr().out
    for part in (
        "simulating a jet costs 2e+07 FLOPs", "% to simulate", "% to pretrain", "% to fine-tune",
        "loss over that of scratch at the same budget", "Which composition? bsm_all: its loss is lowest",
        "What to buy next for bsm_all (at N = 3e+05, D_pre = 2e+06, D = 5e+06)?",
        "When does more pretraining on qcd stop paying?", "fall of the loss by a million more jets",
    ):  # fmt: skip
        assert part in text, part
    plan = json.loads(out.read_text())
    assert next(iter(plan["splits"])) == "bsm_all"
    assert sum(share["value"] for share in plan["splits"]["bsm_all"]["shares"].values()) == pytest.approx(1.0)
    same = {"one": law(), "two": law()}
    text = str(plan_total(written(tmp_path / "same", 3, same), 1e16))
    assert "not distinguishable" in text
    with pytest.raises(UsageError, match="no composition 'x' in these laws; there are qcd, bsm_all"):
        plan_total(folder, 1e16, subset="x")
    with pytest.raises(UsageError, match="ask one thing at a time"):
        main([f"results={folder}", "total_budget=1e16", "budget=1e16"])
    results = json.loads((folder / "results.json").read_text())
    for name in COMPOSITIONS:
        results["transfer_laws"]["laws"]["effective_data"]["theta"][f"{name}.p"] = 0.0
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(UsageError, match="pretrained on one amount of data only"):
        plan_total(folder, 1e16)
    del results["transfer_laws"]
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(UsageError, match="no law of transfer was fitted"):
        plan_total(folder, 1e16)


def test_from_a_table_to_the_plan(tmp_path: Path) -> None:
    """Runs from scratch and of one composition with two amounts of pretraining: the whole way."""
    rng = np.random.default_rng(1)
    N, D = (value.ravel() for value in np.meshgrid(np.geomspace(3e3, 1e6, 5), np.geomspace(1e4, 1e7, 5)))
    frames = []
    for name, jets in (("scratch", 0.0), ("bsm_all", 3e4), ("bsm_all", 3e6)):
        with np.errstate(divide="ignore"):
            log_L = law()(np.log(N)[None], np.log([[jets]]) + 0 * N, np.log(D)[None])[0]
        loss = np.exp(log_L + 0.002 * rng.standard_normal(len(N)))
        frames.append(pd.DataFrame({"N": N, "D": D, "D_pre": jets, "subset": name, "loss": loss}))
    pd.concat(frames).to_csv(tmp_path / "t.csv", index=False)
    settings = FitSettings(
        multiverse=False, uncertainty=UncertaintySettings(replicates=40, profile=False, method="wild")
    )
    result = fit(load_losses(tmp_path / "t.csv"), settings)
    result.save(tmp_path / "fit")
    html = page(json.loads(json.dumps(plain(result.to_json()))), result.losses, {})
    assert "<td>bsm_all</td><td>N 3000</td>" in html  # a stranger's table has no widths
    results, frame = json.loads((tmp_path / "fit/results.json").read_text()), result.losses.frame
    total, plan = results["total_budget"], plan_total(result, float(frame["flops"].max()))
    assert total["splits"]["bsm_all"]["D_pre"] == json.loads(
        json.dumps(plan.splits["bsm_all"].D_pre.to_json())
    )
    assert total["which"] == plan.which
    first = answers(results, result.losses)[-1]
    assert first.sentence.startswith("With 6e13 FLOPs in total, pretraining included, ")
    assert f"which composition: {plan.which}." in first.sentence
    assert "plan results=DIR total_budget=FLOPS" in first.detail
    one = frame[frame["variant"] != frame["variant"].max()]  # one amount of pretraining
    other = fit(replace(result.losses, frame=one), settings)
    assert "train with two amounts" in other.details["total_budget"]["refused"]
    refused = answers(json.loads(json.dumps(plain(other.to_json()))), other.losses)[-1]
    assert "With the pretraining in the budget: not known, since every composition was" in refused.detail
    found = plan_total(tmp_path / "fit", 1e13, simulate=1e6)
    assert str(plan_total(result, 1e13, simulate=1e6)) == str(found)
    price = Price(1e6, 6.0, 6.0)
    truth = best_split(law(), 1e13, price, pretraining=True, replicates=1)
    split = found.splits["bsm_all"]
    assert split.N.value == pytest.approx(truth.N[0], rel=0.15)
    assert split.loss.value == pytest.approx(np.exp(truth.log_loss[0]), rel=0.01)
    for quantity, value in ((split.loss, np.exp(truth.log_loss[0])), (split.D_pre, truth.D_pre[0])):
        assert quantity is not None
        low, high = quantity.ci95 or (np.nan, np.nan)
        assert low < value < high


@pytest.mark.parametrize("sizes", [1, 2])
def test_few_sizes_do_not_say_the_best_n(sizes: int, tmp_path: Path) -> None:
    """With two sizes alpha is held, with one there is no term of N: N of the optimum would hang on that."""
    N, D = (value.ravel() for value in np.meshgrid(np.geomspace(3e3, 1e5, sizes), np.geomspace(2e3, 1e6, 8)))
    frames = [
        pd.DataFrame({
            "N": N, "D": D, "D_pre": jets, "subset": name,
            "loss": 0.5 + 30 / N**0.25 + 30 / (D + 0.5 * jets) ** 0.35,
        })
        for name, jets in (("scratch", 0.0), ("qcd", 2.5e4), ("qcd", 1e5))
    ]  # fmt: skip
    pd.concat(frames).to_csv(tmp_path / "t.csv", index=False)
    settings = FitSettings(multiverse=False, uncertainty=UncertaintySettings(method="none"))
    result = fit(load_losses(tmp_path / "t.csv", flops_per_param_sample=240.0), settings)
    assert "alpha" in result.details["transfer_laws"]["laws"]["effective_data"]["held"]
    assert "train three widths or more" in result.details["total_budget"]["refused"]
    with pytest.raises(UsageError, match="runs of one or two sizes do not say how the loss falls with N"):
        plan_total(result, 1e13)


def test_an_edited_or_incomplete_folder_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "fit", 0, COMPOSITIONS)
    checksums.write(folder)
    assert plan_total(folder, 1e16).splits
    whole = (folder / "results.json").read_text()
    (folder / "results.json").write_text(whole.replace('"alpha": 0.4', '"alpha": 0.3'))
    with pytest.raises(UsageError, match=r"results\.json is damaged .*again"):
        plan_total(folder, 1e16)
    (folder / "results.json").write_text(whole)
    (folder / "joint.parquet").rename(tmp_path / "kept")
    with pytest.raises(UsageError, match=r"joint\.parquet is damaged or missing"):
        plan_total(folder, 1e16)
    (folder / "checksums.json").unlink()  # as an earlier version left it
    for name in ("results.json", "losses.parquet"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UsageError, match=rf"{name} cannot be read: .*again, with out="):
            plan_total(folder, 1e16)
        (folder / name).unlink()
        with pytest.raises(UsageError, match=f"no {name}; run"):
            plan_total(folder, 1e16)
        (folder / name).write_bytes(content)


def test_an_optimum_below_the_smallest_run_is_flagged(tmp_path: Path) -> None:
    flags = plan_total(written(tmp_path / "fit", 0, COMPOSITIONS), 1e10).splits["bsm_all"].flags
    assert any("N is extrapolated by" in flag and "smallest fitted: 3e+05" in flag for flag in flags)


def test_a_cost_that_is_not_k_n_d_is_not_added_up(tmp_path: Path) -> None:
    folder = written(tmp_path / "fit", 0, COMPOSITIONS)
    results = json.loads((folder / "results.json").read_text())
    group = next(iter(results["subsets"]))
    cost = Cost(((0, 0), (1, 0)), (5.0, 0.1), (0.0, 0.0), (1.0, 1.0))
    results["subsets"][group]["approach3"]["cost"] = cost.to_json()
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(UsageError, match=f"C of {group} is not k N D"):
        plan_total(folder, 1e16)
    results["subsets"][group]["approach3"]["cost"] = Cost.constant(6.0).to_json()
    (folder / "results.json").write_text(json.dumps(results))
    assert "simulating a jet costs 0 FLOPs; training on it costs 6\n" in str(plan_total(folder, 1e16))
