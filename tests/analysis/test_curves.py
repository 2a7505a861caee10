from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis.curves import build, plateau_end, smoother
from jetscale.analysis.resampling import draw
from jetscale.analysis.settings import CurveSettings, UncertaintySettings
from jetscale.analysis.surface import Surfaces
from jetscale.analysis.synthetic import Noise, curves_table

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
    found = draw("hierarchical", curves, log_L, None, None, None, settings).log_L_RP
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
