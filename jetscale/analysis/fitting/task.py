"""One subset, ready to be fitted again and again: its points, its settings, and the fit of the surface.

The surface of approach 3 is part of the task, since more than approach 3 needs it: outliers are points far
from it, it predicts the bias of the other approaches, and the wild bootstrap flips the residuals about it.

Shapes: R replicates, P points, E evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.certificate import Certificate
from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.outliers import Outliers, find_outliers, none_of
from jetscale.analysis.fitting.pins import form_of
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter, SurfaceFit, Undetermined
from jetscale.analysis.settings import FitSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FoundSurface:
    """The fit of the surface to the data.

    Attributes
    ----------
    fit, certificate : None where there is no fit.
    problem : why there is none.
    """

    fit: SurfaceFit | None
    certificate: Certificate | None
    problem: str


@dataclass(frozen=True)
class Task:
    """A subset's points and settings.

    Attributes
    ----------
    name : subset.
    curves : its points.
    log_L_P : ln loss of the points themselves.
    settings : of the fit.
    cost : C of N and D.
    fitter : fits the surface to these points.
    found : what it found.
    outliers : points that approach 2 and the test of fit leave out, and approach 1 those below the fit.
    prepared : by name of an approach, what it finds once and uses for every replicate.
    """

    name: str
    curves: CurveSet
    log_L_P: Array
    settings: FitSettings
    cost: Cost
    fitter: Fitter
    found: FoundSurface
    outliers: Outliers
    prepared: dict[str, Any] = field(default_factory=dict)

    @property
    def surface(self) -> Surfaces | None:
        """Fit of the surface to the data; None where the points do not allow one."""
        return None if self.found.fit is None else self.found.fit.surfaces

    @property
    def regular(self) -> NDArray[np.bool_]:
        """Points that are no outliers, (P,)."""
        return ~self.outliers.points

    def exponents(self, surfaces: Surfaces) -> tuple[Array, Array]:
        """A and b of surfaces, (R,), for the cost and over the budgets of these points."""
        log_C = self.curves.log_C
        return self.cost.exponents(surfaces, float(log_C.min()), float(log_C.max()))


def make_task(name: str, curves: CurveSet, log_L_E: Array, settings: FitSettings, k: float) -> Task:
    """Fit the surface to the points of a subset and find the outliers; no approach is prepared yet.

    Parameters
    ----------
    name : of the subset.
    curves : its points.
    log_L_E : (E,) ln losses of the evaluations behind the points.
    settings : of the fit.
    k : of C = k N D, where the C of the points agrees with it.
    """
    log_L_P = curves.log_losses(log_L_E[None])[0]
    fitter = fitter_of(curves, settings)
    found = _fit_surface(fitter, log_L_P)
    cost = Cost.of_points(curves.log_N, curves.log_D, curves.log_C, k)
    outliers = _find_outliers(curves, log_L_P, log_L_E, fitter, found)
    return Task(name, curves, log_L_P, settings, cost, fitter, found, outliers)


def fitter_of(curves: CurveSet, settings: FitSettings) -> Fitter:
    """The points, ready to be fitted as the settings say."""
    three = settings.approach3
    objective = Objective(three.objective, three.delta, three.residual)
    return Fitter(curves.log_N, curves.log_D, objective, form_of(three), curves.weight)


def _fit_surface(fitter: Fitter, log_L_P: Array) -> FoundSurface:
    try:
        return FoundSurface(*fitter.point(log_L_P), "")
    except Undetermined as error:
        return FoundSurface(None, None, str(error))


def _find_outliers(
    curves: CurveSet, log_L_P: Array, log_L_E: Array, fitter: Fitter, found: FoundSurface
) -> Outliers:
    """Judge by the fit that was made where it is robust, else by a robust one."""
    if found.fit is None:
        return none_of(len(log_L_P))
    robust = found.fit
    if fitter.objective != Objective():
        robust, _ = replace(fitter, objective=Objective()).point(log_L_P)
    return find_outliers(curves, log_L_P, log_L_E, robust.surfaces, fitter.parameters)
