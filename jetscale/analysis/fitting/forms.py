"""The forms of the loss surface that jetscale fits.

- ``separate``: E + A/N^alpha + B/D^beta, approach 3 of Hoffmann et al. (arXiv:2203.15556).
- ``tied``: the same with alpha = beta, the form of Gadre et al. (arXiv:2403.08540).
- ``coupled``: E + (A/N^(alpha/beta) + B/D)^beta, the form of Kaplan et al. (arXiv:2001.08361) with a floor:
  model and data limit each other instead of adding up. Its A and B are taken so that the two terms alone
  would be A/N^alpha and B/D^beta.

E is the irreducible loss (`L_inf` in results.json). Shapes: R replicates, P points, K budgets, Q = 5
parameters (ln A, ln B, ln E, alpha, beta), F free ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.constraints import Bounds, Constraint, Index, Target
from jetscale.analysis.fitting.starts import projected_starts
from jetscale.analysis.fitting.surface import EXPONENT_BOUNDS, Bend, SurfaceForm

Array = NDArray[np.float64]


class Separate(SurfaceForm):
    """L = E + A exp(-alpha x) + B exp(-beta y) with x = ln N and y = ln D."""

    formula = "L_inf + A / N^alpha + B / D^beta"
    additive = True

    def derivatives(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> tuple[Array, Array, Bend]:
        """See `SurfaceForm.derivatives`."""
        log_A, log_B, log_E, alpha, beta = theta_RQ.T[:, :, None]
        J_RQP = np.empty((len(theta_RQ), 5, x_RP.shape[-1]))
        terms = [J_RQP[:, 0], J_RQP[:, 1]]
        slopes = ((log_A, alpha, x_RP), (log_B, beta, y_RP))
        for term, (scale, exponent, axis) in zip(terms, slopes, strict=True):
            np.multiply(exponent, axis, out=term)
            np.exp(np.subtract(scale, term, out=term), out=term)
        floor = np.exp(log_E)
        loss_RP = terms[0] + terms[1]
        loss_RP += floor
        J_RQP[:, :2] /= loss_RP[:, None]
        np.divide(floor, loss_RP, out=J_RQP[:, 2])
        np.multiply(terms[0], -x_RP, out=J_RQP[:, 3])
        np.multiply(terms[1], -y_RP, out=J_RQP[:, 4])

        def bend(weight_RP: Array) -> Array:
            # a term exp(u - alpha x) and its derivatives by u and alpha are again the term, times powers of x
            first = (J_RQP @ weight_RP[:, :, None])[:, :, 0]
            second = np.zeros((len(theta_RQ), 5, 5))
            second[:, [0, 1, 2], [0, 1, 2]] = first[:, :3]
            second[:, [0, 3], [3, 0]] = first[:, [3]]
            second[:, [1, 4], [4, 1]] = first[:, [4]]
            for column, axis in ((3, x_RP), (4, y_RP)):
                weighed = J_RQP[:, column] * weight_RP
                of_axis = weighed @ axis if axis.ndim == 1 else np.einsum("rp,rp->r", weighed, axis)
                second[:, column, column] = -of_axis
            return second

        return np.log(loss_RP), J_RQP, bend

    def log_loss(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> Array:
        """Ln L (R, P), also where a term by itself would overflow."""
        log_A, log_B, log_E, alpha, beta = theta_RQ.T[:, :, None]
        return np.asarray(np.logaddexp(np.logaddexp(log_A - alpha * x_RP, log_B - beta * y_RP), log_E))

    def directions(self, theta_Q: Array, x_P: Array, y_P: Array, dx: float, dy: float) -> Array:
        """Derivatives (P, 5) up to their sign, in logarithms: what they span is all that is asked of them."""
        log_A, log_B, log_E, alpha, beta = theta_Q
        total = self.log_loss(theta_Q[None], x_P, y_P)[0]
        p1, p2 = np.exp(log_A - alpha * x_P - total), np.exp(log_B - beta * y_P - total)
        return np.stack([p1, p2, np.exp(log_E - total), p1 * (x_P - dx), p2 * (y_P - dy)], axis=1)

    def exponents(self, theta_RQ: Array) -> tuple[Array, Array]:
        """A = beta / (alpha + beta), b = alpha / (alpha + beta)."""
        alpha, beta = theta_RQ[:, 3], theta_RQ[:, 4]
        return beta / (alpha + beta), alpha / (alpha + beta)

    def optimum(self, theta_RQ: Array, log_C: Array, log_k: float) -> tuple[Array, Array]:
        """N* = G (C/k)^a and D* = (C/k)^b / G with G = (alpha A / (beta B))^(1 / (alpha + beta))."""
        log_A, log_B, _, alpha, beta = theta_RQ.T
        log_G = (np.log(alpha / beta) + log_A - log_B) / (alpha + beta)
        a, b = self.exponents(theta_RQ)
        reach = np.asarray(log_C) - log_k
        return log_G[:, None] + a[:, None] * reach, b[:, None] * reach - log_G[:, None]

    def compute_for_loss(self, theta_RQ: Array, loss: float, log_k: float) -> Array:
        """L*(C) - E = K (C/k)^-gamma with gamma = alpha beta / (alpha + beta), which inverts."""
        log_A, log_B, log_E, alpha, beta = theta_RQ.T
        gamma = alpha * beta / (alpha + beta)
        # at C = k the reducible loss is K
        log_N, log_D = self.optimum(theta_RQ, np.array([log_k]), log_k)
        log_K = np.logaddexp(log_A - alpha * log_N[:, 0], log_B - beta * log_D[:, 0])
        reducible = loss - np.exp(log_E)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_C = log_k - (np.log(reducible) - log_K) / gamma
        return np.where(reducible > 0, log_C, np.inf)

    def log_trade(self, theta_RQ: Array, x_RK: Array, y_RK: Array) -> Array:
        """Ln of alpha A N^-alpha over beta B D^-beta, (R, K)."""
        log_A, log_B, _, alpha, beta = theta_RQ.T
        level = (np.log(alpha / beta) + log_A - log_B)[:, None]
        return np.asarray(level - alpha[:, None] * x_RK + beta[:, None] * y_RK)

    def targets(self, bounds: Bounds, reach: float) -> dict[str, Target]:
        """Profile a and N* too, which have closed forms."""
        low, high = bounds.low, bounds.high
        return {
            "a": hold_ratio(bounds),
            **super().targets(bounds, reach),
            "N_star": Target(
                of=lambda theta: self.optimum(theta, np.array([reach]), 0.0)[0][:, 0],
                fix=FixedOptimum(reach),
                reduce=lambda theta: theta[:, 1:],
                bounds=Bounds(low[1:], high[1:]),
                low=-60.0,
                high=60.0,
            ),
        }


class Tied(Separate):
    """The additive form with one exponent for both terms."""

    formula = "L_inf + A / N^alpha + B / D^alpha"

    @property
    def free(self) -> tuple[str, ...]:
        """One exponent stands for both."""
        return ("log_A", "log_B", "log_E", "exponent")

    def constraint(self, phi_RF: Array, _: Index) -> tuple[Array, Array, Array | None]:
        """Phi = (ln A, ln B, ln E, exponent)."""
        tangent = np.zeros((5, 4))
        tangent[[0, 1, 2, 3, 4], [0, 1, 2, 3, 3]] = 1.0
        return phi_RF[:, [0, 1, 2, 3, 3]], np.broadcast_to(tangent, (len(phi_RF), 5, 4)), None

    def reduced(self, theta_RQ: Array) -> Array:
        """Inverse of `constraint`, (R, 4)."""
        return theta_RQ[:, :4]

    def starts(self, x_P: Array, y_P: Array, log_L_RP: Array, weight_RP: Array, count: int) -> Array:
        """Nodes of the grid with alpha = beta, (R, count, 4)."""
        grids = self.start_grids
        return projected_starts(x_P, y_P, log_L_RP, weight_RP, count, tied=True, grids=grids)[:, :, :4]

    def targets(self, bounds: Bounds, reach: float) -> dict[str, Target]:  # noqa: ARG002 (the interface has it)
        """None is profiled."""
        return {}


class Coupled(SurfaceForm):
    """L = E + ((A exp(-alpha x))^(1/beta) + (B exp(-beta y))^(1/beta))^beta.

    With t the softmax of the two terms' logarithms over beta, and s the share of the loss above the floor,
    the second derivatives of ln L are s t1 t2 / beta k k' + s (1 - s) v v'.
    """

    formula = "L_inf + ((A / N^alpha)^(1/beta) + (B / D^beta)^(1/beta))^beta"

    def derivatives(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> tuple[Array, Array, Bend]:
        """See `SurfaceForm.derivatives`."""
        log_A, log_B, log_E, alpha, beta = theta_RQ.T[:, :, None]
        of_N, of_D = (log_A - alpha * x_RP) / beta, (log_B - beta * y_RP) / beta
        inner = np.logaddexp(of_N, of_D)
        total = np.logaddexp(beta * inner, log_E)
        t1, t2, share = np.exp(of_N - inner), np.exp(of_D - inner), np.exp(beta * inner - total)
        zero = np.zeros_like(total)
        above = np.stack([t1, t2, zero, -x_RP * t1, inner - t1 * of_N - t2 * of_D - y_RP * t2], axis=1)
        k = np.stack([1 + zero, -1 + zero, zero, -x_RP + zero, y_RP - of_N + of_D], axis=1)
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

    def nearby(self, additive_RQ: Array) -> Array:
        """The additive surface itself, and its two terms doubled."""
        return np.asarray(additive_RQ + np.array([[0.0] * 5, [0.7, 0.7, 0, 0, 0]]))

    def bounds(self, log_L_RP: Array) -> Bounds:  # noqa: ARG002 (the interface has it)
        """Narrower for ln A and ln B: over a small beta they are large."""
        ends = np.array([(-50.0, 50.0)] * 3 + [EXPONENT_BOUNDS] * 2)
        return Bounds(ends[:, 0], ends[:, 1])

    def exponents(self, theta_RQ: Array) -> tuple[Array, Array]:
        """As of the additive form: at the optimum the two terms are in a fixed proportion there too."""
        alpha, beta = theta_RQ[:, 3], theta_RQ[:, 4]
        return beta / (alpha + beta), alpha / (alpha + beta)

    def log_trade(self, theta_RQ: Array, x_RK: Array, y_RK: Array) -> Array:
        """Ln of alpha (A N^-alpha)^(1/beta) over beta (B D^-beta)^(1/beta), (R, K)."""
        log_A, log_B, _, alpha, beta = theta_RQ.T[:, :, None]
        return np.asarray(np.log(alpha / beta) + (log_A - alpha * x_RK - log_B + beta * y_RK) / beta)

    def targets(self, bounds: Bounds, reach: float) -> dict[str, Target]:
        """Profile a too, the ratio of the exponents."""
        return {"a": hold_ratio(bounds), **super().targets(bounds, reach)}


def hold_ratio(bounds: Bounds) -> Target:
    """Hold a = beta / (alpha + beta) for parameters ln A, ln B, ln E, alpha, beta; their sum stays free.

    Parameters
    ----------
    bounds : of the five centred parameters.
    """

    def total(theta: Array) -> Array:
        return np.column_stack([theta[:, :3], theta[:, 3] + theta[:, 4]])

    return Target(
        of=lambda theta: theta[:, 4] / (theta[:, 3] + theta[:, 4]),
        fix=_fixed_ratio,
        reduce=total,
        bounds=Bounds(total(bounds.low[None])[0], total(bounds.high[None])[0]),
        low=1e-3,
        high=1 - 1e-3,
    )


def _fixed_ratio(t_R: Array) -> Constraint:
    """Hold a; phi = ln A, ln B, ln E, alpha + beta."""

    def constraint(phi: Array, index: Index) -> tuple[Array, Array, Array | None]:
        a = t_R[index]
        theta = np.column_stack([phi[:, :3], (1 - a) * phi[:, 3], a * phi[:, 3]])
        tangent = np.zeros((len(phi), 5, 4))
        tangent[:, [0, 1, 2], [0, 1, 2]] = 1
        tangent[:, 3, 3], tangent[:, 4, 3] = 1 - a, a
        return theta, tangent, None

    return constraint


@dataclass(frozen=True)
class FixedOptimum:
    """Hold centred ln N* of the additive form where ln N + ln D = reach; phi = ln B, ln E, alpha, beta.

    At the optimum ln alpha + ln A - alpha x = ln beta + ln B - beta y gives ln A.
    """

    reach: float

    def __call__(self, t_R: Array) -> Constraint:
        """`Target.fix`; t_R: (R,) centred ln N*."""

        def constraint(phi: Array, index: Index) -> tuple[Array, Array, Array | None]:
            x, (log_B, log_E, alpha, beta) = t_R[index], phi.T
            y = self.reach - x
            log_A = log_B + np.log(beta / alpha) + alpha * x - beta * y
            tangent = np.zeros((len(phi), 5, 4))
            tangent[:, [1, 2, 3, 4], [0, 1, 2, 3]] = 1
            tangent[:, 0, 0], tangent[:, 0, 2], tangent[:, 0, 3] = 1, x - 1 / alpha, 1 / beta - y
            bend = np.zeros((len(phi), 5, 4, 4))
            bend[:, 0, 2, 2], bend[:, 0, 3, 3] = 1 / alpha**2, -1 / beta**2
            return np.column_stack([log_A, log_B, log_E, alpha, beta]), tangent, bend

        return constraint
