"""Surfaces of pretrained networks, beside E + A / N^alpha + B / D^beta of those from scratch.

Shapes: R replicates, P points, Q parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.surface import Bend, SurfaceForm

Array = NDArray[np.float64]

ADDITIVE = SurfaceForm.parameters


class WithExtraData(SurfaceForm):
    """L = E + A / N^alpha + B / (D + T N^q)^beta: pretraining counts as T N^q more jets.

    Hernandez et al., arXiv:2102.01293, call D_T = T N^q the effective data transferred.
    """

    formula = "L_inf + A / N^alpha + B / (D + T N^q)^beta"
    parameters = (*ADDITIVE, "log_T", "q")
    limits: Mapping[str, tuple[float, float]] = {"q": (-4.0, 4.0)}

    def moved(self, theta_RQ: Array, dx: float, dy: float) -> Array:
        """See `SurfaceForm.moved`: D and D_T are divided by the same number."""
        moved = super().moved(theta_RQ, dx, dy)
        moved[:, 5] += theta_RQ[:, 6] * dx - dy
        return moved

    def derivatives(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> tuple[Array, Array, Bend]:
        """See `SurfaceForm.derivatives`.

        The third term is exp(u) with u = ln B - beta z, z = ln(D + D_T); w is the share D_T / (D + D_T).
        """
        log_A, log_B, log_E, alpha, beta, log_T, q = theta_RQ.T[:, :, None]
        x_1P = x_RP if x_RP.ndim > 1 else x_RP[None]
        extra = log_T + q * x_1P
        z_RP = np.logaddexp(y_RP, extra)
        w_RP = np.exp(extra - z_RP)
        J_RQP = np.empty((len(theta_RQ), 7, x_RP.shape[-1]))
        J_RQP[:, 0] = np.exp(log_A - alpha * x_RP)
        J_RQP[:, 1] = np.exp(log_B - beta * z_RP)
        J_RQP[:, 2] = np.exp(log_E)
        loss_RP = J_RQP[:, :3].sum(axis=1)
        J_RQP[:, :3] /= loss_RP[:, None]
        data_RP = J_RQP[:, 1]
        J_RQP[:, 3] = -x_RP * J_RQP[:, 0]
        J_RQP[:, 4] = -z_RP * data_RP
        J_RQP[:, 5] = -beta * w_RP * data_RP
        J_RQP[:, 6] = x_RP * J_RQP[:, 5]

        def bend(weight_RP: Array) -> Array:
            first = (J_RQP @ weight_RP[:, :, None])[:, :, 0]
            second = np.zeros((len(theta_RQ), 7, 7))
            second[:, [0, 1, 2], [0, 1, 2]] = first[:, :3]
            second[:, [0, 3], [3, 0]] = first[:, [3]]
            second[:, 3, 3] = -((J_RQP[:, 3] * x_RP) * weight_RP).sum(axis=1)
            # the third term: exp(u) (u_i u_j + u_ij), u = ln B - beta z
            on_RP = weight_RP * data_RP
            slopes = np.stack([np.ones_like(z_RP), -z_RP, -beta * w_RP, -beta * w_RP * x_RP], axis=1)
            block = (slopes * on_RP[:, None]) @ slopes.transpose(0, 2, 1)
            turn = -beta * w_RP * (1 - w_RP) * on_RP
            for power, (i, j) in enumerate([(2, 2), (2, 3), (3, 3)]):
                extra_ij = (turn * x_RP**power).sum(axis=1)
                block[:, i, j] += extra_ij
                if i != j:
                    block[:, j, i] += extra_ij
            for column, factor in ((2, 1.0), (3, x_RP)):
                mixed = -(w_RP * factor * on_RP).sum(axis=1)
                block[:, 1, column] += mixed
                block[:, column, 1] += mixed
            at = np.array([1, 4, 5, 6])
            second[:, at[:, None], at] += block
            second[:, 1, 1] -= first[:, 1]  # counted with the first three
            return second

        return np.log(loss_RP), J_RQP, bend

    def log_loss(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> Array:
        """Ln L (R, P), also where a term by itself would overflow."""
        log_A, log_B, log_E, alpha, beta, log_T, q = theta_RQ.T[:, :, None]
        z_RP = np.logaddexp(y_RP, log_T + q * x_RP)
        return np.asarray(np.logaddexp(np.logaddexp(log_A - alpha * x_RP, log_B - beta * z_RP), log_E))


class Tilted(SurfaceForm):
    """L = E + A / N^alpha + B / (N^q D^beta): the term of the data depends on size too.

    Zhang et al., arXiv:2402.17193, find fine-tuning data and size (or pretraining data) to multiply.
    """

    formula = "L_inf + A / N^alpha + B / (N^q D^beta)"
    parameters = (*ADDITIVE, "q")
    limits: Mapping[str, tuple[float, float]] = {"q": (-4.0, 4.0)}

    def moved(self, theta_RQ: Array, dx: float, dy: float) -> Array:
        """See `SurfaceForm.moved`."""
        moved = super().moved(theta_RQ, dx, dy)
        moved[:, 1] -= theta_RQ[:, 5] * dx
        return moved

    def derivatives(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> tuple[Array, Array, Bend]:
        """See `SurfaceForm.derivatives`: three terms, each the exponential of a linear function."""
        log_A, log_B, log_E, alpha, beta, q = theta_RQ.T[:, :, None]
        J_RQP = np.empty((len(theta_RQ), 6, x_RP.shape[-1]))
        J_RQP[:, 0] = np.exp(log_A - alpha * x_RP)
        J_RQP[:, 1] = np.exp(log_B - beta * y_RP - q * x_RP)
        J_RQP[:, 2] = np.exp(log_E)
        loss_RP = J_RQP[:, :3].sum(axis=1)
        J_RQP[:, :3] /= loss_RP[:, None]
        J_RQP[:, 3] = -x_RP * J_RQP[:, 0]
        J_RQP[:, 4] = -y_RP * J_RQP[:, 1]
        J_RQP[:, 5] = -x_RP * J_RQP[:, 1]

        def bend(weight_RP: Array) -> Array:
            # a term and its derivatives are again the term, times powers of x and y (`forms.Separate`)
            first = (J_RQP @ weight_RP[:, :, None])[:, :, 0]
            second = np.zeros((len(theta_RQ), 6, 6))
            second[:, [0, 1, 2], [0, 1, 2]] = first[:, :3]
            for term, column in ((0, 3), (1, 4), (1, 5)):
                second[:, term, column] = second[:, column, term] = first[:, column]
            on_x = -((J_RQP[:, 3:] * weight_RP[:, None]) * x_RP.reshape(-1, 1, x_RP.shape[-1])).sum(axis=2)
            second[:, 3, 3], second[:, 5, 5] = on_x[:, 0], on_x[:, 2]
            second[:, 4, 5] = second[:, 5, 4] = on_x[:, 1]
            second[:, 4, 4] = -((J_RQP[:, 4] * y_RP) * weight_RP).sum(axis=1)
            return second

        return np.log(loss_RP), J_RQP, bend

    def log_loss(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> Array:
        """Ln L (R, P), also where a term by itself would overflow."""
        log_A, log_B, log_E, alpha, beta, q = theta_RQ.T[:, :, None]
        of_D = log_B - beta * y_RP - q * x_RP
        return np.asarray(np.logaddexp(np.logaddexp(log_A - alpha * x_RP, of_D), log_E))
