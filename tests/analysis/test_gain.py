from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from jetscale.analysis import FitSettings, fit
from jetscale.analysis.answers.gain import Run, compare, gains
from jetscale.analysis.checks.synthetic import Noise, curves_table
from jetscale.analysis.fitting.numbers import Quantity, plain
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.output.formatting import percent
from jetscale.analysis.output.report import write_report
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.test_blocks import BlockLosses, keys_of, resampled_blocks

Array = NDArray[np.float64]

BETA, AHEAD, END, PRETRAIN = 0.3, 2.0, 4e5, 1e5
D = np.geomspace(1e3, END, 20)
SEEDS = {
    "0": -0.02,
    "1": 0.005,
    "2": 0.03,
}  # ln L of a seed's start and order of jets, with or without pretraining


def rows(subset: str, seed: str, offset: float, ahead: float, **facts: float) -> pd.DataFrame:
    """A power law of D, `ahead` times as many jets."""
    moving = {
        "step": D / 32,
        "jets": D,
        "constituents": 50 * D,
        "loss": np.exp(offset) * (ahead * D) ** -BETA,
    }
    names = {"run": f"{subset}/{seed}", "subset": subset, "seed": seed, "weights": "ema"}
    return pd.DataFrame(moving).assign(**names, dim=16.0, n_params=1e4, **facts)


def table(seeds: dict[str, float], pretrained_seeds: dict[str, float]) -> dict[str, pd.DataFrame]:
    # an N half as large again (a larger head), 30 constituents a jet: 0.9 of a fine-tuning jet's FLOPs
    cost = {"pretrain_jets": PRETRAIN, "pretrain_constituents": 30 * PRETRAIN, "pretrain_n_params": 1.5e4}
    return {
        "scratch": pd.concat([rows("scratch", *item, 1.0) for item in seeds.items()]),
        "bsm": pd.concat([rows("bsm", *item, AHEAD, **cost) for item in pretrained_seeds.items()]),
    }


def only_entry(frames: dict[str, pd.DataFrame], blocks: BlockLosses | None = None) -> dict[str, Any]:
    found, warnings = gains(frames, blocks)
    assert (list(found), warnings) == (["bsm"], [])
    (entry,) = found["bsm"]
    return dict(plain(entry))


def test_any_subset_can_be_the_reference() -> None:
    frames = table(SEEDS, SEEDS)
    found, warnings = gains(frames, None, reference="bsm")
    assert (list(found), warnings) == (["scratch"], [])
    for point in found["scratch"][0]["curve"]:
        assert point["difference"].value == pytest.approx(BETA * np.log(AHEAD))


def test_twice_the_data_is_found_at_every_d() -> None:
    entry = only_entry(table(SEEDS, SEEDS))
    assert (entry["dim"], entry["seeds"], entry["paired"]) == (16, ["0", "1", "2"], True)
    assert [point["jets"] for point in entry["curve"]][:: len(entry["curve"]) - 1] == pytest.approx(
        [1e3, END]
    )
    for point in entry["curve"]:
        jets = point["jets"]
        assert point["difference"]["value"] == pytest.approx(-BETA * np.log(AHEAD))
        assert point["difference"]["sd"] == pytest.approx(
            0, abs=1e-12
        )  # pairs of a seed differ by nothing else
        reached = AHEAD * jets <= END
        assert point["multiplier"]["value"] == (pytest.approx(AHEAD) if reached else None)
        assert point["multiplier_at_least"] == pytest.approx(min(AHEAD, END / jets))


def test_pretraining_is_paid_back_where_scratch_with_the_same_total_is_worse() -> None:
    entry = only_entry(table(SEEDS, SEEDS))
    for key, cost in (("same_jets", PRETRAIN), ("same_flops", 0.9 * PRETRAIN)):
        compared = 0
        for point in entry["curve"]:
            jets = point["jets"]
            if jets + cost > END * (1 + 1e-9):
                assert point[key]["value"] is None
                continue
            compared += 1
            assert point[key]["value"] == pytest.approx(BETA * np.log((jets + cost) / (AHEAD * jets)))
        assert compared >= 10
    last = [point for point in entry["curve"] if point["same_jets"]["value"] is not None][-1]
    assert last["total_jets"] == pytest.approx(END)  # as far as scratch reaches


def test_report_where_pretraining_outlasts_the_curves(
    make_surface: Callable[..., Surfaces], tmp_path: Path
) -> None:
    """No D has scratch with the same total: the wide sizes of a grid cut at one compute."""
    surfaces = {"scratch": make_surface(0.5), "bsm": make_surface(0.4)}
    losses = curves_table(
        surfaces, Noise(test_jets=20_000), np.random.default_rng(0), seeds=2, widths=(8, 16, 24, 32)
    )
    pretrained = losses.frame["subset"] == "bsm"
    losses.frame["pretrain_jets"] = np.where(pretrained, 2 * losses.frame["jets"].max(), 0)
    settings = FitSettings(uncertainty=UncertaintySettings(replicates=30), multiverse=False)
    result = fit(losses, settings)
    entries = result.to_json()["gain"]["bsm"]
    assert [plain(point["same_jets"])["value"] for entry in entries for point in entry["curve"]] == (
        [None] * 12 * len(entries)
    )
    assert "Gain over scratch" in write_report(result, tmp_path).read_text()


def test_seeds_that_do_not_agree_are_not_paired() -> None:
    other = {"7": 0.0, "8": 0.05}
    point = only_entry(table(SEEDS, other))["curve"][0]
    scratch, pretrained = (np.array(list(seeds.values())) for seeds in (SEEDS, other))
    parts = [scratch.var(ddof=1) / 3, pretrained.var(ddof=1) / 2]
    expected = pretrained.mean() - scratch.mean() - BETA * np.log(AHEAD)
    assert point["difference"]["value"] == pytest.approx(expected)
    assert point["difference"]["sd"] == pytest.approx(np.sqrt(sum(parts)))
    assert only_entry(table(SEEDS, {"1": 0.0, "2": 0.1, "9": 0.3}))["seeds"] == ["1", "2"]


def test_one_seed_has_no_interval() -> None:
    for seeds in (SEEDS, {"0": 0.0}):
        point = only_entry(table(seeds, {"0": 0.0}))["curve"][-1]
        assert point["difference"]["value"] == pytest.approx(-BETA * np.log(AHEAD), abs=0.03)
        assert point["difference"]["ci95"] is None
        assert point["multiplier_at_least"] is None


def test_runs_that_differ_in_more_than_the_seed_have_no_gain() -> None:
    frames = table(SEEDS, SEEDS)
    frames["bsm"] = pd.concat([frames["bsm"], frames["bsm"].assign(run=frames["bsm"]["run"] + "/lr=0.01")])
    found, warnings = gains(frames, None)
    assert found == {}
    assert warnings == ["no gain of bsm at dim = 16: seed 0 has 2 runs, which differ in more than the seed"]


def test_tables_without_scratch_or_without_curves_have_no_gain() -> None:
    frames = table(SEEDS, SEEDS)
    assert gains({"bsm": frames["bsm"]}, None) == ({}, [])
    assert gains({name: frame.groupby("run").tail(1) for name, frame in frames.items()}, None) == ({}, [])


def noisy(rng: np.random.Generator, seeds: int, jets: int, shared: float = 0.8) -> list[list[Run]]:
    """Two points of scratch and of a pretrained model, 10% better; test jets and seeds as on a laptop."""
    B = 100
    common_B = rng.standard_normal(B)
    found = []
    for level in (1.0, 0.9):
        runs = []
        of_subset_B = 0.5 * common_B + np.sqrt(0.75) * rng.standard_normal(B)
        for seed in range(seeds):
            own_EB = rng.standard_normal((2, B))
            noise_EB = np.sqrt(shared) * of_subset_B + np.sqrt(1 - shared) * own_EB
            sums_EB = jets / B * (level * np.exp(0.02 * rng.standard_normal())) + noise_EB * np.sqrt(jets / B)
            mean = sums_EB.sum(axis=1, keepdims=True)
            runs.append(
                Run(str(seed), np.log([1e3, 1e4]), np.log(mean[:, 0] / jets), sums_EB / mean - 1 / B, 0, 0, 1)
            )
        found.append(runs)
    return found


@pytest.mark.parametrize("jets", [4000, 400])
def test_intervals_hold_the_truth(jets: int) -> None:
    # seeds scatter by 2%; test noise of the difference is 1.4% at 4,000 jets, 4.5% at 400
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(400):
        scratch, pretrained = noisy(rng, seeds=3, jets=jets)
        found = compare(pretrained, scratch, True, np.log(3e3), [np.log(3e3)] * 3)
        assert found.reach is not None
        inside += abs(found.value - np.log(0.9)) <= found.reach
    assert 0.94 <= inside / 400 <= 0.995


def test_variance_of_the_test_jets_is_that_of_their_bootstrap() -> None:
    rng = np.random.default_rng(6)
    frames = {name: frame[frame["seed"] == "0"] for name, frame in table(SEEDS, SEEDS).items()}
    every = pd.concat(frames.values())
    jets_EB = np.full((len(every), 250), 16.0)
    sums_EB = jets_EB * every["loss"].to_numpy()[:, None] + rng.normal(0, 0.1, (1, 250))
    sums_EB += rng.normal(0, 0.05, sums_EB.shape)
    blocks = BlockLosses(keys_of(every), sums_EB, jets_EB)
    both = pd.concat([every, every.assign(seed="1", run=every["run"] + "'")])
    twice = BlockLosses(keys_of(both), np.tile(sums_EB, (2, 1)), np.tile(jets_EB, (2, 1)))
    frames = {str(name): frame for name, frame in both.groupby("subset")}
    point = only_entry(frames, twice)["curve"][0]  # two equal seeds: the test jets are all there is
    draws = blocks.log_losses(resampled_blocks(20_000, rng, 250))
    first = [int(np.flatnonzero(every["subset"] == name)[0]) for name in ("bsm", "scratch")]
    bootstrap = (draws[:, first[0]] - draws[:, first[1]]).std()
    assert point["difference"]["sd"] == pytest.approx(bootstrap, rel=0.03)


def test_percent() -> None:
    assert (
        percent(Quantity(np.log(0.9), 0.1, (np.log(0.8), np.log(1.2))).to_json()) == "-10.0% [-20.0%, +20.0%]"
    )
    assert percent(Quantity(np.log(0.9)).to_json()) == "-10.0%"
    assert percent(Quantity(None).to_json()) == "–"
