"""Replicates of a subset's losses under each model of where errors come from.

- ``test_jets``: the paper's, an 80% subsample of the test jets; nothing else varies.
- ``hierarchical``: seeds resampled inside each size, and test blocks, shared by all models, inside.
- ``wild``: residuals of approach 3 with random weights, for one seed per size; test blocks too where known.
- ``runs``: runs drawn with replacement.

Draws are shared by subsets of the same design (the same sizes and seeds; the same blocks), so differences
between subsets are paired.

Shapes: R replicates, E evaluations, S runs, P points, B blocks.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.test_blocks import BlockLosses, resampled_blocks, subsampled_blocks
from jetscale.common.usage import UsageError

Array = NDArray[np.float64]

# Webb's six-point distribution: mean 0, variance 1, symmetric
WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])
OUTLIER = 6.0  # robust standard deviations
_PURPOSES = ("blocks", "seeds", "wild", "runs", "test_jets")


@dataclass(frozen=True)
class Replicates:
    """Perturbed data of one subset.

    Attributes
    ----------
    method : which model of errors made them.
    log_L_RP, weight_RP : (R, P) or (1, P).
    dof : degrees of freedom behind the spread, for Student's t; infinity where it is not estimated.
    """

    method: str
    log_L_RP: Array
    weight_RP: Array
    dof: float


def choose_method(asked: str, curves: CurveSet, parameters: int, has_surface: bool) -> tuple[str, str]:
    """Return the model of errors, and why it cannot be a better one ("" where nothing need be said).

    Parameters
    ----------
    asked : `uncertainty.method`.
    curves : the points.
    parameters : of the form.
    has_surface : whether it could be fitted.
    """
    if asked not in ("auto", "hierarchical", "wild", "runs", "none"):
        raise UsageError(f"uncertainty.method={asked!r}: choose auto, hierarchical, wild, runs or none")
    seeded = curves.is_curve and min(curves.seeds_per_cell) >= 2
    if asked == "hierarchical" and not seeded:
        raise UsageError("uncertainty.method=hierarchical needs curves with at least two seeds of every size")
    if asked == "wild" and not has_surface:
        raise UsageError("uncertainty.method=wild needs a fit of approach 3, which these points do not allow")
    if asked != "auto":
        return asked, ""
    if seeded:
        return "hierarchical", ""
    if has_surface and len(curves.cell_runs) > parameters + 1:
        return "wild", ""
    return "none", (
        f"no interval: {len(curves.cell_runs)} {'sizes with one seed' if curves.is_curve else 'runs'} "
        f"say nothing about the scatter between runs"
    )


def draw(
    method: str,
    curves: CurveSet,
    parameters: int,
    log_L_E: Array,
    fitted_P: Array | None,
    noise_P: Array | None,
    blocks: BlockLosses | None,
    settings: UncertaintySettings,
) -> Replicates:
    """Make the replicates.

    Parameters
    ----------
    method : model of errors.
    curves : the points.
    parameters : of the form.
    log_L_E : (E,) ln losses of the evaluations.
    fitted_P, noise_P : (P,) for ``wild``: ln L about which, and the residuals that are flipped.
    blocks : test losses by block; None where they are not known.
    settings : how many replicates, and the seed.
    """
    P = len(curves.log_N)
    ones = np.ones((1, P))
    if method == "test_jets":
        assert blocks is not None
        rng = _rng(settings.seed, "test_jets")
        weight_RB = subsampled_blocks(
            settings.test_jet_samples, settings.test_jet_fraction, rng, blocks.count
        )
        return Replicates(method, curves.log_losses(blocks.log_losses(weight_RB)), ones, np.inf)
    if method == "runs":
        weight_RP = _run_weights(curves, settings)[:, curves.cell]
        return Replicates(method, curves.log_losses(log_L_E[None]), weight_RP, np.inf)
    log_L_RE = _block_losses(log_L_E, blocks, settings)
    if method == "hierarchical":
        dof = sum(seeds - 1 for seeds in curves.seeds_per_cell)
        return Replicates(method, curves.log_losses(log_L_RE, _seed_weights(curves, settings)), ones, dof)
    assert method == "wild"
    assert fitted_P is not None
    assert noise_P is not None
    data_P = curves.log_losses(log_L_E[None])[0]
    clusters = len(curves.cell_runs)
    dof = max(clusters - parameters, 1)
    flips_RC = _rng(settings.seed, "wild", clusters).choice(WEBB, size=(settings.replicates, clusters))
    by_jets_RP = curves.log_losses(log_L_RE) - data_P
    return Replicates(method, fitted_P + flips_RC[:, curves.cell] * noise_P + by_jets_RP, ones, dof)


def wild_noise(curves: CurveSet, fitter: Fitter, log_L_P: Array, surface: Surfaces) -> tuple[Array, Array]:
    """Centre of the wild bootstrap, and the residuals about it that are flipped; (P,) each.

    Both are those of a least-squares fit: a robust fit passes through as many points as it has parameters,
    and those residuals would be 0. Outliers (beyond 6 robust standard deviations) do not bend it, but keep
    their residuals. The residuals are freed of the shrinking that fitting does to them: independent points
    are divided by 1 - leverage (HC3, which keeps its level in small designs); for curves, where a whole curve
    flips at once, all are stretched by sqrt(G / (G - p)) for G curves.

    Parameters
    ----------
    curves : the points.
    fitter : fits the surface to them.
    log_L_P : (P,) their ln L.
    surface : the robust fit.
    """
    robust = np.abs(log_L_P - surface.log_loss(curves.log_N, curves.log_D)[0])
    spread = np.median(np.sort(robust)[fitter.parameters :]) / 0.6745
    regular = (robust <= OUTLIER * spread).astype(float)
    squares = replace(fitter, objective=Objective("squared"))
    start = squares.form.reduced(squares.centred(surface))
    solution = squares.solve(start, log_L_P[None], regular[None])
    fitted = squares.uncentred(solution.theta)
    residual = log_L_P - fitted.log_loss(curves.log_N, curves.log_D)[0]
    if curves.is_curve:
        clusters = len(curves.cell_runs)
        return log_L_P - residual, np.sqrt(clusters / max(clusters - fitter.parameters, 1)) * residual
    counts = regular if fitter.weight is None else regular * np.sqrt(fitter.weight)
    basis, _ = np.linalg.qr(fitted.directions(curves.log_N, curves.log_D) * counts[:, None])
    leverage = np.minimum((basis**2).sum(axis=1), 0.8)
    return log_L_P - residual, residual / (1 - leverage)


def _rng(seed: int, purpose: str, *more: int) -> np.random.Generator:
    return np.random.default_rng([seed, _PURPOSES.index(purpose), *more])


def _block_losses(log_L_E: Array, blocks: BlockLosses | None, settings: UncertaintySettings) -> Array:
    """Evaluations under resampled test blocks; the data themselves where no blocks are known."""
    if blocks is None:
        return log_L_E[None]
    rng = _rng(settings.seed, "blocks")
    return blocks.log_losses(resampled_blocks(settings.replicates, rng, blocks.count))


def _seed_weights(curves: CurveSet, settings: UncertaintySettings) -> Array:
    """Weights of the runs inside their cells, (R, S).

    The mean of S resampled seeds has (S - 1) / S of the variance it should have; stretching the weights
    about 1 by sqrt(S / (S - 1)) undoes that.
    """
    weight_RS = np.ones((settings.replicates, len(curves.runs)))
    for rank, members in enumerate(curves.cell_runs):
        S = len(members)
        if S < 2:
            continue
        members = sorted(members, key=lambda run: curves.seeds[run])
        names = ",".join(curves.seeds[run] for run in members)
        rng = _rng(settings.seed, "seeds", rank, zlib.crc32(names.encode()))
        counts = rng.multinomial(S, np.full(S, 1 / S), size=settings.replicates)
        weight_RS[:, members] = 1 + np.sqrt(S / (S - 1)) * (counts - 1)
    return weight_RS


def _run_weights(curves: CurveSet, settings: UncertaintySettings) -> Array:
    """How often each cell's runs were drawn, (R, cells)."""
    cells = len(curves.cell_runs)
    rng = _rng(settings.seed, "runs", cells)
    return rng.multinomial(cells, np.full(cells, 1 / cells), size=settings.replicates).astype(float)
