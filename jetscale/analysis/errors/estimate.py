"""One subset's estimates: the fit of the data, the replicates, and the intervals they give.

Shapes: R replicates, E evaluations, P points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.errors import resampling
from jetscale.analysis.errors.profile import QUANTITIES, profile
from jetscale.analysis.fitting import curves as curve_building
from jetscale.analysis.fitting import joint
from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.fitting.isoflop import EDGE
from jetscale.analysis.fitting.numbers import Quantity, Scale, summarise
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.outliers import Outliers, find_outliers, none_of
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Certificate, Fitter, SurfaceFit, Undetermined
from jetscale.analysis.settings import FitSettings
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.test_blocks import MIN_FILLED_BLOCKS, BlockLosses, keys_of

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

MIN_SLICES = 3  # two vertices always lie on a line
SCALES: dict[str, Scale] = {f"approach3.{key}": "log" for key in ("A", "B", "L_inf", "alpha", "beta")}
SCALES |= {"approach3.a": "logit", "approach3.b": "logit"}
SURFACE_KEYS = ("L_inf", "A", "B", "alpha", "beta", "a", "b", "objective")


@dataclass(frozen=True)
class Point:
    """The fit of the data themselves; values are NaN where the data do not determine them."""

    values: dict[str, float]
    surface: Surfaces | None
    certificate: Certificate | None
    warnings: list[str]


@dataclass(frozen=True)
class Estimate:
    """A subset's quantities with their errors.

    Attributes
    ----------
    task, point : what was fitted and what came out.
    method : model of errors of `quantities`.
    replicates, draws : perturbed data and their fits; None and empty for method "none".
    quantities : "approach3.a" and the like.
    errors : the same under other models of errors.
    warnings : what a reader must know.
    """

    task: joint.Task
    point: Point
    method: str
    replicates: resampling.Replicates | None
    draws: joint.Draws
    quantities: dict[str, Quantity]
    errors: dict[str, dict[str, Quantity]]
    warnings: list[str]


def estimate(
    name: str,
    frame: pd.DataFrame,
    losses: LossTable,
    settings: FitSettings,
    curves: CurveSet | None = None,
) -> Estimate:
    """Fit the selected rows of one subset, with errors; `curves`: of these rows, where they exist already.

    Raises
    ------
    UsageError
        A setting that these data cannot meet.
    """
    log_L_E = np.log(frame["loss"].to_numpy(float))
    blocks = _blocks(frame, losses)
    curves = curves or curve_building.build(frame, settings.curves.resolved(losses.own_runs))
    log_L_P = curves.log_losses(log_L_E[None])[0]
    found = _fit_surface(joint.fitter_of(curves, settings), log_L_P)
    outliers = _find_outliers(curves, log_L_P, log_L_E, found)
    cost = Cost.of_points(curves.log_N, curves.log_D, curves.log_C, losses.flops_per_param_sample)
    task = joint.prepare(name, curves, log_L_P, settings, cost, outliers)
    point = _point(task, found)
    method, reason = resampling.choose_method(settings.uncertainty.method, curves, point.surface is not None)
    replicates, draws = _replicate(task, point, method, log_L_E, blocks)
    dof = np.inf if replicates is None else replicates.dof
    quantities = _summaries(point, draws, method, dof)
    if point.surface is not None:
        quantities = _with_grid_bias(quantities, task, point.surface)
    errors = {}
    if blocks is not None and settings.uncertainty.test_jet_samples:
        _, by_jets = _replicate(task, point, "test_jets", log_L_E, blocks)
        errors["test_jets"] = _summaries(point, by_jets, "test_jets", np.inf)
    settled = point.certificate is not None and not point.certificate.digits
    profiled = settings.uncertainty.profile and settled and (draws or not curves.is_curve)
    if point.surface is not None and profiled:
        errors["profile"] = _profile(
            task, point.surface, draws, point.certificate is None or point.certificate.has_floor
        )
    warnings = curves.warnings + point.warnings + ([reason] if reason else [])
    if losses.blocks is not None and blocks is None:
        warnings.append(
            "test jets are not resampled: some evaluation lacks block losses, or has too few jets"
        )
    return Estimate(task, point, method, replicates, draws, quantities, errors, warnings)


@dataclass(frozen=True)
class _Found:
    """Approach 3 on the data; `problem` says why there is no fit."""

    fitter: Fitter
    fit: SurfaceFit | None
    certificate: Certificate | None
    problem: str


def _fit_surface(fitter: Fitter, log_L_P: Array) -> _Found:
    try:
        return _Found(fitter, *fitter.point(log_L_P), "")
    except Undetermined as error:
        return _Found(fitter, None, None, str(error))


def _find_outliers(curves: CurveSet, log_L_P: Array, log_L_E: Array, found: _Found) -> Outliers:
    """Judge by the fit that was made where it is robust, else by a robust one."""
    if found.fit is None:
        return none_of(len(log_L_P))
    robust, fitter = found.fit, found.fitter
    if fitter.objective != Objective():
        fitter = replace(fitter, objective=Objective())
        robust, _ = fitter.point(log_L_P)
    return find_outliers(curves, log_L_P, log_L_E, robust.surfaces, fitter.parameters)


def _point(task: joint.Task, found: _Found) -> Point:
    """Fit of the data by all approaches; what they do not determine is NaN with a warning."""
    warnings = []
    log_L_RP, ones = task.log_L_P[None], np.ones((1, len(task.log_L_P)))
    draws = joint.fit_jointly(task, log_L_RP, ones, surface=False)
    surface, certificate = None, found.certificate
    if found.fit is None or certificate is None:
        warnings.append(f"approach 3: {found.problem}")
        draws |= {f"approach3.{key}": np.array([np.nan]) for key in SURFACE_KEYS}
    else:
        surface = found.fit.surfaces
        draws |= joint.surface_draws(task, surface) | {"approach3.objective": found.fit.objective}
        warnings += certificate.warnings()
        if certificate.undetermined():
            draws |= {"approach3.a": np.array([np.nan]), "approach3.b": np.array([np.nan])}
        elif task.cost.warning:
            warnings.append(f"approach 3: {task.cost.warning}")
        if not certificate.has_floor:
            draws["approach3.L_inf"] = np.array([np.nan])
    values = {key: float(value[0]) for key, value in draws.items()}
    if len(task.used_slices) < MIN_SLICES:
        warnings.append(f"approach 2: {_why_no_slices(task)}")
        values |= {key: np.nan for key in values if key.startswith("approach2.")}
    if not np.isfinite(values["approach1.a"]):
        warnings.append(f"approach 1: no exponent: {joint.envelope_problem(task)}")
    return Point(values, surface, certificate, warnings + task.outliers.warnings())


def _why_no_slices(task: joint.Task) -> str:
    if task.profiles.reason:
        return f"no exponent: {task.profiles.reason}"
    problems = [vertex.problem for vertex in task.vertices_N if vertex.problem]
    at_edge = sum(EDGE in problem for problem in problems)
    used, total = len(task.used_slices), len(task.vertices_N)
    if 2 * at_edge > len(problems):
        return f"no exponent: {EDGE} in {at_edge} of {total} slices; {used} usable, {MIN_SLICES} needed"
    example = f" ({problems[0]})" if problems else ""
    return f"no exponent: {used} of {total} slices usable, {MIN_SLICES} needed{example}"


def _blocks(frame: pd.DataFrame, losses: LossTable) -> BlockLosses | None:
    if losses.blocks is None:
        return None
    blocks = losses.blocks.select(keys_of(frame))
    if blocks is None or (blocks.jets_EB > 0).sum(axis=1).min() < MIN_FILLED_BLOCKS:
        return None  # some evaluation without blocks, or a test set of a few jets
    return blocks


def _replicate(
    task: joint.Task, point: Point, method: str, log_L_E: Array, blocks: BlockLosses | None
) -> tuple[resampling.Replicates | None, joint.Draws]:
    if method == "none":
        return None, {}
    fitted, noise = None, None
    if point.surface is not None:
        fitted = point.surface.log_loss(task.curves.log_N, task.curves.log_D)[0]
        noise = resampling.wild_noise(task.curves, task.fitter, task.log_L_P, point.surface)
    settings = task.settings.uncertainty
    replicates = resampling.draw(method, task.curves, log_L_E, fitted, noise, blocks, settings)
    draws = joint.fit_jointly(
        task, replicates.log_L_RP, replicates.weight_RP, surface=point.surface is not None
    )
    return replicates, draws


def _summaries(point: Point, draws: joint.Draws, method: str, dof: float) -> dict[str, Quantity]:
    found = {
        key: summarise(value, draws.get(key), method, dof, SCALES.get(key, "linear"))
        for key, value in point.values.items()
    }
    if point.certificate is not None:
        for name, digits in point.certificate.digits.items():
            found[f"approach3.{name}"] = found[f"approach3.{name}"].rounded(digits)
    return found


def _with_grid_bias(
    quantities: dict[str, Quantity], task: joint.Task, surface: Surfaces
) -> dict[str, Quantity]:
    """Widen the intervals of approaches 1 and 2 towards the truth by the bias the fitted surface predicts."""
    widened = dict(quantities)
    for name, bias in joint.grid_bias(task, surface).items():
        quantity = quantities[name]
        if quantity.ci95 is not None and np.isfinite(bias):
            low, high = quantity.ci95
            widened[name] = Quantity(
                quantity.value, quantity.sd, (low - max(bias, 0.0), high - min(bias, 0.0))
            )
    return widened


def _profile(task: joint.Task, surface: Surfaces, draws: joint.Draws, has_floor: bool) -> dict[str, Quantity]:
    """Profile likelihood, N* and D* at the largest budget of the data; none for the tied form.

    Where C is not k N D, a, N* and D* are no functions of the parameters that it holds: they are left out. So
    is L_inf where no floor was found.
    """
    if task.fitter.tied:
        return {}
    reach = float(task.curves.log_C.max() - np.log(task.cost.k))
    spreads = None
    if task.curves.is_curve:
        log_N, log_D = (value[:, 0] for value in joint.surfaces_of(draws).optimum(np.array([reach]), 0.0))
        named = {name: draws[f"approach3.{name}"] for name in QUANTITIES[:4]}
        named |= {"N_star": log_N, "D_star": log_D}
        spreads = {name: float(np.nanstd(draw)) for name, draw in named.items()}
    found = profile(task.fitter, task.log_L_P, surface, reach, spreads)
    left_out = set() if task.cost.is_constant else {"a", "N_star", "D_star"}
    left_out |= set() if has_floor else {"L_inf"}
    return {f"approach3.{name}": quantity for name, quantity in found.items() if name not in left_out}
