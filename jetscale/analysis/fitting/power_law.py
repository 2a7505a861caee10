"""Laws of one variable, L = L_inf + A / x^alpha, where x is N, D or C: all that some tables can carry.

A table of one data size says how the loss falls with N and nothing of D; where D is one multiple of N in
every run, the two cannot be told apart and the loss is a law of C. Such a table is fitted by this form, on
which everything else of a fit (solver, certificate, replicates, profiles) works as on a surface: x stands
where ln N stands there.

Shapes: R replicates, P points, G exponents of the grid, Q = 3 parameters (ln A, ln E, alpha).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.certificate import COLLINEAR
from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.fitting.numbers import distinct
from jetscale.analysis.fitting.starts import EQUAL, EXPONENTS_G
from jetscale.analysis.fitting.surface import Bend, SurfaceForm

Array = NDArray[np.float64]

FEWEST = 3  # values of x


class PowerLaw(SurfaceForm):
    """L = E + A exp(-alpha x) with x = ln N, ln D or ln C; y is not used."""

    formula = "L_inf + A / x^alpha"
    parameters = ("log_A", "log_E", "alpha")
    distinct = (FEWEST, 1)

    def derivatives(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> tuple[Array, Array, Bend]:  # noqa: ARG002 (the interface has it)
        """See `SurfaceForm.derivatives`."""
        log_A, log_E, alpha = theta_RQ.T[:, :, None]
        J_RQP = np.empty((len(theta_RQ), 3, x_RP.shape[-1]))
        J_RQP[:, 0] = np.exp(log_A - alpha * x_RP)
        J_RQP[:, 1] = np.exp(log_E)
        loss_RP = J_RQP[:, :2].sum(axis=1)
        J_RQP[:, :2] /= loss_RP[:, None]
        np.multiply(J_RQP[:, 0], -x_RP, out=J_RQP[:, 2])

        def bend(weight_RP: Array) -> Array:
            first = (J_RQP @ weight_RP[:, :, None])[:, :, 0]
            second = np.zeros((len(theta_RQ), 3, 3))
            second[:, [0, 1], [0, 1]] = first[:, :2]
            second[:, [0, 2], [2, 0]] = first[:, [2]]
            second[:, 2, 2] = -((J_RQP[:, 2] * x_RP) * weight_RP).sum(axis=1)
            return second

        return np.log(loss_RP), J_RQP, bend

    def log_loss(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> Array:  # noqa: ARG002 (the interface has it)
        """Ln L (R, P), also where the power law by itself would overflow."""
        log_A, log_E, alpha = theta_RQ.T[:, :, None]
        return np.asarray(np.logaddexp(log_A - alpha * x_RP, log_E))

    def moved(self, theta_RQ: Array, dx: float, dy: float) -> Array:  # noqa: ARG002 (the interface has it)
        """Parameters (R, 3) of the law in x + dx."""
        moved = theta_RQ.copy()
        moved[:, 0] -= theta_RQ[:, 2] * dx
        return moved

    def starts(self, x_P: Array, y_P: Array, log_L_RP: Array, weight_RP: Array, count: int) -> Array:  # noqa: ARG002 (the interface has it)
        """Best nodes of a grid in alpha, at which the law is linear in A and E; (R, count, 3)."""
        L_RP = np.exp(log_L_RP)
        w_RP = np.broadcast_to(weight_RP, np.broadcast_shapes(weight_RP.shape, L_RP.shape)) / L_RP**2
        f_PG = np.exp(-np.outer(x_P, EXPONENTS_G))
        total = w_RP.sum(axis=1, keepdims=True)
        t, tt = (w_RP * L_RP).sum(axis=1, keepdims=True), (w_RP * L_RP**2).sum(axis=1, keepdims=True)
        f, tf = w_RP @ f_PG, (w_RP * L_RP) @ f_PG
        ff = w_RP @ f_PG**2 - f * f / total
        A = (tf - t * f / total) / ff
        E = (t - A * f) / total
        square = np.where((A > 0) & (E > 0), tt - t * t / total - A**2 * ff, np.inf)
        row, node = np.arange(len(A)), np.arange(len(EXPONENTS_G))
        lowest = np.broadcast_to(np.log(L_RP.min(axis=1)), len(A))
        starts = np.empty((len(A), count, 3))
        for k in range(count):
            best = (square <= square.min(axis=1, keepdims=True) + EQUAL * total).argmax(axis=1)
            found = np.isfinite(square[row, best])
            guess = np.stack([lowest - 1.0, lowest - 0.5, 0.1 + 0.1 * k + 0 * lowest], axis=1)
            A_R, E_R = (np.where(found, values[row, best], 1.0) for values in (A, E))
            theta = np.stack([np.log(A_R), np.log(E_R), EXPONENTS_G[best]], axis=1)
            starts[:, k] = np.where(found[:, None], theta, guess)
            square = np.where(np.abs(node - best[:, None]) < 2, np.inf, square)
        return starts


POWER_LAW = PowerLaw()


@dataclass(frozen=True)
class Variable:
    """What the loss of a table is a law of.

    Attributes
    ----------
    symbol : N, D or C.
    reason : why it is not a law of N and D, in words.
    """

    symbol: str
    reason: str

    @property
    def formula(self) -> str:
        """The law, in words of its parameters."""
        return f"L_inf + A / {self.symbol}^alpha"

    def points(self, curves: CurveSet) -> CurveSet:
        """The same points with the ln of the variable where ln N stands, and 0 for ln D.

        Parameters
        ----------
        curves : the points.
        """
        x = {"N": curves.log_N, "D": curves.log_D, "C": curves.log_C}[self.symbol]
        return replace(curves, log_N=x, log_D=np.zeros_like(x))


def variable_of(curves: CurveSet, absent: tuple[str, ...], sample: str) -> Variable | None:
    """The one variable that these points let the loss be a law of; None where it is one of N and D.

    Parameters
    ----------
    curves : the points.
    absent : of N, D and C, those that the table does not give.
    sample : what D counts.
    """
    given = [symbol for symbol in ("N", "D", "C") if symbol not in absent]
    if len(given) == 1:
        return Variable(given[0], f"the table gives {given[0]} alone")
    values_N, values_D = distinct(curves.log_N), distinct(curves.log_D)
    if values_D == 1 and values_N >= FEWEST:
        return Variable("N", f"D is {np.exp(np.median(curves.log_D)):.4g} {sample}s in every run")
    if values_N == 1 and values_D >= FEWEST:
        return Variable("D", f"N is {np.exp(np.median(curves.log_N)):.4g} in every run")
    if min(values_N, values_D) < FEWEST:
        return None
    ratio = float(np.exp(np.median(curves.log_D - curves.log_N)))
    if np.corrcoef(curves.log_N, curves.log_D)[0, 1] > COLLINEAR:
        return Variable("C", f"D follows N in every run (D / N is {ratio:.4g} in the middle)")
    return None
