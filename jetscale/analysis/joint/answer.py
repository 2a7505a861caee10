"""The joint fit, its tests and the laws of transfer as they stand in results.json (design: contract 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.errors.resampling import Replicates
from jetscale.analysis.fitting.approach import Draws
from jetscale.analysis.fitting.numbers import Quantity, Scale, distinct, summarise
from jetscale.analysis.fitting.surface import form_named
from jetscale.analysis.fitting.task import Task
from jetscale.analysis.joint.bends import lacks_of_fit, misses
from jetscale.analysis.joint.data import Facts, JointData
from jetscale.analysis.joint.extrapolation import separate_held_out, verdict
from jetscale.analysis.joint.groups import compositions_of
from jetscale.analysis.joint.model import JointCertificate, JointFit
from jetscale.analysis.joint.nested import (
    EXPONENTS,
    TESTS,
    Fitted,
    run_test,
    separate_estimates,
    values_of,
)
from jetscale.analysis.joint.sharing import COLUMNS, SharedModel, checked_names
from jetscale.analysis.joint.trust import coverage_entry
from jetscale.analysis.joint.verdicts import RATIOS, Estimates
from jetscale.analysis.joint.worth import (
    EFFECTIVE,
    FittedLaw,
    fit_laws,
    law_entry,
    worth_entry,
)
from jetscale.analysis.settings import FitSettings
from jetscale.analysis.tables.variants import REFERENCE, split_name

Array = NDArray[np.float64]

VANISHED = 1e-6  # of the loss: a term that is smaller everywhere is none
NO_FLOOR = 0.02  # of the lowest loss: as in a fit of one subset
MOST_GROUPS = 20  # in one model: its time grows with their number cubed
ONE_LAW, EXTRA_DATA = "one law, bends 2% of each", "extra data, bends 2% of each"  # of coverage.json


@dataclass(frozen=True)
class JointAnswer:
    """Entries of results.json, and the replicates behind them.

    Attributes
    ----------
    entries : ``joint``, ``transfer`` and ``transfer_laws``; empty where nothing is fitted jointly.
    draws : (R,) each, the columns of joint.parquet.
    warnings : why something is missing.
    """

    entries: dict[str, Any] = field(default_factory=dict)
    draws: dict[str, Array] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def answer(
    tasks: Mapping[str, Task],
    replicates: Mapping[str, Replicates | None],
    facts: Mapping[str, Facts],
    draws: Mapping[str, Draws],
    settings: FitSettings,
    sample: str = "jet",
) -> JointAnswer:
    """Fit all groups in one model, test what differs, and say what pretraining is worth.

    Parameters
    ----------
    tasks : by group.
    replicates : of each; None where there are none.
    facts : what each was pretrained on.
    draws : what its replicates yield by themselves.
    settings : of the fit.
    sample : what D counts.

    Raises
    ------
    UsageError
        `joint.shared` names no parameter of the form.
    """
    shared = checked_names(settings.joint.shared)
    if not settings.joint.on or len(tasks) < 2:
        return JointAnswer()
    if settings.approach3.form != "separate":
        return JointAnswer(
            warnings=[f"joint: not fitted, since approach3.form={settings.approach3.form} is not separate"]
        )
    if settings.approach3.pin:
        held = ", ".join(f"{name}={value:g}" for name, value in settings.approach3.pin.items())
        return JointAnswer(warnings=[f"joint: not fitted, since approach3.pin holds {held}"])
    rows = min(settings.joint.replicates, settings.uncertainty.replicates)

    def of(names: list[str]) -> JointData:
        some = {name: tasks[name] for name in names}
        return JointData(some, {name: replicates[name] for name in names}, facts, draws, rows)

    fitted = [name for name, task in tasks.items() if task.surface is not None]
    missing = [name for name in tasks if name not in fitted]
    warnings = [f"joint: without {', '.join(missing)}, which approach 3 could not fit"] if missing else []
    rising = _not_falling(of(fitted), shared) if 1 < len(fitted) <= MOST_GROUPS else []
    if rising:
        warnings.append(f"joint: without {', '.join(rising)}, whose loss does not fall with N and D")
        fitted = [name for name in fitted if name not in rising]
    entries: dict[str, Any] = {}
    columns: dict[str, Array] = {}
    if len(fitted) > MOST_GROUPS:
        warnings.append(
            f"joint: not fitted: {len(fitted)} subsets, more than {MOST_GROUPS}; choose with where=..."
        )
    elif len(fitted) > 1:
        entry, columns = _joint(of(fitted), shared)
        warnings += [f"joint: {text}" for text in entry["warnings"]]
        entries["joint"] = entry
    carried = of([name for name in tasks if _carries_law(tasks[name])])
    return _with_laws(carried, entries, columns, warnings, sample)


def _not_falling(data: JointData, shared: frozenset[str]) -> list[str]:
    """Groups whose own exponent is at a bound, and whose term of N or of D vanishes in the joint fit too.

    A group of few runs may leave an exponent open that all groups together determine. If the term is gone
    even then, the fit would only drive its scale to zero, and compare that with the other groups.
    """
    doubtful = [
        name
        for name, task in data.tasks.items()
        if task.found.certificate is not None and EXPONENTS & set(task.found.certificate.at_bound)
    ]
    if not doubtful:
        return []
    model = SharedModel.of(data.points, shared, data.objective)
    surfaces = model.model.surfaces(model.point(data.points)[0].phi)
    found = []
    for name in doubtful:
        curves, surface = data.tasks[name].curves, surfaces[name]
        log_A, log_B, _, alpha, beta = surface.theta[0]
        log_L_P = surface.log_loss(curves.log_N, curves.log_D)[0]
        terms = (log_A - alpha * curves.log_N, log_B - beta * curves.log_D)
        if any((term_P - log_L_P).max() < np.log(VANISHED) for term_P in terms):
            found.append(name)
    return found


def _carries_law(task: Task) -> bool:
    """Whether a group has several D: a law of transfer needs no more of it."""
    return distinct(task.curves.log_D) > 2


def _with_laws(
    data: JointData,
    entries: dict[str, Any],
    columns: dict[str, Array],
    warnings: list[str],
    sample: str,
) -> JointAnswer:
    """Add the laws of transfer."""
    scratch, compositions, problem = compositions_of(data)
    if scratch is None or len(data.names) > MOST_GROUPS:
        asked = any(data.facts[name].pretrain_jets for name in data.names)  # else nothing was pretrained
        said = [f"transfer: no law is fitted: {problem or 'too many subsets'}"] if asked else []
        return JointAnswer(entries, columns, [*warnings, *said])
    laws = fit_laws(data, scratch, compositions)
    compared = _laws(data, laws)
    effective = compared["laws"][EFFECTIVE]["compositions"]
    entries["transfer"] = {
        one.name: worth_entry(data, laws[EFFECTIVE], one, effective[one.name], sample) for one in compositions
    }
    entries["transfer_laws"] = compared
    for name, law in laws.items():
        if law.drawn is not None:
            theta = law.model.theta(law.drawn.phi)
            columns |= {f"transfer.{name}.{key}": value for key, value in theta.items()}
    return JointAnswer(entries, columns, warnings)


def _joint(data: JointData, shared: frozenset[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Entry ``joint`` and its replicates."""
    reference = _reference(data)
    whole, model, fit, certificate = joint_estimates(data, shared)
    lacks = lacks_of_fit(data)
    surfaces = model.model.surfaces(fit.phi)
    residual = {name: p.log_L - model.model.fitted(fit.phi)[name][0] for name, p in data.points.items()}
    both = shared >= EXPONENTS
    entry = {
        "reference": reference,
        "names": [name for name in COLUMNS if name in shared],
        "shared": {
            name: quantity_of(data, whole, reference, name)
            for name in (*COLUMNS, "a", "b")
            if name in shared or (both and name in ("a", "b"))
        },
        "subsets": {
            group: {
                name: quantity_of(data, whole, group, name)
                for name in (*COLUMNS, "a", "b")
                if name not in shared
            }
            for group in data.names
        },
        "ratios": {
            f"{group} / {reference}": {
                name: ratio_of(data, whole, group, reference, name) for name in RATIOS if name not in shared
            }
            for group in data.names
            if group != reference and not shared >= set(RATIOS)
        },
        "surfaces": {
            name: dict(zip(one.form.parameters, one.theta[0].tolist(), strict=True))
            for name, one in surfaces.items()
        },
        "objective": float(fit.objective[0]),
        "rms": _rms(list(residual.values())),
        "rms_separate": _rms(
            [
                task.log_L_P - task.surface.log_loss(task.curves.log_N, task.curves.log_D)[0]
                for task in data.tasks.values()
                if task.surface is not None
            ]
        ),
        "points": model.model.points,
        "parameters": len(model.model.names),
        "method": data.method,
        "dof": data.dof,
        "replicates": data.rows if data.has_replicates else 0,
        "certificate": certificate.to_json(),
        "tests": tests_of(data, whole, shared, reference, TESTS, misses(lacks)),
        "coverage": coverage_entry(lacks, misses(lacks), ONE_LAW),
    }
    entry["warnings"] = _unsettled(data, entry, certificate)
    draws = {}
    if whole.drawn is not None:
        draws = {
            f"joint.{group}.{name}": value
            for group, values in whole.drawn.items()
            for name, value in values.items()
        }
    return entry, draws


def _reference(data: JointData) -> str:
    """What the others are compared with: scratch, else the first without pretraining, else the first."""
    called = [name for name in data.names if split_name(name)[0] == REFERENCE]
    fresh = [name for name in data.names if data.facts[name].pretrain_jets == 0]
    return [*called, *fresh, *data.names][0]


def _unsettled(data: JointData, entry: dict[str, Any], certificate: JointCertificate) -> list[str]:
    """Take values out of the entry that the fit does not determine, and say why."""
    found = [] if certificate.converged else ["it did not converge: exponents have no value"]
    found += [f"{certificate.told_flat()}: exponents have no value"] if certificate.flat else []
    bounded = [name for name in certificate.at_bound if name.rpartition(".")[2] in EXPONENTS]
    if bounded:
        found.append(f"{', '.join(bounded)} at a bound: exponents a and b have no value")
    groups = [entry["shared"], *entry["subsets"].values()]
    for group in groups if found else []:
        group |= {name: Quantity(None) for name in ("a", "b") if name in group}
    floors = []
    for name, task in data.tasks.items():
        floor = {**entry["shared"], **entry["subsets"][name]}["L_inf"]
        if floor.value is not None and floor.value < NO_FLOOR * float(np.exp(task.log_L_P.min())):
            floors.append(name)
    if floors:
        found.append(f"no floor found in {', '.join(floors)}: L_inf is below 2% of the lowest loss")
        for at, group in [(None, entry["shared"]), *entry["subsets"].items()]:
            if "L_inf" in group and (at is None or at in floors):
                group["L_inf"] = Quantity(None)
        for pair, ratios in entry["ratios"].items():
            if "L_inf" in ratios and {pair.split(" / ")[0], entry["reference"]} & set(floors):
                ratios["L_inf"] = Quantity(None)
    return found


def tests_of(
    data: JointData,
    whole: Estimates,
    shared: frozenset[str],
    reference: str,
    names: Iterable[str],
    misfits: list[str],
) -> dict[str, Any]:
    """Run nested tests; a model that several of them need is fitted once.

    Parameters
    ----------
    data : the groups.
    whole : estimates of the joint fit that shares `shared`.
    shared : names of parameters.
    reference : group that the others are compared with.
    names : of the tests.
    misfits : groups whose losses bend as the form cannot.

    Returns
    -------
    By test, its entry in results.json.
    """
    fits: dict[frozenset[str], Fitted] = {}
    estimates = {frozenset(): separate_estimates(data), shared: whole}
    found = {}
    for name in names:
        test = TESTS[name]
        for together in (test.null, test.alternative):
            if together not in fits:
                fits[together] = Fitted.of(data, together)
        if test.alternative not in estimates:
            estimates[test.alternative] = joint_estimates(data, test.alternative)[0]
        own = estimates[test.alternative]
        small, large = fits[test.null], fits[test.alternative]
        found[name] = run_test(data, test, small, large, own, reference, misfits)
    return found


def joint_estimates(
    data: JointData, shared: frozenset[str]
) -> tuple[Estimates, SharedModel, JointFit, JointCertificate]:
    """Fit a joint model to the data and the replicates.

    Parameters
    ----------
    data : the groups.
    shared : names of the parameters in common.
    """
    model = SharedModel.of(data.points, shared, data.objective)
    fit, certificate = model.point(data.points)
    drawn = None
    if data.has_replicates:
        drawn = values_of(data, model, model.replicates(*data.drawn()).phi)
    return Estimates(values_of(data, model, fit.phi), drawn), model, fit, certificate


def _laws(data: JointData, laws: Mapping[str, FittedLaw]) -> dict[str, Any]:
    """Entry ``transfer_laws``."""
    held = {name: dict(law.held_out) for name, law in laws.items()}
    held["separate"] = {axis: separate_held_out(data, axis) for axis in ("D", "N")}
    found = verdict(held)
    entries = {name: law_entry(data, law) for name, law in laws.items()}
    lacks = entries[EFFECTIVE]["lack_of_fit"]
    return {
        "best": found.best,
        "verdict": str(found),
        "common": list(COLUMNS),
        "laws": entries
        | {
            "separate": {
                "formula": f"{form_named('separate').formula}, every group alone",
                "held_out": {
                    axis: None if one is None else one.to_json() for axis, one in held["separate"].items()
                },
            }
        },
        "coverage": coverage_entry(lacks, misses(lacks), EXTRA_DATA),
        "warnings": [
            f"law {name}: {law.certificate.told_flat()}, so it has no values and is not compared"
            for name, law in laws.items()
            if law.certificate.flat
        ],
    }


def quantity_of(data: JointData, whole: Estimates, group: str, name: str) -> Quantity:
    """A parameter (L_inf, A, B, alpha, beta) or exponent (a, b) of a group with its error."""
    draws = None if whole.drawn is None else whole.drawn[group][name]
    scale: Scale = "logit" if name in ("a", "b") else "log"
    return summarise(float(whole.values[group][name][0]), draws, data.method, data.dof, scale, data.levels)


def ratio_of(data: JointData, whole: Estimates, group: str, reference: str, name: str) -> Quantity:
    """A scale of a group over that of the reference, with its error."""
    value = whole.values[group][name] / whole.values[reference][name]
    draws = None if whole.drawn is None else whole.drawn[group][name] / whole.drawn[reference][name]
    return summarise(float(value[0]), draws, data.method, data.dof, "log", data.levels)


def _rms(residuals: list[Array]) -> float:
    return float(np.sqrt((np.concatenate(residuals) ** 2).mean()))
