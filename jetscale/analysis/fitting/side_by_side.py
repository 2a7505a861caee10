"""Several sets of points of one form and objective, solved as one: a small solve costs as much as its calls.

Shapes: K sets, P points (of the largest set), R starts, F free parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.constraints import Bounds, Constraint, Index
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.solver import Solution, solve
from jetscale.analysis.fitting.surface import SurfaceForm

Array = NDArray[np.float64]
Points = tuple[Array, Array, Array, Array]  # centred ln N and ln D, ln L and weights, (P,) each


@dataclass(frozen=True)
class SideBySide:
    """Sets of points; where one has fewer than another, the rest are points of no weight.

    Attributes
    ----------
    form, objective : of all.
    x, y : (P,) centred ln N and ln D where all sets have the same, else (K, P).
    log_L, weight : (K, P).
    """

    form: SurfaceForm
    objective: Objective
    x: Array
    y: Array
    log_L: Array
    weight: Array

    @classmethod
    def of(cls, form: SurfaceForm, objective: Objective, sets: Sequence[Points]) -> SideBySide:
        """Put K sets of points together.

        Parameters
        ----------
        form, objective : of all.
        sets : the points.
        """
        x, y, log_L, weight = np.zeros((4, len(sets), max(len(points[0]) for points in sets)))
        for k, points in enumerate(sets):
            for values, into in zip(points, (x, y, log_L, weight), strict=True):
                into[k, : len(values)] = values
        if (x == x[0]).all() and (y == y[0]).all():
            x, y = x[0], y[0]
        return cls(form, objective, x, y, log_L, weight)

    def solve(
        self, row: Index, start: Array, constraint: Constraint, bounds: Bounds, tolerance: float = 1e-9
    ) -> Solution:
        """`solver.solve` from starts for different sets.

        Parameters
        ----------
        row : (R,) number of the set of every start.
        start : (R, F).
        constraint, bounds : of all starts; bounds (R, F).
        tolerance : as in `solver.solve`.
        """
        x, y = (axis if axis.ndim == 1 else axis[row] for axis in (self.x, self.y))
        log_L, weight = (value if len(value) == 1 else value[row] for value in (self.log_L, self.weight))
        return solve(
            start, x, y, log_L, weight, self.objective, self.form, constraint, bounds, tolerance=tolerance
        )
