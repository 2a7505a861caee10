"""What a solve may do to the parameters of a surface: bounds, and constraints that leave fewer of them free.

Shapes: R rows (replicates, or values of a profile), Q parameters theta of the form, F free parameters phi.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# (phi_RF, numbers of these rows) -> (theta_RQ, dtheta/dphi of shape (R, Q, F), second derivatives of
# theta_Q by phi of shape (R, Q, F, F), None where they are 0)
Constraint = Callable[[Array, Index], tuple[Array, Array, Array | None]]


@dataclass(frozen=True)
class Bounds:
    """Box that steps are projected onto: (F,) each, or (R, F) where every row has its own."""

    low: Array
    high: Array

    def of(self, index: Index) -> Bounds:
        """The box of some rows.

        Parameters
        ----------
        index : numbers of the rows.
        """
        return self if self.low.ndim == 1 else Bounds(self.low[index], self.high[index])

    def active(self, phi_RF: Array, gradient_RF: Array) -> NDArray[np.bool_]:
        """Find the parameters at a bound that the objective pushes outwards: a step leaves them there.

        Parameters
        ----------
        phi_RF : (R, F) free parameters.
        gradient_RF : (R, F) derivatives of the objective by them.

        Returns
        -------
        (R, F) bool.
        """
        outwards = ((phi_RF <= self.low) & (gradient_RF > 0)) | ((phi_RF >= self.high) & (gradient_RF < 0))
        return np.asarray(outwards)


def unconstrained(phi_RF: Array, _: Index) -> tuple[Array, Array, Array | None]:
    """Leave every parameter free: phi is theta, (R, Q).

    Parameters
    ----------
    phi_RF : (R, F).
    _ : numbers of the rows; no row has its own value.
    """
    Q = phi_RF.shape[1]
    return phi_RF, np.broadcast_to(np.eye(Q), (len(phi_RF), Q, Q)), None


@dataclass(frozen=True)
class Target:
    """A quantity t of the surface that a profile holds fixed, in the scale on which its interval is taken.

    Attributes
    ----------
    of : centred parameters (R, Q) to t (R,).
    fix : values of t, one a row, to the constraint that holds them; where two are equal, rows of both go
        together.
    reduce : centred parameters (R, Q) to those that stay free (R, F).
    bounds : of the free ones.
    low, high : where t ends.
    """

    of: Callable[[Array], Array]
    fix: Callable[[Array], Constraint]
    reduce: Callable[[Array], Array]
    bounds: Bounds
    low: float
    high: float


@dataclass(frozen=True)
class FixedColumn:
    """`Target.fix` of one parameter of the form.

    Attributes
    ----------
    column : which of the parameters.
    parameters : how many there are.
    value : the quantity (R,) to the parameter (R,).
    """

    column: int
    parameters: int
    value: Callable[[Array], Array]

    def __call__(self, t_R: Array) -> Constraint:
        """`Target.fix`; t_R: (R,) values of the quantity."""
        Q, column = self.parameters, self.column
        free = [q for q in range(Q) if q != column]
        tangent = np.eye(Q)[:, free]

        def constraint(phi: Array, index: Index) -> tuple[Array, Array, Array | None]:
            theta = np.empty((len(phi), Q))
            theta[:, free] = phi
            theta[:, column] = self.value(t_R[index])
            return theta, np.broadcast_to(tangent, (len(phi), Q, Q - 1)), None

        return constraint


def hold_column(
    column: int,
    bounds: Bounds,
    t: Callable[[Array], Array] = np.asarray,
    value: Callable[[Array], Array] = np.asarray,
) -> Target:
    """Target that is one parameter of the form, or a monotonous function of it.

    Parameters
    ----------
    column : which parameter.
    bounds : of all Q parameters.
    t : parameter (R,) to the quantity (R,); the parameter itself by default.
    value : the inverse of `t`.
    """
    return Target(
        of=lambda theta: t(theta[:, column]),
        fix=FixedColumn(column, len(bounds.low), value),
        reduce=lambda theta: np.delete(theta, column, axis=1),
        bounds=Bounds(np.delete(bounds.low, column), np.delete(bounds.high, column)),
        low=float(t(bounds.low[[column]])[0]),
        high=float(t(bounds.high[[column]])[0]),
    )


def coordinates_of(constraint: Constraint, free: int, columns: list[int]) -> dict[int, int] | None:
    """Which free parameter each parameter of the form is a linear function of.

    Parameters
    ----------
    constraint : free parameters to those of the form.
    free : how many free ones there are.
    columns : the parameters of the form to be pinned.

    Returns
    -------
    Column to the number of its free parameter; None where a column follows from none of them, or from
    several, or from one that another column follows from.
    """
    found: dict[int, int] = {}
    for column in columns:
        slopes = [constraint(np.full((1, free), at), np.array([0]))[1][0, column] for at in (1.0, 2.0)]
        moved_by = np.flatnonzero(slopes[0])
        if len(moved_by) != 1 or not np.array_equal(*slopes) or int(moved_by[0]) in found.values():
            return None
        found[column] = int(moved_by[0])
    return found


def pinned_constraint(
    constraint: Constraint, free: int, at: Mapping[int, int], value: Mapping[int, float]
) -> Constraint:
    """The same constraint with some parameters of the form held, so that fewer are free.

    Parameters
    ----------
    constraint : free parameters to those of the form.
    free : how many free ones there are.
    at : from `coordinates_of`.
    value : of each held parameter, by its column.
    """
    kept = [f for f in range(free) if f not in at.values()]

    def held(phi_RF: Array, index: Index) -> tuple[Array, Array, Array | None]:
        full = np.ones((len(phi_RF), free))
        full[:, kept] = phi_RF
        with np.errstate(all="ignore"):  # at a first guess, of which only the held rows are used
            theta, tangent, _ = constraint(full.copy(), index)
        for column, f in at.items():
            full[:, f] += (value[column] - theta[:, column]) / tangent[:, column, f]
        theta, tangent, bend = constraint(full, index)
        theta = theta.copy()
        theta[:, list(at)] = [value[column] for column in at]  # to the last bit
        bend = None if bend is None else bend[:, :, kept][:, :, :, kept]
        return theta, tangent[:, :, kept], bend

    return held
