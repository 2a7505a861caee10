"""Fit a loss table: every subset by every approach, judged, with paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.analysis.answers.fit_result import FitResult, SubsetFit
from jetscale.analysis.answers.gain import gains
from jetscale.analysis.answers.total_plan import total_entry
from jetscale.analysis.checks import coverage, heldout, misfit
from jetscale.analysis.checks.lack_of_fit import SIGNIFICANT, bend_test
from jetscale.analysis.checks.multiverse import multiverse
from jetscale.analysis.errors.estimate import Estimate, estimates, seeds_resampled
from jetscale.analysis.fitting.approach import EXPONENTS, approaches, part
from jetscale.analysis.fitting.approach3 import surfaces_of
from jetscale.analysis.fitting.numbers import Quantity, distinct, summarise
from jetscale.analysis.fitting.pins import form_of
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.joint.answer import answer as joint_answer
from jetscale.analysis.joint.data import Facts
from jetscale.analysis.joint.sharing import checked_names
from jetscale.analysis.settings import FitSettings
from jetscale.analysis.tables import selection
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.variants import REFERENCE, counterpart, split_name
from jetscale.common.cli import check
from jetscale.common.progress import step
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

CHOICES = 0.5
"""Time of the fits of a subset under other choices, over that of its own fit (0.9 s over 1.7 s)."""
JOINT = 0.5
"""Time of the joint fit for each subset, over that of the subset's own fit (0.8 s over 1.7 s)."""


def fit(
    losses: LossTable, settings: FitSettings | None = None, *, held_out: LossTable | None = None
) -> FitResult:
    """Fit every group of a loss table: a subset, or a variant of one (`jetscale.analysis.tables.variants`).

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
    if not isinstance(losses, LossTable):
        raise UsageError(
            f"fit takes what load_losses returns, not a {type(losses).__name__}:"
            " fit(load_losses('losses.csv'))"
        )
    settings = settings or FitSettings()
    check(settings)
    form_of(settings.approach3)  # refused before anything is fitted
    checked_names(settings.joint.shared)
    settings = replace(settings, curves=settings.curves.resolved(losses.own_runs))
    if losses.blocks is not None:
        losses = replace(losses, blocks=losses.blocks.merged(settings.blocks))
    groups = losses.groups()
    names, others = list(groups), {} if held_out is None else held_out.groups()
    unknown = sorted(set(others) - set(names))
    if unknown:
        raise UsageError(
            f"held-out rows are of {', '.join(unknown)}, which is not fitted; fitted: {', '.join(names)}"
        )
    frames = {name: selection.select(group, settings, losses) for name, group in groups.items()}
    found = estimates(frames, losses, settings)
    windows = heldout.windows({name: one.task for name, one in found.items()})
    subsets = {}
    for name, frame in frames.items():
        extra = None
        if held_out is not None and name in others:
            kept = replace(settings, drop_largest=0)  # outliers are to be predicted too
            extra = selection.select(others[name], kept, held_out)
        subsets[name] = subset_fit(found[name], frame, losses, windows[name], extra)
    gain, warnings = gains(_evaluated(losses, settings), losses.blocks)
    details: dict[str, Any] = {"gain": gain} if gain else {}
    if settings.multiverse:
        step("fits under other choices", CHOICES * len(names))
        details["multiverse"] = multiverse(losses, settings)
    step("joint fit", JOINT * len(names))
    joint = joint_answer(
        {name: subset.task for name, subset in subsets.items() if subset.task is not None},
        {name: subset.replicates for name, subset in subsets.items()},
        {name: _facts(groups[name], settings, losses) for name in subsets},
        {name: subset.draws for name, subset in subsets.items()},
        settings,
        losses.sample,
    )
    details |= joint.entries
    warnings = losses.warnings + warnings + joint.warnings
    between = differences(subsets, settings.uncertainty.levels)
    result = FitResult(subsets, between, asdict(settings), warnings, losses, details, joint.draws)
    if "transfer_laws" in details:
        details["total_budget"] = total_entry(result)
    return result


def _facts(frame: pd.DataFrame, settings: FitSettings, losses: LossTable) -> Facts:
    """What a group was pretrained on, and its widths by N."""
    rows = selection.select(frame, replace(settings, drop_largest=0), losses)
    jets = rows.get("pretrain_jets")
    known = jets is not None and bool(np.isfinite(jets).all())
    with_dim = rows[np.isfinite(rows["dim"].to_numpy(float))].drop_duplicates("n_params")
    return Facts(
        pretrain_jets=float(jets.median()) if jets is not None and known else None,
        dims=dict(zip(with_dim["n_params"].astype(float), with_dim["dim"].astype(float), strict=True)),
    )


def _evaluated(losses: LossTable, settings: FitSettings) -> dict[str, pd.DataFrame]:
    """Rows of the weights that are fitted, by group."""
    return {
        name: selection.of_weights(frame, settings.weights, losses) for name, frame in losses.groups().items()
    }


def subset_fit(
    found: Estimate,
    frame: pd.DataFrame,
    losses: LossTable,
    windows: list[dict[str, Any]],
    held_out: pd.DataFrame | None,
) -> SubsetFit:
    """Put together the fit of one subset, judged on held-out rows too.

    Parameters
    ----------
    found : its estimates.
    frame : its selected rows.
    losses : the table they come from.
    windows : how well it predicts what lies above a cut.
    held_out : rows to predict; None for none.
    """
    curves = found.task.curves
    details = describe(found)
    warnings = list(found.warnings)
    law = found.law
    if law is not None:
        warnings = law.warnings + warnings
    if found.task.surface is not None:
        details |= judge(found, found.task.surface, windows, held_out)
        if found.scatter is not None:
            details["scatter"] = found.scatter.to_json()
        warnings += _judgement(details["lack_of_fit"])
    return SubsetFit(
        name=found.task.name,
        n_runs=len(curves.runs),
        n_sizes=distinct(curves.log_N),
        n_points=len(curves.log_N),
        approaches={one.name: part(one.name, found.quantities) for one in approaches()},
        method=found.method,
        dof=np.inf if found.replicates is None else found.replicates.dof,
        errors=found.errors,
        certificate=found.task.found.certificate,
        details=details,
        warnings=warnings,
        draws=found.draws | ({} if law is None else law.draws),
        task=found.task,
        surface=found.task.surface,
        replicates=found.replicates or seeds_resampled(found.task, frame, losses),
        law=law,
    )


def describe(found: Estimate) -> dict[str, Any]:
    """Facts beside the quantities, by approach, and the outliers."""
    details: dict[str, Any] = {}
    for one in approaches():
        details[one.name] = one.describe(found.task)
        for name, bias in found.bias.get(one.name, {}).items():
            details[one.name][f"{one.grid_bias}_{name}"] = bias
    return details | {"outliers": found.task.outliers.rows}


def judge(
    found: Estimate, surface: Surfaces, windows: list[dict[str, Any]], held_out: pd.DataFrame | None
) -> dict[str, Any]:
    """Lack of fit, expanding-window hold-out, and the errors on rows held out by the user.

    Parameters
    ----------
    found : the estimates.
    surface : fit of the data.
    windows : how well it predicts what lies above a cut.
    held_out : rows to predict; None for none.
    """
    judged: dict[str, Any] = {
        "lack_of_fit": _lack_of_fit(found, surface),
        "windows": windows,
    }
    if held_out is not None:
        judged["held_out"] = heldout.predict_rows(surface, held_out).to_json()
    return judged


def _lack_of_fit(found: Estimate, surface: Surfaces) -> dict[str, Any] | None:
    """Test without the outliers, and what a lack of fit does to the answer; None where it cannot be told."""
    task, replicates = found.task, found.replicates
    c, regular = task.curves, task.regular
    if c.is_curve and replicates is None:
        return None
    log_N, log_D = c.log_N[regular], c.log_D[regular]
    residual = task.log_L_P[regular] - surface.log_loss(log_N, log_D)[0]
    of_replicates, dof = None, np.inf
    if c.is_curve and replicates is not None:
        drawn = surfaces_of(found.draws, surface.form)
        assert drawn is not None  # there is a surface, so every replicate has one
        of_replicates = replicates.log_L_RP[:, regular] - drawn.log_loss(log_N, log_D)
        dof = replicates.dof
    weight = None if c.weight is None else c.weight[regular]
    test = bend_test(surface, log_N, log_D, residual, of_replicates, dof, weight)
    if test is None or test["p_value"] >= SIGNIFICANT:
        return test
    interval = found.quantities["approach3.a"].ci95
    half_width = None if interval is None else 0.5 * (interval[1] - interval[0])
    return test | {"effect": misfit.effect(task, surface, half_width)}


def _judgement(test: dict[str, Any] | None) -> list[str]:
    """Warn of a lack of fit that changes the answer, and of intervals that no longer cover because of it."""
    if test is None or test["p_value"] >= SIGNIFICANT:
        return []
    found = []
    if test["effect"]["verdict"] == "large":
        found.append(f"{misfit.described(test)}; exponents describe this range, extrapolate with care")
    if uncovered := coverage.warning(test["bend_rms"]):
        found.append(uncovered)
    return [f"approach 3: {text}" for text in found]


def differences(
    subsets: dict[str, SubsetFit], levels: Sequence[float] = ()
) -> dict[str, dict[str, Quantity]]:
    """Paired differences of the exponents: each subset against `scratch`, all pairs where there is none.

    Of several variants of scratch, the one with the same settings of fine-tuning is taken.

    Parameters
    ----------
    subsets : the fits, by name.
    levels : of the intervals besides that of 95%, in %.
    """
    names = list(subsets)
    against = {name: counterpart(name, names, REFERENCE) for name in names}
    pairs = [(name, other) for name, other in against.items() if other is not None]
    if not any(split_name(name)[0] == REFERENCE for name in names) or not pairs:
        pairs = [(late, early) for early, late in combinations(names, 2)]
    found = {}
    for one, other in pairs:
        quantities = {}
        for approach in subsets[one].approaches:
            for name in EXPONENTS:
                difference = _difference(approach, name, subsets[one], subsets[other], levels)
                if difference is not None:
                    quantities[f"{approach}.{name}"] = difference
        if quantities:
            found[f"{one} - {other}"] = quantities
    return found


def _difference(
    approach: str, name: str, first: SubsetFit, second: SubsetFit, levels: Sequence[float]
) -> Quantity | None:
    one, other = (subset.approaches[approach][name].value for subset in (first, second))
    if one is None or other is None:
        return None
    paired = first.method == second.method and first.draws and second.draws
    key = f"{approach}.{name}"
    draws = first.draws[key] - second.draws[key] if paired else None
    return summarise(one - other, draws, first.method, min(first.dof, second.dof), "linear", levels)
