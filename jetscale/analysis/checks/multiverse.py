"""One table: a and b under every reasonable choice, so a reader sees what moves the answer.

Each row changes one choice of the settings in force and fits the data again (no replicates).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.analysis.errors.estimate import point_values
from jetscale.analysis.fitting.approach import approaches
from jetscale.analysis.fitting.curves import CurveSet, build
from jetscale.analysis.fitting.pins import form_of
from jetscale.analysis.fitting.surface import SurfaceForm
from jetscale.analysis.fitting.surface_fit import Problem, prefit
from jetscale.analysis.fitting.task import fitter_of
from jetscale.analysis.settings import CurveSettings, FitSettings
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.selection import select
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

Change = Callable[[FitSettings], None]
OUTLIERS = (0, 1, 3, 5, 10, 20)
MAX_DROPPED = 0.1  # of the rows
DELTAS = (1e-4, 1e-3, 1e-2)
WINDOWS = (4.0, 16.0, 64.0)


def multiverse(losses: LossTable, settings: FitSettings) -> dict[str, list[dict[str, Any]]]:
    """Rows of every subset: the choice made, and the quantities it gives (None where undetermined).

    Parameters
    ----------
    losses : the table.
    settings : the choices in force.

    Returns
    -------
    By subset, one entry a choice.
    """
    shown = shown_quantities(form_of(settings.approach3))
    options = {name: _options(frame, losses, settings) for name, frame in losses.groups().items()}
    # all surfaces are fitted side by side; each row then finds its own
    prefit(one.problem for of_subset in options.values() for one in of_subset if one.problem is not None)
    return {
        name: [_row(option, shown, name, losses) for option in of_subset]
        for name, of_subset in options.items()
    }


@dataclass(frozen=True)
class _Option:
    """One choice: settings, the rows it takes, their curves, what approach 3 fits; or why it is refused."""

    choice: str
    settings: FitSettings
    rows: pd.DataFrame | None = None
    curves: CurveSet | None = None
    problem: Problem | None = None
    refused: str = ""


def _options(frame: pd.DataFrame, losses: LossTable, settings: FitSettings) -> list[_Option]:
    """Every choice of one subset; choices that leave rows and curves as they are share them."""
    built: dict[str, tuple[pd.DataFrame, CurveSet]] = {}
    found = []
    for choice, change in _choices(frame, settings):
        changed = _changed(settings, change)
        same = repr((changed.curves, changed.weights, changed.n_params, changed.flops, changed.drop_largest))
        try:
            if same not in built:
                rows = select(frame, changed, losses)
                built[same] = rows, build(rows, changed.curves.resolved(losses.own_runs))
            rows, curves = built[same]
            log_L = curves.log_losses(np.log(rows["loss"].to_numpy(float))[None])[0]
            found.append(_Option(choice, changed, rows, curves, (fitter_of(curves, changed), log_L)))
        except UsageError as error:
            found.append(_Option(choice, changed, refused=str(error)))
    return found


def shown_quantities(form: SurfaceForm) -> list[str]:
    """Keys ("approach2.a") of the quantities that are compared between choices and models of errors."""
    return [f"{one.name}.{name}" for one in approaches() for name in one.shown(form)]


def _row(option: _Option, shown: list[str], name: str, losses: LossTable) -> dict[str, Any]:
    """What one choice gives."""
    if option.rows is None or option.curves is None:
        return {"choice": option.choice, "problem": option.refused}
    log_L_E = np.log(option.rows["loss"].to_numpy(float))
    try:
        found = point_values(name, log_L_E, option.curves, losses, option.settings)
    except UsageError as error:
        return {"choice": option.choice, "problem": str(error)}
    # none of a form that another choice does not fit
    return {"choice": option.choice} | {key: found.get(key) for key in shown}


def _changed(settings: FitSettings, change: Change) -> FitSettings:
    changed = deepcopy(settings)
    changed.uncertainty.method = "none"
    changed.uncertainty.test_jet_samples = 0
    changed.uncertainty.profile = False
    change(changed)
    return changed


def _choices(frame: pd.DataFrame, settings: FitSettings) -> Iterator[tuple[str, Change]]:
    """What can be chosen otherwise for this table."""
    yield "as set", _set("curves")
    for delta in DELTAS:
        yield f"approach 3: Huber, delta {delta:g}", _set("approach3", objective="huber", delta=delta)
    for penalty in ("squared", "absolute"):
        yield f"approach 3: {penalty}, ln L", _set("approach3", objective=penalty, residual="log")
    yield "approach 3: squared, raw L", _set("approach3", objective="squared", residual="raw")
    yield "approach 3: alpha = beta", _set("approach3", form="tied")
    for envelope in ("hull", "record-low", "bins"):
        yield f"approach 1: {envelope}", _set("approach1", envelope=envelope)
    for window in WINDOWS:
        yield f"approach 2: within a factor {window:g} of the lowest", _set("approach2", window=window)
    yield from _of_curves(frame, settings)
    yield from _of_rows(frame)


def _of_curves(frame: pd.DataFrame, settings: FitSettings) -> Iterator[tuple[str, Change]]:
    if frame["run"].nunique() == len(frame):
        return
    if settings.curves.protocol == "off":
        yield "curves: the steps of arXiv:2606.19781", _set_own("curves", CurveSettings("paper"))
        return
    yield "curves: no running minimum", _set("curves", running_minimum=False)
    yield "curves: no smoothing", _set("curves", smooth=0.0)
    yield "curves: plateau kept", _set("curves", cut_plateau=False)
    yield (
        "curves: raw (no step of the protocol)",
        _set("curves", smooth=0.0, bin=0.0, running_minimum=False, drop=0.0, cut_plateau=False),
    )
    last = frame["step"].max()
    yield "curves: first 10% dropped", _set("curves", drop=0.1 * last)


def _of_rows(frame: pd.DataFrame) -> Iterator[tuple[str, Change]]:
    for dropped in OUTLIERS:
        if dropped <= MAX_DROPPED * len(frame):
            yield f"rows: {dropped} largest losses left out", _set_own("drop_largest", dropped)
    for weights in sorted(frame["weights"].unique()):
        if frame["weights"].nunique() > 1:
            yield f"weights: {weights}", _set_own("weights", weights)
    kinds = [str(c).removeprefix("n_params_") for c in frame.columns if str(c).startswith("n_params_")]
    for kinds_counted in ("blocks", "blocks+head"):
        if set(kinds_counted.split("+")) <= set(kinds):
            yield f"N: {kinds_counted}", _set_own("n_params", kinds_counted)
    if np.isfinite(frame["constituents"]).all():
        yield "C: counted constituents", _set_own("flops", "constituents")


def _set(part: str, **values: Any) -> Change:
    def change(settings: FitSettings) -> None:
        for name, value in values.items():
            setattr(getattr(settings, part), name, value)

    return change


def _set_own(name: str, value: Any) -> Change:
    def change(settings: FitSettings) -> None:
        setattr(settings, name, value)

    return change
