"""Damped Gauss-Newton for the loss surface, batched over replicates.

With q = ln(A N^-alpha + B D^-beta + E) and p the softmax of its three terms, the row of the Jacobian is
(p1, p2, p3, -p1 x, -p2 y). Huber's penalty enters as weights w = m / max(1, |r| / delta), for which
J' W r is the exact gradient and J' W J bounds the curvature (iteratively reweighted least squares).

Near a minimum, where most residuals are beyond delta (as where the form does not fit), steps by that bound
creep: each lowers the objective by 1e-9 of itself, thousands of times. There a step takes Huber's own
curvature, of the points inside delta alone (Madsen and Nielsen, BIT 30 (1990) 682), damped by the bound:
a large damping makes it a short reweighted step, which always lowers the objective.

Shapes: R replicates, P points, Q = 5 parameters (ln A, ln B, ln E, alpha, beta), F free parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.objective import Objective

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# (phi_RF, numbers of these replicates) -> (theta_RQ, dtheta/dphi of shape (R, Q, F))
Constraint = Callable[[Array, Index], tuple[Array, Array]]

EXPONENT_BOUNDS = (1e-3, 4.0)
FLOOR_BOUND = 1e-4  # E as a share of the lowest loss: below this there is no floor
NEAR = 1e-6  # predicted relative decrease from which on steps take Huber's own curvature
_CHUNK_ELEMENTS = 400_000  # replicates x points held at a time


@dataclass(frozen=True)
class Solution:
    """Minima of R replicates.

    Attributes
    ----------
    phi : (R, F) free parameters; theta : (R, 5).
    objective : (R,) value of the objective (a sum over points).
    decrease : (R,) relative decrease predicted for a further step, g' H^-1 g / (2 F).
    gradient : (R,) largest absolute derivative of the objective by a free parameter.
    curvature : (R, F, F) J' W J at the solution, in the units of the objective.
    """

    phi: Array
    theta: Array
    objective: Array
    decrease: Array
    gradient: Array
    curvature: Array


@dataclass(frozen=True)
class Bounds:
    """Box that steps are projected onto; (F,) each."""

    low: Array
    high: Array

    def active(self, phi_RF: Array, gradient_RF: Array) -> NDArray[np.bool_]:
        """Parameters at a bound that the objective pushes outwards: they do not take part in a step."""
        outwards = ((phi_RF <= self.low) & (gradient_RF > 0)) | ((phi_RF >= self.high) & (gradient_RF < 0))
        return np.asarray(outwards)


def natural_bounds(log_L_RP: Array, parameters: int) -> Bounds:
    """Bounds of ln A, ln B, ln E and the one or two exponents."""
    low = np.array(
        [-500.0, -500.0, np.log(FLOOR_BOUND) + log_L_RP.min(), *[EXPONENT_BOUNDS[0]] * (parameters - 3)]
    )
    high = np.array([500.0, 500.0, 500.0, *[EXPONENT_BOUNDS[1]] * (parameters - 3)])
    return Bounds(low, high)


def free(phi_RF: Array, _: Index) -> tuple[Array, Array]:
    """No constraint: the five parameters themselves."""
    return phi_RF, np.broadcast_to(np.eye(5), (len(phi_RF), 5, 5))


def tied(phi_RF: Array, _: Index) -> tuple[Array, Array]:
    """One exponent for both terms, alpha = beta: phi = (ln A, ln B, ln E, exponent)."""
    tangent = np.zeros((5, 4))
    tangent[[0, 1, 2, 3, 4], [0, 1, 2, 3, 3]] = 1.0
    return phi_RF[:, [0, 1, 2, 3, 3]], np.broadcast_to(tangent, (len(phi_RF), 5, 4))


def solve(
    start_RF: Array,
    x_P: Array,
    y_P: Array,
    log_L_RP: Array,
    weight_RP: Array,
    objective: Objective,
    constraint: Constraint = free,
    bounds: Bounds | None = None,
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 400,
) -> Solution:
    """Minimise from `start_RF`; `log_L_RP` and `weight_RP` are (R, P) or (1, P).

    A replicate is done when a further step is predicted to lower its objective by less than `tolerance`
    (relative), or when no step lowers it any more.
    """
    rows = max(1, _CHUNK_ELEMENTS // max(1, len(x_P)))
    parts = [
        _Batch(x_P, y_P, log_L_RP, weight_RP, objective, constraint, bounds).minimise(
            start_RF[begin : begin + rows],
            np.arange(begin, min(begin + rows, len(start_RF))),
            tolerance,
            max_iterations,
        )
        for begin in range(0, len(start_RF), rows)
    ]
    return Solution(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Solution))
    )


@dataclass
class _State:
    """Where each active replicate stands: parameters, objective, weighted residual and Jacobian moments."""

    phi: Array
    theta: Array
    value: Array
    gradient: Array  # (R, F) J' W r
    bound: Array  # (R, F, F) J' W J
    curvature: Array  # (R, F, F) the same over the points inside delta

    def take(self, keep: NDArray[np.bool_]) -> _State:
        return _State(*(getattr(self, field.name)[keep] for field in fields(self)))

    def accept(self, other: _State, good: NDArray[np.bool_]) -> None:
        for field in fields(self):
            mine = getattr(self, field.name)
            mine[good] = getattr(other, field.name)[good]


@dataclass(frozen=True)
class _Batch:
    x_P: Array
    y_P: Array
    log_L_RP: Array
    weight_RP: Array
    objective: Objective
    constraint: Constraint
    bounds: Bounds | None

    def project(self, phi_RF: Array) -> Array:
        return phi_RF if self.bounds is None else np.clip(phi_RF, self.bounds.low, self.bounds.high)

    def without_active(self, state: _State) -> tuple[Array, Array, Array]:
        """Gradient, bound and curvature with the parameters that rest on an end of the box taken out."""
        if self.bounds is None:
            return state.gradient, state.bound, state.curvature
        moves = ~self.bounds.active(state.phi, state.gradient)
        both = moves[:, :, None] & moves[:, None, :]
        rests = (~moves)[:, :, None] * np.eye(moves.shape[1])
        return state.gradient * moves, state.bound * both + rests, state.curvature * both

    def minimise(self, start_RF: Array, index: Index, tolerance: float, max_iterations: int) -> Solution:
        state = self.evaluate(self.project(start_RF), index)
        R = len(index)
        damping, near = np.full(R, 1e-3), np.zeros(R, dtype=bool)
        solution = self.report(state)
        active = np.arange(R)
        for _ in range(max_iterations):
            step, decrease = _damped_step(*self.without_active(state), damping, near)
            decrease *= self.objective.scale * np.maximum(1.0, damping)  # a short step promises little
            trial = self.evaluate(self.project(state.phi + step), index[active])
            good = trial.value <= state.value
            state.accept(trial, good)
            damping = np.where(good, np.maximum(damping / 5, 1e-10), damping * 8)
            comes = ~near & (decrease <= NEAR * state.value)
            damping[comes], near = 1.0, near | comes
            done = ~comes & (decrease <= tolerance * state.value) | (damping > 1e12)
            if done.any():
                _store(solution, active[done], self.report(state.take(done)))
                active, state = active[~done], state.take(~done)
                damping, near = damping[~done], near[~done]
                if not len(active):
                    return solution
        _store(solution, active, self.report(state))
        return solution

    def evaluate(self, phi_RF: Array, index: Index) -> _State:
        theta, tangent = self.constraint(phi_RF, index)
        log_L = self.log_L_RP[index] if len(self.log_L_RP) > 1 else self.log_L_RP
        weight = self.weight_RP[index] if len(self.weight_RP) > 1 else self.weight_RP
        # constraints without bounds of their own (profiles) must not leave the domain either
        outside = (theta[:, 3:] < 0.5 * EXPONENT_BOUNDS[0]).any(axis=1) | (np.abs(theta) > 1000).any(axis=1)
        outside = np.asarray(outside | ~np.isfinite(theta).all(axis=1))
        theta = np.where(outside[:, None], 0.0, theta)
        value, gradient_RQ, *second_RQQ = self.moments(theta, log_L, weight)
        value = np.where(outside, np.inf, value)
        gradient = np.einsum("rqf,rq->rf", tangent, gradient_RQ)
        bound, curvature = (np.swapaxes(tangent, 1, 2) @ moment_RQQ @ tangent for moment_RQQ in second_RQQ)
        return _State(phi_RF.copy(), theta.copy(), value, gradient, bound, curvature)

    def moments(
        self, theta_RQ: Array, log_L_RP: Array, weight_RP: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Objective (R,); in Huber's units J' W r (R, Q), J' W J and that inside delta (R, Q, Q)."""
        log_A, log_B, log_E, alpha, beta = theta_RQ.T[:, :, None]
        with np.errstate(over="ignore", invalid="ignore"):
            J_RQP = np.empty((len(theta_RQ), 5, len(self.x_P)))
            J_RQP[:, 0] = np.exp(log_A - alpha * self.x_P)
            J_RQP[:, 1] = np.exp(log_B - beta * self.y_P)
            J_RQP[:, 2] = np.exp(log_E)
            loss_RP = J_RQP[:, :3].sum(axis=1)
            residual_RP = np.log(loss_RP) - log_L_RP
            if self.objective.residual == "raw":
                residual_RP = loss_RP - np.exp(log_L_RP)
            else:
                J_RQP[:, :3] /= loss_RP[:, None]
            np.multiply(J_RQP[:, 0], -self.x_P, out=J_RQP[:, 3])
            np.multiply(J_RQP[:, 1], -self.y_P, out=J_RQP[:, 4])
            value = self.objective.value(residual_RP, weight_RP)
            beyond_RP = np.abs(residual_RP) / self.objective.corner
            weighted_RQP = J_RQP * (weight_RP / np.maximum(1.0, beyond_RP))[:, None]
            gradient = (weighted_RQP @ residual_RP[:, :, None])[:, :, 0]
            bound = weighted_RQP @ J_RQP.transpose(0, 2, 1)
            weighted_RQP *= (beyond_RP <= 1.0)[:, None]
            curvature = weighted_RQP @ J_RQP.transpose(0, 2, 1)
        value = np.where(np.isfinite(value), value, np.inf)
        return value, np.nan_to_num(gradient), np.nan_to_num(bound), np.nan_to_num(curvature)

    def report(self, state: _State) -> Solution:
        # an undamped step by least squares: the bound is singular on a ray of N and D
        gradient, bound, _ = self.without_active(state)
        step = np.linalg.pinv(bound, rcond=1e-14, hermitian=True) @ gradient[:, :, None]
        scale = self.objective.scale
        predicted = 0.5 * scale * np.einsum("rf,rf->r", gradient, step[:, :, 0])
        return Solution(
            phi=state.phi,
            theta=state.theta,
            objective=state.value,
            decrease=predicted / np.maximum(state.value, np.finfo(float).tiny),
            gradient=scale * np.abs(gradient).max(axis=1),
            curvature=scale * state.bound,
        )


def _damped_step(
    gradient: Array, bound: Array, curvature: Array, damping: Array, near: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Step (R, F) and the decrease it predicts (Huber's units)."""
    damped = np.where(near[:, None, None], curvature + damping[:, None, None] * bound, bound)
    diagonal = np.einsum("rff->rf", damped)
    diagonal += damping[:, None] * np.einsum("rff->rf", bound) + 1e-300
    step = -np.linalg.solve(damped, gradient[:, :, None])[:, :, 0]
    return np.asarray(step), np.asarray(-0.5 * np.einsum("rf,rf->r", gradient, step))


def _store(solution: Solution, rows: Index, part: Solution) -> None:
    for field in fields(solution):
        getattr(solution, field.name)[rows] = getattr(part, field.name)
