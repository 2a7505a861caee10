"""Losses drawn from a known surface: to test the fitter, and to ask what a planned sweep could determine.

Noise has the three parts of a real sweep: scatter between runs (one draw a run, constant along its curve in
ln L), test noise common to all models (the same test jets) and test noise of each model and step.

Shapes: E evaluations, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.tables.loss_table import LossTable, checked
from jetscale.analysis.tables.test_blocks import BlockLosses
from jetscale.common.paper import FLOPS_PER_PARAM_JET, MEAN_CONSTITUENTS, WIDTHS
from jetscale.runs.layout import N_BLOCKS, Place

Array = NDArray[np.float64]

PAPER_JETS = 76.8e6  # 600,000 iterations of 128 jets


@dataclass(frozen=True)
class Noise:
    """Scatter of the losses.

    Attributes
    ----------
    runs : sd of ln L between runs.
    test_jets : size of the test set; 0: no test noise and no blocks.
    jet_sd : sd of one jet's loss, nats.
    shared : part of the test noise's variance common to all models.
    """

    runs: float = 0.003
    test_jets: int = 0
    jet_sd: float = 0.9
    shared: float = 0.97


def backbone_parameters(dim: float) -> float:
    """Parameters of the paper's four blocks of width `dim`, 40 dim^2 (paper.md, Model)."""
    return 40.0 * dim**2


def curves_table(
    surfaces: dict[str, Surfaces],
    noise: Noise,
    rng: np.random.Generator,
    *,
    widths: tuple[int, ...] = WIDTHS,
    seeds: int = 5,
    jets: float = PAPER_JETS,
    evaluations: int = 60,
    first: float = 0.01,
) -> LossTable:
    """Loss curves of a sweep over subsets, widths and seeds.

    Parameters
    ----------
    surfaces : one surface a subset.
    jets : D at the end of every run; `evaluations` log-spaced steps from `first` of it.
    """
    import pandas as pd

    D_T = np.geomspace(first * jets, jets, evaluations)
    frames, keys, truth = [], [], []
    for subset, surface in surfaces.items():
        for dim in widths:
            N = backbone_parameters(dim)
            log_L_T = surface.log_loss(np.log(N) + 0 * D_T, np.log(D_T))[0]
            for seed in range(seeds):
                run = Place(subset, dim, seed).path
                log_L = log_L_T + noise.runs * rng.standard_normal()
                truth.append(np.exp(log_L))
                keys += [(run, float(step), "ema") for step in D_T / 128]
                columns = {"run": run, "subset": subset, "dim": float(dim), "seed": str(seed), "n_params": N}
                moving = {"step": D_T / 128, "jets": D_T, "flops": FLOPS_PER_PARAM_JET * N * D_T}
                frames.append(pd.DataFrame(columns | moving, index=range(evaluations)))
    frame = pd.concat(frames, ignore_index=True)
    frame = frame.assign(
        constituents=MEAN_CONSTITUENTS * frame["jets"],
        split="test",
        weights="ema",
        loss=np.concatenate(truth),
    )
    blocks = None
    if noise.test_jets:
        blocks = _blocks(frame["loss"].to_numpy(float), keys, noise, rng)
        frame["loss"] = blocks.loss_sum_EB.sum(axis=1) / blocks.jets_EB.sum(axis=1)
    return checked(LossTable(frame, "synthetic sweep", FLOPS_PER_PARAM_JET, "jet", blocks=blocks))


def grid_table(
    surface: Surfaces, N_P: Array, D_P: Array, noise: Noise, rng: np.random.Generator
) -> LossTable:
    """Final losses at the points (N_P, D_P), C = 6 N D; most of the test noise is common to all points.

    Parameters
    ----------
    surface : the truth.
    N_P, D_P : (P,) parameters and samples.
    noise : of the losses.
    rng : draws it.
    """
    import pandas as pd

    log_L = surface.log_loss(np.log(N_P), np.log(D_P))[0] + noise.runs * rng.standard_normal(len(N_P))
    loss = np.exp(log_L)
    if noise.test_jets:
        sd = noise.jet_sd / np.sqrt(noise.test_jets)
        loss = loss + sd * np.sqrt(noise.shared) * rng.standard_normal()
        loss = loss + sd * np.sqrt(1 - noise.shared) * rng.standard_normal(len(N_P))
    frame = pd.DataFrame({"n_params": N_P, "jets": D_P, "flops": 6 * N_P * D_P, "loss": loss, "step": D_P})
    frame["run"] = [f"run {i:05d}" for i in range(len(N_P))]
    frame = frame.assign(subset="all", dim=np.nan, seed="0", constituents=np.nan, split="test", weights="raw")
    return checked(LossTable(frame, "synthetic grid", 6.0))


def _blocks(
    loss_E: Array, keys: list[tuple[str, float, str]], noise: Noise, rng: np.random.Generator
) -> BlockLosses:
    jets_B = np.full(N_BLOCKS, noise.test_jets / N_BLOCKS)
    sd = noise.jet_sd / np.sqrt(jets_B[0])
    common_B = sd * np.sqrt(noise.shared) * rng.standard_normal(N_BLOCKS)
    own_EB = sd * np.sqrt(1 - noise.shared) * rng.standard_normal((len(loss_E), N_BLOCKS))
    loss_EB = loss_E[:, None] + common_B + own_EB
    return BlockLosses(keys, loss_EB * jets_B, np.broadcast_to(jets_B, loss_EB.shape))
