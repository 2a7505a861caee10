"""The two forms of the loss surface that are fitted, with their first and second derivatives.

Shapes: R replicates, P points, Q = 5 parameters (ln A, ln B, ln E, alpha, beta).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# parameters (R, Q), x and y (P,) -> ln L (R, P), its derivatives (R, Q, P), and what sums, over the points
# with weights (R, P), the second derivatives of L divided by L: (R, Q, Q)
Bend = Callable[[Array], Array]
Model = Callable[[Array, Array, Array], tuple[Array, Array, Bend]]


def additive(theta_RQ: Array, x_P: Array, y_P: Array) -> tuple[Array, Array, Bend]:
    """L = E + A exp(-alpha x) + B exp(-beta y)."""
    log_A, log_B, log_E, alpha, beta = theta_RQ.T[:, :, None]
    J_RQP = np.empty((len(theta_RQ), 5, len(x_P)))
    J_RQP[:, 0] = np.exp(log_A - alpha * x_P)
    J_RQP[:, 1] = np.exp(log_B - beta * y_P)
    J_RQP[:, 2] = np.exp(log_E)
    loss_RP = J_RQP[:, :3].sum(axis=1)
    J_RQP[:, :3] /= loss_RP[:, None]
    np.multiply(J_RQP[:, 0], -x_P, out=J_RQP[:, 3])
    np.multiply(J_RQP[:, 1], -y_P, out=J_RQP[:, 4])

    def bend(weight_RP: Array) -> Array:
        # a term exp(u - alpha x) and its derivatives by u and alpha are again the term, times powers of x
        first = (J_RQP @ weight_RP[:, :, None])[:, :, 0]
        second = np.zeros((len(theta_RQ), 5, 5))
        second[:, [0, 1, 2], [0, 1, 2]] = first[:, :3]
        second[:, [0, 3], [3, 0]] = first[:, [3]]
        second[:, [1, 4], [4, 1]] = first[:, [4]]
        second[:, 3, 3] = -((J_RQP[:, 3] * x_P) * weight_RP).sum(axis=1)
        second[:, 4, 4] = -((J_RQP[:, 4] * y_P) * weight_RP).sum(axis=1)
        return second

    return np.log(loss_RP), J_RQP, bend


def coupled(theta_RQ: Array, x_P: Array, y_P: Array) -> tuple[Array, Array, Bend]:
    """L = E + ((A exp(-alpha x))^(1/beta) + (B exp(-beta y))^(1/beta))^beta.

    With t the softmax of the two terms' logarithms over beta, and s the share of the loss above the floor,
    the second derivatives of ln L are s t1 t2 / beta k k' + s (1 - s) v v'.
    """
    log_A, log_B, log_E, alpha, beta = theta_RQ.T[:, :, None]
    of_N, of_D = (log_A - alpha * x_P) / beta, (log_B - beta * y_P) / beta
    inner = np.logaddexp(of_N, of_D)
    total = np.logaddexp(beta * inner, log_E)
    t1, t2, share = np.exp(of_N - inner), np.exp(of_D - inner), np.exp(beta * inner - total)
    zero = np.zeros_like(total)
    above = np.stack([t1, t2, zero, -x_P * t1, inner - t1 * of_N - t2 * of_D - y_P * t2], axis=1)
    k = np.stack([1 + zero, -1 + zero, zero, -x_P + zero, y_P - of_N + of_D], axis=1)
    floor = np.exp(log_E - total)
    v = above.copy()
    v[:, 2] = -1.0
    J_RQP = share[:, None] * above
    J_RQP[:, 2] = floor

    def bend(weight_RP: Array) -> Array:
        parts = [(k, share * t1 * t2 / beta), (v, share * floor), (J_RQP, 1.0)]
        second = np.zeros((len(theta_RQ), 5, 5))
        for vectors, size in parts:
            second += (vectors * (weight_RP * size)[:, None]) @ vectors.transpose(0, 2, 1)
        return second

    return total, J_RQP, bend
