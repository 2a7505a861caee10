"""One subset, fitted by all three approaches at once: for the data and for every replicate alike.

Shapes: R replicates, P points, K slices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.fitting.envelope import Envelope, fit_envelope, problems
from jetscale.analysis.fitting.isoflop import (
    Profiles,
    Slice,
    Vertex,
    check_slice,
    copies,
    find_profiles,
    polynomial_vertices,
    power_law,
    windowed,
)
from jetscale.analysis.fitting.numbers import beyond_rounding
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.outliers import Outliers
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.surface_fit import Fitter
from jetscale.analysis.settings import FitSettings

Array = NDArray[np.float64]

# what every replicate yields, each (R,); "approach2.cubic_a" and the like are further estimates of the same
Draws = dict[str, Array]


@dataclass(frozen=True)
class Task:
    """A subset's points and settings, ready to be fitted again and again.

    Attributes
    ----------
    name : subset.
    curves : its points.
    log_L_P : ln loss of the points themselves.
    profiles : approach 2's slices, restricted to the window.
    vertices_N, vertices_D : each slice's vertex in ln N and ln D, from the data.
    settings : of the fit.
    cost : C of N and D.
    outliers : points that approach 2 and the test of fit leave out, and approach 1 those below the fit.
    """

    name: str
    curves: CurveSet
    log_L_P: Array
    profiles: Profiles
    vertices_N: list[Vertex]
    vertices_D: list[Vertex]
    settings: FitSettings
    cost: Cost
    outliers: Outliers

    @property
    def fitter(self) -> Fitter:
        """Approach 3 on these points."""
        return fitter_of(self.curves, self.settings)

    @property
    def regular(self) -> NDArray[np.bool_]:
        """Points that are no outliers, (P,)."""
        return ~self.outliers.points

    def exponents(self, surfaces: Surfaces) -> tuple[Array, Array]:
        """A and b of surfaces, (R,), for the cost and over the budgets of these points."""
        log_C = self.curves.log_C
        return self.cost.exponents(surfaces, float(log_C.min()), float(log_C.max()))

    @property
    def used_slices(self) -> list[Slice]:
        """Slices with a vertex in ln N and in ln D."""
        pairs = zip(self.profiles.slices, self.vertices_N, self.vertices_D, strict=True)
        return [one for one, in_N, in_D in pairs if not in_N.problem and not in_D.problem]


def fitter_of(curves: CurveSet, settings: FitSettings) -> Fitter:
    """Approach 3 on the points of `curves`."""
    three = settings.approach3
    objective = Objective(three.objective, three.delta, three.residual)
    return Fitter(curves.log_N, curves.log_D, objective, tied=three.form == "tied")


def prepare(
    name: str, curves: CurveSet, log_L_P: Array, settings: FitSettings, cost: Cost, outliers: Outliers
) -> Task:
    """Find and check the slices of approach 2."""
    two, c = settings.approach2, curves
    regular = np.flatnonzero(~outliers.points)
    copy = c.cell if c.is_curve else copies(c.log_N, c.log_C)
    profiles = find_profiles(c.log_N[regular], c.log_C[regular], copy[regular], two, c.is_curve)
    slices = []
    for one in profiles.slices:
        one = replace(one, low=regular[one.low], high=regular[one.high])
        chosen = windowed(one.at(c.log_N), one.at(log_L_P), two.window)
        slices.append(Slice(one.log_C, one.low[chosen], one.high[chosen], one.fraction[chosen]))
    vertices = [
        [check_slice(one.at(x_P), one.at(log_L_P), 2, two.min_points) for one in slices]
        for x_P in (c.log_N, c.log_D)
    ]
    profiles = replace(profiles, slices=slices)
    return Task(name, c, log_L_P, profiles, vertices[0], vertices[1], settings, cost, outliers)


def fit_profiles(task: Task, log_L_RP: Array, weight_RP: Array, degree: int) -> tuple[Array, Array]:
    """Vertices in ln N and ln D of the used slices, each (R, K)."""
    found = []
    for x_P in (task.curves.log_N, task.curves.log_D):
        columns = [
            polynomial_vertices(
                one.at(x_P),
                one.at(log_L_RP),
                one.weights(weight_RP),
                degree,
                task.settings.approach2.min_points,
            )
            for one in task.used_slices
        ]
        replicates = max(len(log_L_RP), len(weight_RP))
        found.append(np.stack(columns, axis=1) if columns else np.empty((replicates, 0)))
    return found[0], found[1]


def profile_draws(task: Task, log_L_RP: Array, weight_RP: Array) -> Draws:
    """Approach 2 by parabolas and by cubics."""
    log_C_K = np.array([one.log_C for one in task.used_slices])
    draws: Draws = {}
    for degree, prefix in ((2, "approach2."), (3, "approach2.cubic_")):
        in_N, in_D = fit_profiles(task, log_L_RP, weight_RP, degree)
        draws[f"{prefix}a"], draws[f"{prefix}log_cN"] = power_law(log_C_K, in_N)
        draws[f"{prefix}b"], draws[f"{prefix}log_cD"] = power_law(log_C_K, in_D)
    draws["approach2.a_plus_b"] = draws["approach2.a"] + draws["approach2.b"]
    return draws


def _envelope(task: Task, log_L_RP: Array, weight_RP: Array) -> Envelope:
    one, c = task.settings.approach1, task.curves
    inner = c.bracketed if c.is_curve else None
    weight_RP = weight_RP * ~task.outliers.below
    return fit_envelope(c.log_N, c.log_D, c.log_C, log_L_RP, weight_RP, one.envelope, one.bins, inner)


def envelope_draws(task: Task, log_L_RP: Array, weight_RP: Array) -> Draws:
    """Approach 1."""
    envelope = _envelope(task, log_L_RP, weight_RP)
    return {
        "approach1.a": envelope.a,
        "approach1.b": envelope.b,
        "approach1.log_cN": envelope.log_cN,
        "approach1.log_cD": envelope.log_cD,
    }


def grid_bias(task: Task, surface: Surfaces) -> dict[str, float]:
    """Errors of a and b by approaches 1 and 2 on this grid if `surface` were the truth.

    A parabola is not the profile of the surface, and sizes come in steps.
    """
    smooth = surface.log_loss(task.curves.log_N, task.curves.log_D)
    ones = np.ones_like(smooth)
    found = envelope_draws(task, smooth, ones) | profile_draws(task, smooth, ones)
    a, b = task.exponents(surface)
    true = {"a": float(a[0]), "b": float(b[0])}
    return {
        f"approach{number}.{name}": beyond_rounding(float(found[f"approach{number}.{name}"][0]) - value)
        for number in (1, 2)
        for name, value in true.items()
    }


def envelope_counts(task: Task) -> dict[str, int]:
    """How many points, and how many runs or sizes, make the envelope of the data."""
    member = envelope_members(task)
    return {"points": int(member.sum()), "runs": len(np.unique(task.curves.cell[member]))}


def envelope_members(task: Task) -> NDArray[np.bool_]:
    """Points of the data on the envelope, (P,)."""
    ones = np.ones((1, len(task.log_L_P)))
    return np.asarray(_envelope(task, task.log_L_P[None], ones).member_RP[0])


def envelope_problem(task: Task) -> str:
    """Why the envelope of the data gives no exponent; "" where it gives one."""
    c, member = task.curves, envelope_members(task)[None]
    inner = c.bracketed if c.is_curve else None
    return problems(c.log_N, c.log_D, c.log_C, member, inner, ~task.outliers.below[None])[0]


def surface_draws(task: Task, surfaces: Surfaces) -> Draws:
    """Approach 3's parameters and exponents by their names in results.json."""
    a, b = task.exponents(surfaces)
    return {
        "approach3.L_inf": np.exp(surfaces.log_E),
        "approach3.A": np.exp(surfaces.log_A),
        "approach3.B": np.exp(surfaces.log_B),
        "approach3.alpha": surfaces.alpha,
        "approach3.beta": surfaces.beta,
        "approach3.a": a,
        "approach3.b": b,
    }


def surfaces_of(draws: Draws) -> Surfaces:
    """Inverse of `surface_draws`."""
    log_A, log_B, log_E = (np.log(draws[f"approach3.{name}"]) for name in ("A", "B", "L_inf"))
    return Surfaces(log_A, log_B, log_E, draws["approach3.alpha"], draws["approach3.beta"])


def fit_jointly(task: Task, log_L_RP: Array, weight_RP: Array, *, surface: bool) -> Draws:
    """All approaches on every replicate; `surface`: whether approach 3 can be fitted at all."""
    draws = envelope_draws(task, log_L_RP, weight_RP) | profile_draws(task, log_L_RP, weight_RP)
    if surface:
        fits = task.fitter.replicates(log_L_RP, weight_RP, starts=1)
        draws |= surface_draws(task, fits.surfaces) | {"approach3.objective": fits.objective}
    return draws
