"""What a solve may do to the parameters of a surface: bounds, and constraints that leave fewer of them free.

Shapes: R rows (replicates, or values of a profile), Q parameters theta of the form, F free parameters phi.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """Box that steps are projected onto; (F,) each."""

    low: Array
    high: Array

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
    fix : values of t, one a row, to the constraint that holds them.
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
    Q = len(bounds.low)
    free = [q for q in range(Q) if q != column]
    tangent = np.eye(Q)[:, free]

    def fix(t_R: Array) -> Constraint:
        def constraint(phi: Array, index: Index) -> tuple[Array, Array, Array | None]:
            theta = np.empty((len(phi), Q))
            theta[:, free] = phi
            theta[:, column] = value(t_R[index])
            return theta, np.broadcast_to(tangent, (len(phi), Q, Q - 1)), None

        return constraint

    return Target(
        of=lambda theta: t(theta[:, column]),
        fix=fix,
        reduce=lambda theta: np.delete(theta, column, axis=1),
        bounds=Bounds(np.delete(bounds.low, column), np.delete(bounds.high, column)),
        low=float(t(bounds.low[[column]])[0]),
        high=float(t(bounds.high[[column]])[0]),
    )
