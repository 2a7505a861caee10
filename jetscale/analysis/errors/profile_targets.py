"""What a profile holds fixed: a, alpha, beta, L_inf or N*, each as a constraint on the surface's parameters.

Parameters are those of the centred surface. Shapes: R rows, each with a value t of the quantity; F = 4 free
parameters phi.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.solver import Bounds, Constraint, Index
from jetscale.analysis.fitting.surface import Surfaces

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """A quantity t of the surface, in the scale on which its interval is taken.

    Attributes
    ----------
    of : centred parameters (R, 5) to t (R,).
    fix : values of t, one a row, to the constraint that holds them.
    reduce : centred parameters (R, 5) to those that stay free (R, 4).
    bounds : of the free ones.
    low, high : where t ends.
    """

    of: Callable[[Array], Array]
    fix: Callable[[Array], Constraint]
    reduce: Callable[[Array], Array]
    bounds: Bounds
    low: float
    high: float


def targets(bounds: Bounds, reach: float) -> dict[str, Target]:
    """Return the quantities that are profiled, by name.

    Parameters
    ----------
    bounds : of the five centred parameters.
    reach : centred ln N + ln D of the budget of N*; "N_star" is its centred ln N*.
    """
    low, high = bounds.low, bounds.high

    def without(column: int) -> Callable[[Array], Array]:
        return lambda theta: np.delete(theta, column, axis=1)

    def held(column: int, t: Callable[[Array], Array], value: Callable[[Array], Array]) -> Target:
        ends = t(bounds.low[None]), t(bounds.high[None])
        kept = Bounds(np.delete(low, column), np.delete(high, column))
        return Target(t, _held(column, value), without(column), kept, float(ends[0][0]), float(ends[1][0]))

    def total(theta: Array) -> Array:
        return np.column_stack([theta[:, :3], theta[:, 3] + theta[:, 4]])

    def optimum(theta: Array) -> Array:
        return np.asarray(Surfaces.from_theta(theta).optimum(np.array([reach]), 0.0)[0][:, 0])

    sums = Bounds(total(low[None])[0], total(high[None])[0])
    return {
        "a": Target(
            lambda theta: theta[:, 4] / (theta[:, 3] + theta[:, 4]), _held_ratio, total, sums, 1e-3, 1 - 1e-3
        ),
        "alpha": held(3, lambda theta: theta[:, 3], lambda t: t),
        "beta": held(4, lambda theta: theta[:, 4], lambda t: t),
        "L_inf": held(2, lambda theta: np.exp(theta[:, 2]), np.log),
        "N_star": Target(optimum, _held_optimum(reach), without(0), Bounds(low[1:], high[1:]), -60.0, 60.0),
    }


def _held(column: int, value: Callable[[Array], Array]) -> Callable[[Array], Constraint]:
    """Constraint that holds one column of theta at value(t)."""
    free = [q for q in range(5) if q != column]
    tangent = np.eye(5)[:, free]

    def fix(t_R: Array) -> Constraint:
        def constraint(phi: Array, index: Index) -> tuple[Array, Array, Array | None]:
            theta = np.empty((len(phi), 5))
            theta[:, free] = phi
            theta[:, column] = value(t_R[index])
            return theta, np.broadcast_to(tangent, (len(phi), 5, 4)), None

        return constraint

    return fix


def _held_ratio(t_R: Array) -> Constraint:
    """Hold a = beta / (alpha + beta); phi = ln A, ln B, ln E, alpha + beta."""

    def constraint(phi: Array, index: Index) -> tuple[Array, Array, Array | None]:
        a = t_R[index]
        theta = np.column_stack([phi[:, :3], (1 - a) * phi[:, 3], a * phi[:, 3]])
        tangent = np.zeros((len(phi), 5, 4))
        tangent[:, [0, 1, 2], [0, 1, 2]] = 1
        tangent[:, 3, 3], tangent[:, 4, 3] = 1 - a, a
        return theta, tangent, None

    return constraint


def _held_optimum(reach: float) -> Callable[[Array], Constraint]:
    """Hold centred ln N* where ln N + ln D = reach (centred); phi = ln B, ln E, alpha, beta.

    At the optimum ln alpha + ln A - alpha x = ln beta + ln B - beta y gives ln A.
    """

    def fix(t_R: Array) -> Constraint:
        def constraint(phi: Array, index: Index) -> tuple[Array, Array, Array | None]:
            x, (log_B, log_E, alpha, beta) = t_R[index], phi.T
            y = reach - x
            log_A = log_B + np.log(beta / alpha) + alpha * x - beta * y
            tangent = np.zeros((len(phi), 5, 4))
            tangent[:, [1, 2, 3, 4], [0, 1, 2, 3]] = 1
            tangent[:, 0, 0], tangent[:, 0, 2], tangent[:, 0, 3] = 1, x - 1 / alpha, 1 / beta - y
            bend = np.zeros((len(phi), 5, 4, 4))
            bend[:, 0, 2, 2], bend[:, 0, 3, 3] = 1 / alpha**2, -1 / beta**2
            return np.column_stack([log_A, log_B, log_E, alpha, beta]), tangent, bend

        return constraint

    return fix
