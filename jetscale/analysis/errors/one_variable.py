"""The fit of a law of one variable, where a table carries no law of N and D, with its errors.

Shapes: R replicates, E evaluations, P points.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.errors import resampling
from jetscale.analysis.errors.profile import profile
from jetscale.analysis.errors.scatter import Scatter, measured
from jetscale.analysis.fitting.certificate import Certificate
from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.fitting.numbers import Quantity, summarise
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.power_law import POWER_LAW, Variable
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter, Undetermined
from jetscale.analysis.settings import FitSettings
from jetscale.analysis.tables.test_blocks import BlockLosses

Array = NDArray[np.float64]

NAME = "law"
"""Its key in results.json, and the prefix of its columns in replicates.parquet."""
ALL_EQUAL = 6.0  # robust standard deviations beyond which a loss is left out of the scatter of runs


@dataclass(frozen=True)
class LawFit:
    """A law of one variable.

    Attributes
    ----------
    variable : what it is a law of, and why.
    quantities : L_inf, A and alpha.
    profile : the same by profile likelihood; empty where it cannot be given.
    certificate : of the minimum; None where there is no fit.
    method, dof : model of errors behind sd and ci95.
    surfaces, replicates : the law of the data, and of the replicates; None where there is none.
    scatter : of runs about it.
    warnings : what a reader must know.
    """

    variable: Variable
    quantities: dict[str, Quantity] = field(default_factory=dict)
    profile: dict[str, Quantity] = field(default_factory=dict)
    certificate: Certificate | None = None
    method: str = "none"
    dof: float = np.inf
    surfaces: Surfaces | None = None
    replicates: Surfaces | None = None
    scatter: Scatter | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def draws(self) -> dict[str, Array]:
        """Replicates (R,) by column of replicates.parquet."""
        if self.replicates is None:
            return {}
        return {f"{NAME}.{name}": value for name, value in POWER_LAW.values(self.replicates.theta).items()}

    def __str__(self) -> str:
        shown = (f"{name} = {self.quantities[name]}" for name in ("alpha", "A", "L_inf") if self.quantities)
        return f"law of {self.variable.symbol} alone, {self.variable.formula}: " + ", ".join(shown)

    def to_json(self) -> dict[str, Any]:
        """Entry of results.json."""
        surface = None if self.surfaces is None else self.surfaces.theta[0].tolist()
        return {
            "variable": self.variable.symbol,
            "reason": self.variable.reason,
            "formula": self.variable.formula,
            **{name: self.quantities.get(name, Quantity(None)) for name in POWER_LAW.reported},
            "certificate": None if self.certificate is None else asdict(self.certificate),
            "method": self.method,
            "dof": self.dof,
            "errors": {"profile": self.profile} if self.profile else {},
            "surface": None if surface is None else dict(zip(POWER_LAW.parameters, surface, strict=True)),
            "scatter": None if self.scatter is None else self.scatter.to_json(),
        }


def fit_law(
    variable: Variable,
    curves: CurveSet,
    log_L_E: Array,
    settings: FitSettings,
    blocks: BlockLosses | None,
) -> LawFit:
    """Fit the law of one variable, with certificate and intervals.

    Parameters
    ----------
    variable : of which the loss is a law.
    curves : the points.
    log_L_E : (E,) ln losses of the evaluations behind them.
    settings : of the fit; the objective and the errors are those of approach 3.
    blocks : test losses by block; None where they are not known.
    """
    points = variable.points(curves)
    log_L_P = points.log_losses(log_L_E[None])[0]
    three = settings.approach3
    objective = Objective(three.objective, three.delta, three.residual)
    fitter = Fitter(points.log_N, points.log_D, objective, POWER_LAW, points.weight)
    because = f"{variable.reason}: the loss is fitted as a law of {variable.symbol} alone"
    try:
        found, certificate = fitter.point(log_L_P)
    except Undetermined as error:
        return LawFit(variable, warnings=[f"{because}, which they do not determine either: {error}"])
    warnings = [f"{because}, {variable.formula}; no a and b follow from it"]
    values = {name: float(value[0]) for name, value in POWER_LAW.values(found.surfaces.theta).items()}
    if not certificate.converged or "alpha" in certificate.at_bound:
        why = "it did not converge" if not certificate.converged else "alpha is at a bound"
        warnings.append(f"law of {variable.symbol}: no exponent: {why}")
        values = dict.fromkeys(values, float("nan"))
    if certificate.agreeing < 2:
        warnings.append(
            f"law of {variable.symbol}: only {certificate.agreeing} of {certificate.starts} starts reached"
            " the minimum"
        )
    if not certificate.has_floor:
        warnings.append(
            f"law of {variable.symbol}: no floor found: L_inf is below 2% of the lowest loss and has no"
            " interval"
        )
        values["L_inf"] = float("nan")
    method, reason = resampling.choose_method(settings.uncertainty.method, points, fitter.parameters, True)
    replicates = _replicates(method, points, fitter, log_L_P, log_L_E, found.surfaces, blocks, settings)
    fitted = None if replicates is None else fitter.replicates(
        replicates.log_L_RP, replicates.weight_RP, starts=1
    ).surfaces  # fmt: skip
    dof = np.inf if replicates is None else replicates.dof
    draws = {} if fitted is None else POWER_LAW.values(fitted.theta)
    levels = settings.uncertainty.levels
    quantities = {
        name: summarise(value, draws.get(name), method, dof, "log", levels) for name, value in values.items()
    }
    for name, digits in certificate.digits.items():
        quantities[name] = quantities[name].rounded(digits)
    profiled = {}
    if settings.uncertainty.profile and not points.is_curve and not certificate.digits:
        profiled = profile(fitter, log_L_P, found.surfaces, 0.0, None, levels)
    residual_P = log_L_P - found.surfaces.log_loss(points.log_N, points.log_D)[0]
    sigma = float(np.median(np.sort(np.abs(residual_P))[fitter.parameters :])) / 0.6745
    regular = np.abs(residual_P) <= ALL_EQUAL * sigma
    scatter = measured(points, residual_P, log_L_E, fitter.parameters, regular, blocks)
    return LawFit(
        variable,
        quantities,
        {name: profiled[name] for name in values if name in profiled and np.isfinite(values[name])},
        certificate,
        method,
        dof,
        found.surfaces,
        fitted,
        scatter,
        warnings + ([f"law of {variable.symbol}: {reason}"] if reason else []),
    )


def _replicates(
    method: str,
    points: CurveSet,
    fitter: Fitter,
    log_L_P: Array,
    log_L_E: Array,
    surface: Surfaces,
    blocks: BlockLosses | None,
    settings: FitSettings,
) -> resampling.Replicates | None:
    if method == "none":
        return None
    fitted, noise = resampling.wild_noise(points, fitter, log_L_P, surface)
    uncertainty = settings.uncertainty
    return resampling.draw(method, points, fitter.parameters, log_L_E, fitted, noise, blocks, uncertainty)
