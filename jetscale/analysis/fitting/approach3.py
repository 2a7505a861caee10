"""Approach 3, as every subset is fitted by it: `surface_fit` fits the form that the settings name.

Shapes: R replicates, P points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.approach import EXPONENTS, Approach, Draws, part
from jetscale.analysis.fitting.numbers import Quantity, Scale
from jetscale.analysis.fitting.surface import SurfaceForm, Surfaces
from jetscale.analysis.fitting.task import Task

Array = NDArray[np.float64]

NAME = "approach3"


class SurfaceApproach(Approach):
    """A parametric surface L(N, D)."""

    label = "approach 3"
    title = "parametric surface"

    def draws(self, task: Task, log_L_RP: Array, weight_RP: Array) -> dict[str, Array]:
        """See `Approach.draws`: parameters, exponents and objective; nothing where the data have no fit."""
        if task.surface is None:
            return {}
        fits = task.fitter.replicates(log_L_RP, weight_RP, starts=1)
        return _values(task, fits.surfaces) | {"objective": fits.objective}

    def point(self, task: Task) -> tuple[dict[str, float], list[str]]:
        """See `Approach.point`: the certified fit of the data."""
        fit, certificate = task.found.fit, task.found.certificate
        if fit is None or certificate is None:
            names = (*task.fitter.form.reported, *EXPONENTS, "objective")
            return dict.fromkeys(names, float("nan")), [f"approach 3: {task.found.problem}"]
        found = _values(task, fit.surfaces) | {"objective": fit.objective}
        values = {name: float(value[0]) for name, value in found.items()}
        warnings = certificate.warnings()
        if task.fitter.form.pinned:
            warnings.append(
                f"approach 3: {pins_in_words(task.fitter.form)}; everything else is fitted for them"
            )
        if certificate.undetermined():
            values |= dict.fromkeys(EXPONENTS, float("nan"))
        elif task.cost.warning:
            warnings.append(f"approach 3: {task.cost.warning}")
        if not certificate.has_floor:
            values["L_inf"] = float("nan")
        return values, warnings

    def scale(self, task: Task, name: str) -> Scale:
        """A and b lie between 0 and 1; what is positive is free in its logarithm."""
        form = task.fitter.form
        if name in EXPONENTS:
            return "logit"
        if name not in form.reported:
            return "linear"
        parameter = form.reported[name]
        return "log" if parameter.startswith("log_") or form.limit(parameter)[0] >= 0 else "linear"

    def settled(self, task: Task, found: dict[str, Quantity]) -> dict[str, Quantity]:
        """Keep the digits that rounding errors leave."""
        if task.found.certificate is not None:
            for name, digits in task.found.certificate.digits.items():
                found[name] = found[name].rounded(digits)
        return found

    def describe(self, task: Task) -> dict[str, Any]:
        """The cost, and the parameters of the fit in full."""
        entry: dict[str, Any] = {"cost": task.cost.to_json()}
        if task.fitter.form.pinned:
            entry["pinned"] = task.fitter.form.pinned
        if task.surface is not None:
            names = task.surface.form.parameters
            entry["surface"] = dict(zip(names, task.surface.theta[0].tolist(), strict=True))
        return entry

    def shown(self, form: SurfaceForm) -> tuple[str, ...]:
        """A, the parameters that are no scale, and the floor."""
        reported = form.reported
        shapes = [name for name, parameter in reported.items() if not parameter.startswith("log_")]
        return ("a", *shapes, *(["L_inf"] if "L_inf" in reported else []))

    def cells(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter."""
        quantities = [name for name, value in entry.items() if isinstance(value, dict) and "ci95" in value]
        return {name: entry[name] for name in quantities if name not in (*EXPONENTS, "objective")}


def _values(task: Task, surfaces: Surfaces) -> dict[str, Array]:
    """Parameters and exponents by their names in results.json."""
    a, b = task.exponents(surfaces)
    return surfaces.form.values(surfaces.theta) | {"a": a, "b": b}


def pins_in_words(form: SurfaceForm) -> str:
    """What is pinned: "alpha = 0.34 and beta = 0.28 are pinned, not fitted"."""
    named = [f"{name} = {value:.10g}" for name, value in form.pinned.items()]
    return f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'} pinned, not fitted"


def surfaces_of(draws: Draws, form: SurfaceForm) -> Surfaces | None:
    """Surfaces of the replicates of approach 3; None where it was not fitted.

    Parameters
    ----------
    draws : as `fit_all` returns them, or replicates.parquet holds them.
    form : of the surfaces.
    """
    found = part(NAME, draws)
    return Surfaces(form.theta_of(found), form) if "a" in found else None
