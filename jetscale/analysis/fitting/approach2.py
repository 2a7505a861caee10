"""Approach 2, as every subset is fitted by it: `isoflop` finds the slices and their vertices.

Shapes: R replicates, P points, K slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.approach import Approach
from jetscale.analysis.fitting.isoflop import (
    APART,
    EDGE,
    Profiles,
    Slice,
    Vertex,
    check_slices,
    copies,
    find_profiles,
    power_law,
    vertices,
    windowed,
)
from jetscale.analysis.fitting.numbers import distinct, same_values
from jetscale.analysis.fitting.task import Task

Array = NDArray[np.float64]

MIN_SLICES = 3  # two vertices always lie on a line


@dataclass(frozen=True)
class Slices:
    """The slices of a subset, found once.

    Attributes
    ----------
    profiles : the slices, restricted to the window about the lowest loss.
    vertices_N, vertices_D : each slice's vertex in ln N and ln D, from the data.
    """

    profiles: Profiles
    vertices_N: list[Vertex]
    vertices_D: list[Vertex]

    @property
    def used(self) -> list[Slice]:
        """Slices with a vertex in ln N and in ln D."""
        pairs = zip(self.profiles.slices, self.vertices_N, self.vertices_D, strict=True)
        return [one for one, in_N, in_D in pairs if not in_N.problem and not in_D.problem]

    def problem(self) -> str:
        """Why too few of them can be used."""
        if self.profiles.reason:
            return f"no exponent: {self.profiles.reason}"
        problems = [vertex.problem for vertex in self.vertices_N if vertex.problem]
        at_edge = sum(EDGE in problem for problem in problems)
        used, total = len(self.used), len(self.vertices_N)
        if 2 * at_edge > len(problems):
            return f"no exponent: {EDGE} in {at_edge} of {total} slices; {used} usable, {MIN_SLICES} needed"
        example = f" ({problems[0]})" if problems else ""
        return f"no exponent: {used} of {total} slices usable, {MIN_SLICES} needed{example}"


class IsoflopApproach(Approach):
    """Parabolas of ln L at fixed C."""

    label = "approach 2"
    title = "isoFLOP parabolas"
    grid_bias = "parabola_bias"

    def prepare(self, task: Task) -> Slices:
        """Find and check the slices."""
        two, c = task.settings.approach2, task.curves
        regular = np.flatnonzero(task.regular)
        size = same_values(c.log_N)
        if 2 * len(np.unique(size)) > len(size):  # hardly any size comes twice: no curves of it
            size = c.log_N
        copy = c.cell if c.is_curve else copies(size, c.log_C - (c.log_N - size))
        profiles = find_profiles(size[regular], c.log_C[regular], copy[regular], two, c.is_curve)
        slices = []
        for one in profiles.slices:
            one = replace(one, low=regular[one.low], high=regular[one.high])
            chosen = windowed(one.at(c.log_N), one.at(task.log_L_P), two.window)
            slices.append(Slice(one.log_C, one.low[chosen], one.high[chosen], one.fraction[chosen]))
        vertices_N, vertices_D = (
            check_slices(slices, x_P, task.log_L_P, 2, two.min_points) for x_P in (c.log_N, c.log_D)
        )
        return Slices(replace(profiles, slices=slices), vertices_N, vertices_D)

    def draws(self, task: Task, log_L_RP: Array, weight_RP: Array) -> dict[str, Array]:
        """See `Approach.draws`: by parabolas and by cubics, with intercepts, and a + b."""
        log_C_K = np.array([one.log_C for one in slices_of(task).used])
        draws: dict[str, Array] = {}
        for degree, prefix in ((2, ""), (3, "cubic_")):
            in_N, in_D = _vertices(task, log_L_RP, weight_RP, degree)
            draws[f"{prefix}a"], draws[f"{prefix}log_cN"] = power_law(log_C_K, in_N)
            draws[f"{prefix}b"], draws[f"{prefix}log_cD"] = power_law(log_C_K, in_D)
        draws["a_plus_b"] = draws["a"] + draws["b"]
        return draws

    def point(self, task: Task) -> tuple[dict[str, float], list[str]]:
        """See `Approach.point`; nothing of fewer than three slices."""
        values, warnings = super().point(task)
        slices = slices_of(task)
        if len(slices.used) < MIN_SLICES:
            warnings.append(f"approach 2: {slices.problem()}")
            values = dict.fromkeys(values, float("nan"))
        return values, warnings

    def describe(self, task: Task) -> dict[str, Any]:
        """Every slice, with the reason where it is not used."""
        found = slices_of(task)
        slices = []
        for one, in_N, in_D in zip(found.profiles.slices, found.vertices_N, found.vertices_D, strict=True):
            log_N = one.at(task.curves.log_N)
            slices.append(
                {
                    "C": float(np.exp(one.log_C)),
                    "sizes": distinct(log_N, APART),
                    "N_range": float(np.exp(np.ptp(log_N))),
                    "N_star": float(np.exp(in_N.position)),
                    "D_star": float(np.exp(in_D.position)),
                    "problem": in_N.problem or in_D.problem,
                    "flag": in_N.flag,
                }
            )
        return {
            "slices": slices,
            "slices_used": len(found.used),
            "interpolated": found.profiles.interpolated,
        }

    def cells(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Sum of the exponents, cubics, bias and slices."""
        return {
            "a + b": entry["a_plus_b"],
            "a, cubic": entry["cubic_a"],
            "predicted bias of a": entry.get("parabola_bias_a"),
            "slices used": f"{entry['slices_used']} of {len(entry['slices'])}",
        }


def slices_of(task: Task) -> Slices:
    """The slices that approach 2 prepared."""
    found = task.prepared["approach2"]
    assert isinstance(found, Slices)
    return found


def _vertices(task: Task, log_L_RP: Array, weight_RP: Array, degree: int) -> tuple[Array, Array]:
    """Vertices in ln N and ln D of the used slices, each (R, K)."""
    if task.curves.weight is not None:
        weight_RP = weight_RP * task.curves.weight
    used, min_points = slices_of(task).used, task.settings.approach2.min_points
    in_N, in_D = (
        vertices(used, x_P, log_L_RP, weight_RP, degree, min_points)
        for x_P in (task.curves.log_N, task.curves.log_D)
    )
    return in_N, in_D
