"""One subset's estimates: the fit of the data, the replicates, and the intervals they give.

Shapes: R replicates, E evaluations, P points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.errors import resampling
from jetscale.analysis.errors.one_variable import LawFit, fit_law
from jetscale.analysis.errors.profile import Wanted, profiles
from jetscale.analysis.errors.scatter import Scatter, measured
from jetscale.analysis.fitting import approach, approach3
from jetscale.analysis.fitting import curves as curve_building
from jetscale.analysis.fitting.approach import Draws, approaches, fit_all, grid_bias
from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.fitting.numbers import Quantity, summarise
from jetscale.analysis.fitting.power_law import variable_of
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import prefit
from jetscale.analysis.fitting.task import Task, fitter_of, make_task
from jetscale.analysis.settings import FitSettings
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.test_blocks import MIN_FILLED_BLOCKS, BlockLosses, keys_of
from jetscale.common.progress import step

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A subset's quantities with their errors.

    Attributes
    ----------
    task : what was fitted, and the surface that came out.
    method : model of errors of `quantities`.
    replicates, draws : perturbed data and their fits; None and empty for method "none".
    quantities : "approach3.a" and the like.
    errors : the same under other models of errors.
    bias : of a and b on this grid, predicted by the surface, by approach and name; empty without a surface.
    warnings : what a reader must know.
    scatter : of runs about the surface; None without one.
    law : of one variable, where the points carry no law of N and D.
    """

    task: Task
    method: str
    replicates: resampling.Replicates | None
    draws: Draws
    quantities: dict[str, Quantity]
    errors: dict[str, dict[str, Quantity]]
    bias: dict[str, dict[str, float]]
    warnings: list[str]
    scatter: Scatter | None = None
    law: LawFit | None = None


def estimate(name: str, frame: pd.DataFrame, losses: LossTable, settings: FitSettings) -> Estimate:
    """Fit the selected rows of one subset, with errors.

    Parameters
    ----------
    name : of the subset.
    frame : its rows, of one split and kind of weights.
    losses : the table they come from.
    settings : of the fit.

    Raises
    ------
    UsageError
        A setting that these data cannot meet.
    """
    return estimates({name: frame}, losses, settings)[name]


def estimates(
    frames: Mapping[str, pd.DataFrame], losses: LossTable, settings: FitSettings
) -> dict[str, Estimate]:
    """Fit the selected rows of every subset, with errors; what they have in common goes side by side.

    Parameters
    ----------
    frames : rows of each subset, of one split and kind of weights.
    losses : the table they come from.
    settings : of the fit.

    Raises
    ------
    UsageError
        A setting that these data cannot meet.
    """
    of_runs = settings.curves.resolved(losses.own_runs)
    curves = {name: curve_building.build(frame, of_runs) for name, frame in frames.items()}
    prefit(
        (fitter_of(curves[name], settings), curves[name].log_losses(_log_losses(frame)[None])[0])
        for name, frame in frames.items()
    )
    found = {}
    for number, (name, frame) in enumerate(frames.items(), start=1):
        step(f"fit {number} of {len(frames)}, {name}")
        found[name] = _estimate(name, frame, losses, settings, curves[name])
    return _with_profiles(found, settings.uncertainty.levels)


def _log_losses(frame: pd.DataFrame) -> Array:
    return np.asarray(np.log(frame["loss"].to_numpy(float)))


def _estimate(
    name: str, frame: pd.DataFrame, losses: LossTable, settings: FitSettings, curves: CurveSet
) -> Estimate:
    """All but the profile likelihood, for which subsets go together."""
    log_L_E = _log_losses(frame)
    blocks = _blocks(frame, losses)
    task = approach.prepared(make_task(name, curves, log_L_E, settings, losses.flops_per_param_sample))
    values, warnings = _point(task)
    parameters = _fitted_parameters(task)
    has_surface = task.surface is not None
    variable = variable_of(curves, losses.absent, losses.sample)
    asked = settings.uncertainty.method
    alone = variable is not None and not has_surface  # then the law of one variable has the intervals
    if alone and asked == "wild":
        asked = "none"
    method, reason = resampling.choose_method(asked, curves, parameters, has_surface)
    if alone and reason:
        reason = f"approaches 1 to 3: {reason}"
    replicates, draws = _replicate(task, method, log_L_E, blocks)
    dof = np.inf if replicates is None else replicates.dof
    quantities = _summaries(task, values, draws, method, dof)
    bias = {} if task.surface is None else grid_bias(task, task.surface)
    quantities |= _widened(quantities, bias)
    errors = {}
    if blocks is not None and settings.uncertainty.test_jet_samples:
        _, by_jets = _replicate(task, "test_jets", log_L_E, blocks)
        errors["test_jets"] = _summaries(task, values, by_jets, "test_jets", np.inf)
    warnings = curves.warnings + warnings + ([reason] if reason else [])
    if losses.blocks is not None and blocks is None:
        warnings.append(
            "test jets are not resampled: some evaluation lacks block losses, or has too few jets"
        )
    scatter = None
    if task.surface is not None:
        residual_P = task.log_L_P - task.surface.log_loss(curves.log_N, curves.log_D)[0]
        scatter = measured(curves, residual_P, log_L_E, parameters, task.regular, blocks)
    law = None if variable is None else fit_law(variable, curves, log_L_E, settings, blocks)
    return Estimate(task, method, replicates, draws, quantities, errors, bias, warnings, scatter, law)


def point_values(
    name: str, log_L_E: Array, curves: CurveSet, losses: LossTable, settings: FitSettings
) -> dict[str, float | None]:
    """Values of all quantities, as `estimate` gives them, without errors.

    Parameters
    ----------
    name : of the subset.
    log_L_E : (E,) ln losses of its evaluations.
    curves : made of them.
    losses : the table they come from.
    settings : of the fit.
    """
    task = approach.prepared(make_task(name, curves, log_L_E, settings, losses.flops_per_param_sample))
    found = _summaries(task, _point(task)[0], {}, "none", np.inf)
    return {key: quantity.value for key, quantity in found.items()}


def seeds_resampled(task: Task, frame: pd.DataFrame, losses: LossTable) -> resampling.Replicates | None:
    """Replicates of a subset that has no fit by itself, for one together with others; None for one seed.

    Parameters
    ----------
    task : the subset.
    frame : its rows.
    losses : the table they come from.
    """
    settings, curves = task.settings.uncertainty, task.curves
    if (
        settings.method not in ("auto", "hierarchical")
        or not curves.is_curve
        or min(curves.seeds_per_cell) < 2
    ):
        return None
    log_L_E, blocks = np.log(frame["loss"].to_numpy(float)), _blocks(frame, losses)
    return resampling.draw("hierarchical", curves, 0, log_L_E, None, None, blocks, settings)


def _fitted_parameters(task: Task) -> int:
    """How many parameters the form has that are not pinned."""
    form = task.fitter.form
    return len(form.parameters) - len(form.pinned)


def _point(task: Task) -> tuple[dict[str, float], list[str]]:
    """Fit of the data by all approaches, and warnings: those of the last approach, the surface, first."""
    values: dict[str, float] = {}
    warnings: list[str] = []
    for one in approaches():
        found, said = one.point(task)
        values |= approach.joined(one.name, found)
        warnings = said + warnings
    return values, warnings + task.outliers.warnings()


def _blocks(frame: pd.DataFrame, losses: LossTable) -> BlockLosses | None:
    if losses.blocks is None:
        return None
    blocks = losses.blocks.select(keys_of(frame))
    if blocks is None or (blocks.jets_EB > 0).sum(axis=1).min() < MIN_FILLED_BLOCKS:
        return None  # some evaluation without blocks, or a test set of a few jets
    return blocks


def _replicate(
    task: Task, method: str, log_L_E: Array, blocks: BlockLosses | None
) -> tuple[resampling.Replicates | None, Draws]:
    if method == "none":
        return None, {}
    fitted, noise = None, None
    if task.surface is not None:
        fitted, noise = resampling.wild_noise(task.curves, task.fitter, task.log_L_P, task.surface)
    settings, parameters = task.settings.uncertainty, _fitted_parameters(task)
    replicates = resampling.draw(method, task.curves, parameters, log_L_E, fitted, noise, blocks, settings)
    return replicates, fit_all(task, replicates.log_L_RP, replicates.weight_RP)


def _summaries(
    task: Task, values: dict[str, float], draws: Draws, method: str, dof: float
) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}
    levels = task.settings.uncertainty.levels
    for one in approaches():
        own = {
            name: summarise(
                value, draws.get(f"{one.name}.{name}"), method, dof, one.scale(task, name), levels
            )
            for name, value in approach.part(one.name, values).items()
        }
        found |= approach.joined(one.name, one.settled(task, own))
    return found


def _widened(quantities: dict[str, Quantity], bias: dict[str, dict[str, float]]) -> dict[str, Quantity]:
    """Widen intervals towards the truth by the bias that the fitted surface predicts, where there is one."""
    widened = {}
    for name, of_exponents in bias.items():
        for key, shift in approach.joined(name, of_exponents).items():
            quantity = quantities[key]
            if quantity.ci95 is not None and np.isfinite(shift):
                widened[key] = quantity.widened(max(shift, 0.0), max(-shift, 0.0))
    return widened


def _with_profiles(found: Mapping[str, Estimate], levels: Sequence[float]) -> dict[str, Estimate]:
    """Add the profile likelihood of what the form has targets for, where it can be given.

    N* and D* are those of the largest budget. Where C is not k N D, a, N* and D* are no functions of the
    parameters that it holds: they are left out. So is L_inf where no floor was found.
    """
    wanted = {name: _wanted(one, one.task.surface) for name, one in found.items() if one.task.surface}
    asked = {name: one for name, one in wanted.items() if one is not None}
    given = dict(zip(asked, profiles(list(asked.values()), levels), strict=True))
    return {
        name: replace(one, errors=one.errors | {"profile": _kept(one.task, given[name])})
        if name in given
        else one
        for name, one in found.items()
    }


def _wanted(found: Estimate, surface: Surfaces) -> Wanted | None:
    """What to profile of one subset; None where it cannot be."""
    task, draws = found.task, found.draws
    settled = task.found.certificate is not None and not task.found.certificate.digits
    if not (task.settings.uncertainty.profile and settled and (draws or not task.curves.is_curve)):
        return None
    reach = float(task.curves.log_C.max() - np.log(task.cost.k))
    spreads = None
    replicates = approach3.surfaces_of(draws, surface.form)
    if task.curves.is_curve and replicates is not None:
        named = approach.part(approach3.NAME, draws)
        optimum = surface.form.optimum(replicates.theta, np.array([reach]), 0.0)
        if optimum is not None:
            named |= {"N_star": optimum[0][:, 0], "D_star": optimum[1][:, 0]}
        spreads = {name: float(np.nanstd(draw)) for name, draw in named.items()}
    return Wanted(task.fitter, task.log_L_P, surface, reach, spreads)


def _kept(task: Task, found: dict[str, Quantity]) -> dict[str, Quantity]:
    """Quantities that the profile determines, as they stand in results.json."""
    left_out = set() if task.cost.is_constant else {"a", "N_star", "D_star"}
    if task.found.certificate is not None and not task.found.certificate.has_floor:
        left_out.add("L_inf")
    kept = {name: quantity for name, quantity in found.items() if name not in left_out}
    return approach.joined(approach3.NAME, kept)
