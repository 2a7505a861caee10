"""Errors on points that were not fitted: given rows, or windows that expand in N, D or C.

Loss extrapolates better than exponents, so each window gives the error of the loss and the drift of a.

Shapes: R replicates, P points (T: held-out ones).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.errors.resampling import WEBB
from jetscale.analysis.fitting.numbers import beyond_rounding, levelled
from jetscale.analysis.fitting.surface import FORMS, Surfaces, form_named
from jetscale.analysis.fitting.surface_fit import Fitter, Undetermined, precompare, prefit
from jetscale.analysis.fitting.task import Task

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FRACTIONS = (0.5, 0.7, 0.85)  # of the points, in order of the axis, that are fitted
MIN_TRAIN = 9
MIN_DOF = 5  # behind a prediction interval: with fewer, half of them hold everything
REPLICATES = 100


@dataclass(frozen=True)
class Prediction:
    """Relative errors, predicted / observed - 1, of held-out points, and R2 of the loss."""

    error_T: Array
    r2: float

    def to_json(self) -> dict[str, Any]:
        """Mean and rms error, R2, and every error."""
        return {
            "rows": len(self.error_T),
            "mean_error": float(self.error_T.mean()),
            "rms_error": float(np.sqrt((self.error_T**2).mean())),
            "r2": self.r2,
            "errors": self.error_T,
        }


def compare(predicted_log_L: Array, log_L: Array) -> Prediction:
    """Errors of predictions; both (T,).

    Parameters
    ----------
    predicted_log_L, log_L : (T,) predicted and observed ln L.
    """
    predicted, observed = np.exp(predicted_log_L), np.exp(log_L)
    total = ((observed - observed.mean()) ** 2).sum()
    r2 = 1 - ((predicted - observed) ** 2).sum() / total if total > 0 else float("nan")
    error = np.array([beyond_rounding(float(e)) for e in predicted / observed - 1])
    return Prediction(error, float(r2))


def predict_rows(surface: Surfaces, frame: pd.DataFrame) -> Prediction:
    """Errors of a surface on rows of a loss table.

    Parameters
    ----------
    surface : the first of its surfaces predicts.
    frame : rows with n_params, jets and loss.
    """
    log_N, log_D, log_L = (np.log(frame[name].to_numpy(float)) for name in ("n_params", "jets", "loss"))
    return compare(surface.log_loss(log_N, log_D)[0], log_L)


def windows(tasks: Mapping[str, Task]) -> dict[str, list[dict[str, Any]]]:
    """Fit below a cut in C, N or D and predict above it, without outliers, for every cut that can be fitted.

    Parameters
    ----------
    tasks : by subset, those of which all fits go side by side.

    Returns
    -------
    By subset, an entry a cut; none for a subset without a surface.
    """
    cuts = {
        name: [one for axis in ("C", "N", "D") for one in _cuts(task, axis)] if task.surface else []
        for name, task in tasks.items()
    }
    names = FORMS.names()[1:]
    prefit(
        (tasks[name].fitter.of(cut.below), tasks[name].log_L_P[cut.below])
        for name, of_task in cuts.items()
        for cut in of_task
    )
    precompare(
        (replace(tasks[name].fitter.of(cut.below), form=form_named(form)), tasks[name].log_L_P[cut.below])
        for name, of_task in cuts.items()
        for cut in of_task
        for form in (names if cut.axis == "C" else [])
    )
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
    for name, of_task in cuts.items():
        task = tasks[name]
        for cut in of_task:
            try:
                found[name].append(
                    {"axis": cut.axis, "cut": cut.value}
                    | _window(task, cut.below, cut.above, forms=names if cut.axis == "C" else [])
                )
            except Undetermined:
                continue  # fewer than three values of N or D below the cut: nothing to extrapolate from
    return found


@dataclass(frozen=True)
class _Cut:
    """Which points lie below and above a value of C, N or D, (P,)."""

    axis: str
    value: float
    below: Mask
    above: Mask


def _cuts(task: Task, axis: str) -> list[_Cut]:
    """Cuts of one axis that leave enough below and something above."""
    value_P = levelled(getattr(task.curves, f"log_{axis}"))  # a cut leaves points of one budget on one side
    found = []
    for cut in np.unique(np.quantile(value_P[task.regular], FRACTIONS, method="lower")):
        below, above = task.regular & (value_P <= cut), task.regular & (value_P > cut)
        if below.sum() >= MIN_TRAIN and above.any():
            found.append(_Cut(axis, float(np.exp(cut)), below, above))
    return found


def _window(task: Task, below: Mask, above: Mask, forms: list[str]) -> dict[str, Any]:
    c, log_L = task.curves, task.log_L_P
    assert task.surface is not None
    a = float(
        task.exponents(task.surface)[0][0]
    )  # of the fit to all points, from which the drift is measured
    fitter = task.fitter.of(below)
    fitted, _ = fitter.point(log_L[below])
    predicted = fitted.surfaces.log_loss(c.log_N[above], c.log_D[above])[0]
    spread, dof = _prediction_spread(task, fitter, fitted.surfaces, below, above)
    entry = compare(predicted, log_L[above]).to_json()
    del entry["errors"], entry["r2"]
    entry |= {
        "fitted": int(below.sum()),
        "a": float(task.exponents(fitted.surfaces)[0][0]),
        "drift_a": beyond_rounding(float(task.exponents(fitted.surfaces)[0][0] - a)),
    }
    if spread is not None:
        from scipy.special import stdtrit

        inside = np.abs(log_L[above] - predicted) <= stdtrit(dof, 0.975) * spread
        entry["coverage95"] = float(inside.mean())
    for form in forms:
        other = replace(fitter, form=form_named(form)).compared(log_L[below])
        error = np.expm1(other(c.log_N[above], c.log_D[above]) - log_L[above])
        entry[f"rms_error_{form}"] = float(np.sqrt((error**2).mean()))
    return entry


def _prediction_spread(
    task: Task, fitter: Fitter, surface: Surfaces, below: Mask, above: Mask
) -> tuple[Array | None, float]:
    """Standard deviation of each held-out ln L about its prediction: of the fit (wild) and of a run."""
    c, log_L = task.curves, task.log_L_P[below]
    cells, cell_P = np.unique(c.cell[below], return_inverse=True)
    dof = len(cells) - fitter.parameters
    if dof < MIN_DOF:
        return None, 0.0
    at_train = surface.log_loss(fitter.log_N, fitter.log_D)[0]
    residual = np.sqrt(len(cells) / dof) * (log_L - at_train)
    flips = np.random.default_rng([task.settings.uncertainty.seed, 6]).choice(
        WEBB, size=(REPLICATES, len(cells))
    )
    fits = fitter.replicates(at_train + flips[:, cell_P] * residual, np.ones((1, len(log_L))), starts=1)
    draws = fits.surfaces.log_loss(c.log_N[above], c.log_D[above])
    return np.sqrt(draws.var(axis=0, ddof=1) + (residual**2).mean()), dof
