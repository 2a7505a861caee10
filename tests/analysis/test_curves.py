from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.__main__ import main
from jetscale.analysis.checks.synthetic import Noise, curves_table
from jetscale.analysis.errors.resampling import draw
from jetscale.analysis.fitting.curves import build
from jetscale.analysis.fitting.local_lines import plateau_end, smoother
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.settings import PAPER_STEPS, CurveSettings, CurveSteps, UncertaintySettings
from jetscale.common.usage import UsageError

TRUTH = Surfaces.single(E=0.35, A=60.0, B=14.0, alpha=0.44, beta=0.3)


def frame(seeds: int = 3, runs: float = 0.01, widths: tuple[int, ...] = (16, 64)) -> pd.DataFrame:
    table = curves_table({"s": TRUTH}, Noise(runs=runs), np.random.default_rng(0), widths=widths, seeds=seeds)
    return table.frame


def test_smoother_passes_a_power_law_and_averages_noise() -> None:
    x = np.sort(np.random.default_rng(0).uniform(0, 5, 400))
    operator = smoother(x, 0.3)
    np.testing.assert_allclose(operator @ (2 - 0.3 * x), 2 - 0.3 * x, atol=1e-12)
    noise = np.random.default_rng(1).normal(size=400)
    assert (operator @ noise).std() < 0.4
    assert (smoother(x, 0.0) @ noise == noise).all()
    sparse = np.array([0.0, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(smoother(sparse, 0.5) @ sparse, sparse)


def test_plateau_is_cut_and_a_law_is_not() -> None:
    log_D = np.linspace(np.log(1e3), np.log(1e7), 60)
    law = np.log(0.4 + 30 * np.exp(-0.4 * log_D))
    assert plateau_end(log_D, law) == 0
    turn = np.log(3e4)
    with_plateau = np.where(log_D < turn, np.log(2.2), np.log(2.2) - 0.3 * (log_D - turn))
    end = plateau_end(log_D, with_plateau)
    assert abs(log_D[end] - turn) < np.log(2)
    assert plateau_end(log_D[:5], with_plateau[:5]) == 0
    assert plateau_end(log_D, np.zeros(60)) == 0


SPACINGS = {
    "linear": np.arange(1.0, 61.0) * 1e4,
    "ratio 1.42": 1e4 * 1.42 ** np.arange(20),
    "ratio 1.5": 1e4 * 1.5 ** np.arange(20),
    "ratio 1.9": 1e4 * 1.9 ** np.arange(12),
    "ratio 3": 1e4 * 3.0 ** np.arange(10),
    "dense, then sparse": np.r_[np.linspace(1e4, 2e4, 10), 1e4 * 1.9 ** np.arange(2, 12)],
}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("E", "B", "beta"), [(0.4, 30.0, 0.4), (0.0, 3.0, 0.1), (2.0, 1e4, 0.9), (1.8, 50.0, 0.2)]
)
def test_a_power_law_loses_nothing_however_it_is_sampled(
    spacing: str, E: float, B: float, beta: float
) -> None:
    D = SPACINGS[spacing]
    assert plateau_end(np.log(D), np.log(E + B / D**beta)) == 0


@pytest.mark.parametrize("spacing", SPACINGS)
def test_noise_is_no_plateau(spacing: str) -> None:
    D = SPACINGS[spacing]
    for seed in range(40):
        noise = 0.01 * np.random.default_rng(seed).standard_normal(len(D))
        assert plateau_end(np.log(D), np.log(1.8 + 50 / D**0.2) + noise) == 0


@pytest.mark.parametrize("noise", [0.0, 0.003])
@pytest.mark.parametrize("spacing", ["ratio 1.42", "ratio 1.5", "linear"])
def test_a_plateau_that_is_seen_is_cut(spacing: str, noise: float) -> None:
    log_D = np.log(SPACINGS[spacing])
    turn = log_D[0] + 0.4 * np.ptp(log_D)
    flat = np.where(log_D < turn, 1.0, 1.0 - 0.4 * (log_D - turn))
    flat = flat + noise * np.random.default_rng(0).standard_normal(len(flat))
    assert abs(log_D[plateau_end(log_D, flat)] - turn) < 1.1 * np.log(2)


def foreign(plateau: bool = False) -> pd.DataFrame:
    """Curves of other people's runs: three sizes, linear steps."""
    D = np.arange(1.0, 31.0) * 1e6
    frames = []
    for N in (1e5, 1e6, 1e7, 1e8):
        loss = np.exp(TRUTH.log_loss(np.log(N) + 0 * D, np.log(D))[0])
        frames.append(pd.DataFrame({"run": f"r{N:g}", "N": N, "D": D, "loss": loss}))
    frame = pd.concat(frames, ignore_index=True)
    if plateau:
        start = (frame["run"] == "r100000") & (frame["D"] < 6e6)
        frame.loc[start, "loss"] = 1.001 * frame.loc[start, "loss"].min()
    return frame


def exponent(frame: pd.DataFrame, tmp_path: Path, **options: Any) -> tuple[float | None, Any]:
    frame.to_csv(tmp_path / "t.csv", index=False)
    settings = FitSettings(uncertainty=UncertaintySettings(method="none", profile=False), multiverse=False)
    settings.curves = CurveSettings(**options.pop("curves", {}))
    found = fit(load_losses(tmp_path / "t.csv", **options), settings).subsets["all"]
    return found.approach3["a"].value, found


def test_a_foreign_table_is_fitted_by_its_rows(tmp_path: Path) -> None:
    noisy = foreign(plateau=True)
    noisy["loss"] *= np.exp(0.003 * np.random.default_rng(0).standard_normal(len(noisy)))
    by_run, found = exponent(noisy, tmp_path)
    by_row, _ = exponent(noisy.drop(columns="run"), tmp_path)
    unused, rows = exponent(noisy, tmp_path, columns={"run": ""})
    assert by_run == pytest.approx(by_row, rel=1e-6)
    assert unused == by_row
    assert rows.n_runs == len(noisy)
    assert found.n_points == len(noisy)
    assert not any("plateau" in text for text in found.warnings)


def test_the_paper_s_steps_are_one_switch_and_a_seen_plateau_is_named(tmp_path: Path) -> None:
    _, found = exponent(foreign(plateau=True), tmp_path, curves={"protocol": "paper"})
    (text,) = [text for text in found.warnings if "plateau" in text]
    assert "run r100000: D 1e+06 to" in text
    assert "1 of 4" in text
    _, clean = exponent(foreign(), tmp_path, curves={"protocol": "paper"})
    assert not any("plateau" in text for text in clean.warnings)
    assert clean.n_points == 120


def test_a_step_that_is_given_is_done(tmp_path: Path) -> None:
    _, found = exponent(foreign(), tmp_path, curves={"points": 10})
    assert 30 < found.n_points <= 40
    assert CurveSettings().steps(own_runs=True) == PAPER_STEPS
    assert CurveSettings().steps(own_runs=False) == CurveSteps()
    assert CurveSettings("off").steps(own_runs=True) == CurveSteps()
    assert CurveSettings("paper", smooth=0.0).steps(own_runs=False) == replace(PAPER_STEPS, smooth=0.0)
    with pytest.raises(UsageError, match="choose auto, off or paper"):
        CurveSettings("papr").steps(own_runs=True)


@pytest.mark.parametrize("value", ["off", "paper"])
def test_the_switch_is_spelt_as_it_is_said(tmp_path: Path, value: str) -> None:
    foreign().to_csv(tmp_path / "t.csv", index=False)
    arguments = [
        f"path={tmp_path / 't.csv'}",
        f"out={tmp_path}",
        "uncertainty.method=none",
        "multiverse=false",
        "report=false",
    ]
    main(["source=table", f"curves={value}", "uncertainty.profile=false", *arguments])
    settings = json.loads((tmp_path / "results.json").read_text())["settings"]["curves"]
    assert settings["protocol"] == value
    assert settings["running_minimum"] == (value == "paper")


def test_a_run_of_several_sizes_is_refused_until_it_is_named_by_more_columns(tmp_path: Path) -> None:
    frame = foreign().assign(
        run="a", model=lambda f: f["N"].astype(int).astype(str), D=lambda f: f["D"] + f.index
    )
    with pytest.raises(UsageError, match=r"run a has several N .* columns.run="):
        exponent(frame, tmp_path)
    a, found = exponent(frame, tmp_path, columns={"run": "model,run"})
    assert found.n_runs == 4
    assert a is not None
    with pytest.raises(UsageError, match="no column 'modell' for run"):
        exponent(frame, tmp_path, columns={"run": "modell,run"})


def test_protocol_options_do_what_they_say() -> None:
    rows = frame()
    plain = CurveSettings(smooth=0, bin=0, running_minimum=False, cut_plateau=False, points=0)
    curves = build(rows, plain)
    log_L = curves.log_losses(np.log(rows["loss"].to_numpy(float))[None])[0]
    wide = rows.assign(log_L=np.log(rows["loss"])).groupby(["n_params", "step"])["log_L"].mean()
    np.testing.assert_allclose(np.sort(log_L), np.sort(wide.to_numpy()))
    assert curves.seeds_per_cell == [3, 3]
    single = build(rows, CurveSettings(average_seeds=False))
    assert len(single.cell_runs) == 6
    dropped = build(rows, CurveSettings(smooth=0, bin=0, cut_plateau=False, points=0, drop=1e5))
    assert np.exp(dropped.log_D).min() > 128e5
    few = build(rows, CurveSettings(points=10))
    assert len(few.log_N) == 20
    coarse = build(rows, CurveSettings(bin=0.5, points=0))
    assert len(coarse.log_N) <= 6


def test_running_minimum_never_rises() -> None:
    rows = frame(seeds=1)
    rows["loss"] *= np.exp(0.1 * np.random.default_rng(0).normal(size=len(rows)))
    curves = build(rows, CurveSettings(cut_plateau=False))
    log_L = curves.log_losses(np.log(rows["loss"].to_numpy(float))[None])[0]
    for cell in (0, 1):
        member = curves.cell == cell
        assert (np.diff(log_L[member][np.argsort(curves.log_D[member])]) <= 0).all()


def test_seed_resampling_spreads_as_the_mean_of_seeds_does() -> None:
    """Five seeds with scatter s: the replicates' spread is s / sqrt 5, unbiased over cells."""
    rows = frame(seeds=5, runs=0.02, widths=tuple(range(8, 328, 8)))
    curves = build(rows, CurveSettings(running_minimum=False))
    log_L = np.log(rows["loss"].to_numpy(float))
    settings = UncertaintySettings(replicates=400)
    found = draw("hierarchical", curves, 5, log_L, None, None, None, settings).log_L_RP
    variance = np.mean([found[:, curves.cell == cell][:, -1].var() for cell in range(40)])
    assert variance == pytest.approx(0.02**2 / 5, rel=0.3)


def test_everything_in_the_warm_up_is_said() -> None:
    curves = build(frame(seeds=1), CurveSettings(drop=1e9))
    assert len(curves.log_N) == 2
    assert all("first 1e+09 steps" in text for text in curves.warnings)


def test_a_hundred_thousand_steps_a_run() -> None:
    step = np.arange(1, 100_001, dtype=float)
    rows = pd.DataFrame({"run": "a", "seed": "0", "n_params": 1e4, "step": step, "jets": 32 * step})
    rows = rows.assign(flops=240 * 1e4 * rows["jets"], loss=1 + step**-0.3)
    begin = time.monotonic()
    curves = build(rows, CurveSettings())
    assert len(curves.log_N) <= 60
    assert time.monotonic() - begin < 60
