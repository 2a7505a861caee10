"""Fit a loss table: every subset by every approach, with errors and paired differences.

Shapes: R replicates, E evaluations, P points.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis import curves as curve_building
from jetscale.analysis import heldout, joint, resampling, selection
from jetscale.analysis.blocks import BlockLosses
from jetscale.analysis.isoflop import EDGE, power_law
from jetscale.analysis.lack_of_fit import SIGNIFICANT, bend_test
from jetscale.analysis.results import FitResult, Quantity, SubsetFit, summarise
from jetscale.analysis.settings import FitSettings
from jetscale.analysis.surface import Surfaces
from jetscale.analysis.surface_fit import Certificate
from jetscale.analysis.table import LossTable
from jetscale.cli import UsageError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

MIN_SLICES = 3  # two vertices always lie on a line
POSITIVE = ("approach3.A", "approach3.B", "approach3.L_inf", "approach3.alpha", "approach3.beta")
COMPARED = ("approach1.a", "approach1.b", "approach2.a", "approach2.b", "approach3.a", "approach3.b")
REFERENCE_SUBSET = "scratch"


@dataclass(frozen=True)
class Point:
    """The fit of the data themselves."""

    values: dict[str, float]
    surface: Surfaces | None
    certificate: Certificate | None
    warnings: list[str]


def fit(
    losses: LossTable, settings: FitSettings | None = None, *, held_out: LossTable | None = None
) -> FitResult:
    """Fit every subset of a loss table.

    Parameters
    ----------
    losses : from `load_losses`.
    settings : see `FitSettings`; the paper's protocol by default.
    held_out : rows to predict with each subset's surface; not fitted.

    Raises
    ------
    UsageError
        A setting that cannot be met. Data that cannot carry a fit are not an error: their quantities are None
        and a warning says why.
    """
    settings = settings or FitSettings()
    subsets = {}
    for name in sorted(losses.frame["subset"].unique()):
        frame = selection.select(losses.frame[losses.frame["subset"] == name], settings, losses)
        extra = None
        if held_out is not None:
            same = held_out.frame["subset"] == name
            extra = held_out.frame[same] if same.any() else None
        subsets[str(name)] = fit_subset(str(name), frame, losses, settings, extra)
    return FitResult(subsets, differences(subsets), asdict(settings), list(losses.warnings), losses)


def fit_subset(
    name: str, frame: pd.DataFrame, losses: LossTable, settings: FitSettings, held_out: pd.DataFrame | None
) -> SubsetFit:
    """Fit the selected rows of one subset and predict the held-out ones."""
    try:
        curves = curve_building.build(frame, settings.curves)
        log_L_E = np.log(frame["loss"].to_numpy(float))
        task = joint.prepare(name, curves, curves.log_losses(log_L_E[None])[0], settings)
        point = fit_point(task)
        blocks = _blocks(frame, losses)
        method, reason = resampling.choose_method(
            settings.uncertainty.method, curves, point.surface is not None
        )
    except ValueError as error:
        raise UsageError(f"{losses.source}, subset {name}: {error}") from error
    warnings = curves.warnings + point.warnings + ([reason] if reason else [])
    draws, replicates = _replicates(task, point, method, log_L_E, blocks)
    dof = np.inf if replicates is None else replicates.dof
    errors = {}
    if blocks is not None:
        by_jets, _ = _replicates(task, point, "test_jets", log_L_E, blocks)
        errors["test_jets"] = _summaries(point.values, by_jets, "test_jets", np.inf)
    groups = _summaries(point.values, draws, method, dof)
    details = describe(task, point)
    if point.surface is not None:
        details |= judge(task, point.surface, draws, replicates, held_out)
        warnings += _judgement(details)
    return SubsetFit(
        name=name,
        n_runs=len(curves.runs),
        n_sizes=len(np.unique(curves.log_N)),
        n_points=len(curves.log_N),
        approach1=_group(groups, 1),
        approach2=_group(groups, 2),
        approach3=_group(groups, 3),
        method=method,
        errors=errors,
        certificate=point.certificate,
        details=details,
        warnings=warnings,
        draws=draws,
        task=task,
    )


def fit_point(task: joint.Task) -> Point:
    """Fit the data; what they do not determine is NaN with a warning."""
    warnings = []
    log_L_RP, ones = task.log_L_P[None], np.ones((1, len(task.log_L_P)))
    draws = joint.fit_jointly(task, log_L_RP, ones, surface=False)
    surface, certificate = None, None
    try:
        found, certificate = task.fitter.point(task.log_L_P)
    except ValueError as error:
        warnings.append(f"approach 3: {error}")
        draws |= {f"approach3.{key}": np.array([np.nan]) for key in _SURFACE_KEYS}
    else:
        surface = found.surfaces
        draws |= joint.surface_draws(surface) | {"approach3.objective": found.objective}
        warnings += certificate.warnings()
    values = {key: float(value[0]) for key, value in draws.items()}
    if len(task.used_slices) < MIN_SLICES:
        warnings.append(f"approach 2: {_why_no_slices(task)}")
        values |= {key: np.nan for key in values if key.startswith("approach2.")}
    if not np.isfinite(values["approach1.a"]):
        warnings.append(
            "approach 1: too few points on the envelope, or too short a range of C, for an exponent"
        )
    return Point(values, surface, certificate, warnings)


_SURFACE_KEYS = ("L_inf", "A", "B", "alpha", "beta", "a", "b", "objective")


def _why_no_slices(task: joint.Task) -> str:
    if task.profiles.reason:
        return f"no exponent: {task.profiles.reason}"
    problems = [v.problem for v in task.vertices_N if v.problem]
    used, total = len(task.used_slices), len(task.vertices_N)
    if sum(EDGE in problem for problem in problems) > len(problems) / 2:
        return f"no exponent: {EDGE} in {total - used} of {total} slices; {used} usable, 3 needed"
    return f"no exponent: {used} of {total} slices usable, 3 needed" + (
        f" ({problems[0]})" if problems else ""
    )


def _blocks(frame: pd.DataFrame, losses: LossTable) -> BlockLosses | None:
    if losses.blocks is None:
        return None
    keys = zip(frame["run"], frame["step"].astype(float), frame["weights"], strict=True)
    blocks = losses.blocks.select([(str(run), float(step), str(weights)) for run, step, weights in keys])
    if blocks is None or (blocks.jets_EB > 0).sum(axis=1).min() < 50:
        return None  # some evaluation without blocks, or a test set of a few jets
    return blocks


def _replicates(
    task: joint.Task, point: Point, method: str, log_L_E: Array, blocks: BlockLosses | None
) -> tuple[joint.Draws, resampling.Replicates | None]:
    if method == "none":
        return {}, None
    fitted = None
    if point.surface is not None:
        fitted = point.surface.log_loss(task.curves.log_N, task.curves.log_D)[0]
    replicates = resampling.draw(method, task.curves, log_L_E, fitted, blocks, task.settings.uncertainty)
    draws = joint.fit_jointly(
        task, replicates.log_L_RP, replicates.weight_RP, surface=point.surface is not None
    )
    return draws, replicates


def _summaries(values: dict[str, float], draws: joint.Draws, method: str, dof: float) -> dict[str, Quantity]:
    return {
        key: summarise(value, draws.get(key), method, dof, positive=key in POSITIVE)
        for key, value in values.items()
    }


def _group(quantities: dict[str, Quantity], number: int) -> dict[str, Quantity]:
    prefix = f"approach{number}."
    return {key.removeprefix(prefix): value for key, value in quantities.items() if key.startswith(prefix)}


def describe(task: joint.Task, point: Point) -> dict[str, Any]:
    """Facts beside the quantities: the envelope, the slices, what the surface says about approach 2."""
    slices = []
    for one, in_N, in_D in zip(task.profiles.slices, task.vertices_N, task.vertices_D, strict=True):
        log_N = one.at(task.curves.log_N)
        slices.append(
            {
                "C": float(np.exp(one.log_C)),
                "sizes": len(np.unique(log_N)),
                "N_range": float(np.exp(np.ptp(log_N))),
                "N_star": float(np.exp(in_N.position)),
                "D_star": float(np.exp(in_D.position)),
                "problem": in_N.problem or in_D.problem,
                "flag": in_N.flag,
            }
        )
    approach2: dict[str, Any] = {
        "slices": slices,
        "slices_used": len(task.used_slices),
        "interpolated": task.profiles.interpolated,
    }
    if point.surface is not None and np.isfinite(point.values["approach2.a"]):
        approach2 |= parabola_bias(task, point.surface)
    approach1 = {"envelope": task.settings.approach1.envelope, **joint.envelope_counts(task)}
    return {"approach1": approach1, "approach2": approach2}


def judge(
    task: joint.Task,
    surface: Surfaces,
    draws: joint.Draws,
    replicates: resampling.Replicates | None,
    held_out: pd.DataFrame | None,
) -> dict[str, Any]:
    """Lack of fit, expanding-window hold-out, and the errors on rows held out by the user."""
    c = task.curves
    residual = task.log_L_P - surface.log_loss(c.log_N, c.log_D)[0]
    of_replicates, dof = None, np.inf
    if c.is_curve and replicates is not None:
        fitted = joint.surfaces_of(draws).log_loss(c.log_N, c.log_D)
        of_replicates, dof = replicates.log_L_RP - fitted, replicates.dof
    testable = not c.is_curve or replicates is not None
    found: dict[str, Any] = {
        "lack_of_fit": bend_test(surface, c.log_N, c.log_D, residual, of_replicates, dof)
        if testable
        else None,
        "windows": heldout.windows(task, float(surface.a[0])),
    }
    if held_out is not None:
        found["held_out"] = heldout.predict_rows(surface, held_out).to_json()
    return found


def _judgement(details: dict[str, Any]) -> list[str]:
    test = details["lack_of_fit"]
    if test is None or test["p_value"] >= SIGNIFICANT:
        return []
    bend, rms = 100 * test["bend_rms"], 100 * test["residual_rms"]
    text = f"approach 3: lack of fit (p = {test['p_value']:.1g}): residuals bend by {bend:.2g}% of the loss"
    return [f"{text} (rms of all: {rms:.2g}%); exponents describe this range, extrapolate with care"]


def parabola_bias(task: joint.Task, surface: Surfaces) -> dict[str, float]:
    """What approach 2 would find on this grid if the fitted surface were the truth, minus that truth."""
    smooth = surface.log_loss(task.curves.log_N, task.curves.log_D)
    in_N, in_D = joint.fit_profiles(task, smooth, np.ones_like(smooth), 2)
    log_C_K = np.array([one.log_C for one in task.used_slices])
    a, b = power_law(log_C_K, in_N)[0][0], power_law(log_C_K, in_D)[0][0]
    return {
        "surface_implied_a": float(a),
        "surface_implied_b": float(b),
        "parabola_bias_a": float(a - surface.a[0]),
        "parabola_bias_b": float(b - surface.b[0]),
    }


def differences(subsets: dict[str, SubsetFit]) -> dict[str, dict[str, Quantity]]:
    """Paired differences of the exponents: each subset against `scratch`, all pairs where there is none."""
    names = list(subsets)
    pairs = (
        [(name, REFERENCE_SUBSET) for name in names if name != REFERENCE_SUBSET]
        if REFERENCE_SUBSET in subsets
        else [(late, early) for early, late in combinations(names, 2)]
    )
    found = {}
    for one, other in pairs:
        first, second = subsets[one], subsets[other]
        paired = first.method == second.method and first.draws and second.draws
        quantities = {}
        for key in COMPARED:
            group, name = int(key[8]), key.split(".")[1]
            value = [fit_.approach(group)[name].value for fit_ in (first, second)]
            if value[0] is None or value[1] is None:
                continue
            draws = first.draws[key] - second.draws[key] if paired else None
            quantities[key] = summarise(value[0] - value[1], draws, first.method, np.inf)
        if quantities:
            found[f"{one} - {other}"] = quantities
    return found
