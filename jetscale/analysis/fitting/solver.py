"""Damped Gauss-Newton for the loss surface, batched over replicates.

With q = ln(A N^-alpha + B D^-beta + E) and p the softmax of its three terms, the row of the Jacobian is
(p1, p2, p3, -p1 x, -p2 y). Huber's penalty enters as weights w = m / max(1, |r| / delta), for which
J' W r is the exact gradient and J' W J bounds the curvature (iteratively reweighted least squares).

Near a minimum, where most residuals are beyond delta (as where the form does not fit), steps by that bound
creep: each lowers the objective by 1e-9 of itself, thousands of times. There a step takes the objective's own
second derivatives (for Huber's part: Madsen and Nielsen, BIT 30 (1990) 682), damped by the bound: a large
damping makes it a short reweighted step, which always lowers the objective.

The objective itself cannot tell two points apart whose parameters differ by less than the square root of
the rounding error, and a result that stops there depends on the processor. So the end is a few undamped
Newton steps, each kept where it brings the gradient closer to 0, until only rounding is left of it.

Shapes: R replicates, P points, Q = 5 parameters (ln A, ln B, ln E, alpha, beta), F free parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.constraints import Bounds, Constraint, Index, unconstrained
from jetscale.analysis.fitting.moments import moments
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import SurfaceForm

Array = NDArray[np.float64]

NEAR = 1e-5  # predicted relative decrease from which on steps take the objective's own curvature
FAR = 100  # steps after which they do so in any case: in a bent valley the bound's creep from the first
SAME = 1e-12  # relative rounding of the objective, allowed to a step that lowers its gradient
SINGULAR = 1e-14  # smallest over largest eigenvalue of a curvature (of unit diagonal) that can be inverted
REST = 1e-18  # square of the gradient (in the metric of the curvature) that is 0, as a share of the objective
POLISH = 12  # Newton steps at the end, at most
STUCK = 1e12  # damping of a replicate that no step lowers
_CHUNK_ELEMENTS = 400_000  # replicates x points held at a time


@dataclass(frozen=True)
class Solution:
    """Minima of R replicates.

    Attributes
    ----------
    phi : (R, F) free parameters; theta : (R, 5).
    objective : (R,) value of the objective (a sum over points).
    gradient_RF : (R, F) derivatives of the objective by the free parameters, 0 for those at a bound.
    curvature : (R, F, F) J' W J at the solution, in the units of the objective.
    hessian : (R, F, F) second derivatives there; a parameter at a bound has none but a 1 on the diagonal.
    bound : (R, F, F) J' W J with such parameters taken out likewise.
    """

    phi: Array
    theta: Array
    objective: Array
    gradient_RF: Array
    curvature: Array
    hessian: Array
    bound: Array

    def of(self, rows: slice) -> Solution:
        """Some of the replicates."""
        return Solution(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def gradient(self) -> Array:
        """Largest absolute derivative of the objective by a free parameter, (R,)."""
        return np.asarray(np.abs(self.gradient_RF).max(axis=1))

    @property
    def decrease(self) -> Array:
        """Relative decrease predicted for a further step, g' H^-1 g / (2 F), (R,)."""
        # an undamped step by least squares: the bound is singular on a ray of N and D
        step = np.linalg.pinv(self.bound, rcond=1e-14, hermitian=True) @ self.gradient_RF[:, :, None]
        predicted = 0.5 * np.einsum("rf,rf->r", self.gradient_RF, step[:, :, 0])
        return np.asarray(predicted / np.maximum(self.objective, np.finfo(float).tiny))


def solve(
    start_RF: Array,
    x_P: Array,
    y_P: Array,
    log_L_RP: Array,
    weight_RP: Array,
    objective: Objective,
    form: SurfaceForm,
    constraint: Constraint = unconstrained,
    bounds: Bounds | None = None,
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 400,
) -> Solution:
    """Minimise from `start_RF`; `log_L_RP` and `weight_RP` are (R, P) or (1, P).

    A replicate descends until a further step is predicted to lower its objective by less than `tolerance`
    (relative), or no step lowers it any more; then Newton steps take its gradient down to rounding.

    Parameters
    ----------
    start_RF : (R, F) free parameters.
    x_P, y_P : (P,) or (R, P) ln N and ln D, centred.
    log_L_RP, weight_RP : (R, P) or (1, P) observed ln L and weights.
    objective : what is minimised.
    form : of the surface.
    constraint : free parameters to those of the form; by default they are the same.
    bounds : box of the free parameters; None: no bounds.
    tolerance : relative decrease of the objective that is not worth a further step.
    max_iterations : damped steps at most.
    """
    own = constraint == form.constraint and type(form).constraint is SurfaceForm.constraint
    free = own or constraint is unconstrained
    surface = _Surface(x_P, y_P, log_L_RP, weight_RP, objective, form, None if free else constraint)
    return minimise(
        surface.evaluate,
        start_RF,
        x_P.shape[-1],
        objective,
        bounds,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def minimise(
    evaluate: Evaluate,
    start_RF: Array,
    points: int,
    objective: Objective,
    bounds: Bounds | None = None,
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 400,
) -> Solution:
    """Minimise any sum over points of which `evaluate` gives the value and its derivatives, as `solve` does.

    Parameters
    ----------
    evaluate : free parameters (R, F) and the numbers of these rows to where they stand.
    start_RF : (R, F) free parameters.
    points : of one replicate: so many times R numbers are held at a time.
    objective : what is minimised.
    bounds : box of the free parameters; None: no bounds.
    tolerance, max_iterations : as in `solve`.
    """
    rows = max(1, _CHUNK_ELEMENTS // max(1, points))
    batch = _Batch(evaluate, objective, bounds)
    parts = [
        batch.minimise(
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
class State:
    """Where each active replicate stands: parameters, objective, weighted residual and Jacobian moments.

    Attributes
    ----------
    phi, theta : (R, F) free parameters, and (R, Q) those of the form.
    value : (R,) objective; infinite where it cannot be evaluated.
    gradient : (R, F) J' W r, in Huber's units.
    bound, curvature : (R, F, F) J' W J, and the second derivatives; the bound again where these were not
        asked for.
    """

    phi: Array
    theta: Array
    value: Array
    gradient: Array
    bound: Array
    curvature: Array

    def take(self, keep: NDArray[np.bool_] | Index) -> State:
        """Rows of it."""
        return State(*(getattr(self, field.name)[keep] for field in fields(self)))

    def accepted(self, other: State, good: NDArray[np.bool_]) -> State:
        """The good rows, (R,), of another of as many rows, and the rest of this one, which is used up."""
        if good.all():
            return other
        self.put(np.flatnonzero(good), other.take(good))
        return self

    def put(self, rows: Index, part: State) -> None:
        """Replace these rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(part, field.name)


# free parameters (R, F), the numbers of these rows, and whether their second derivatives are wanted too
Evaluate = Callable[[Array, Index, bool], State]


@dataclass(frozen=True)
class _Surface:
    """One surface for each replicate: what `solve` minimises; without a constraint phi is theta."""

    x_P: Array
    y_P: Array
    log_L_RP: Array
    weight_RP: Array
    objective: Objective
    form: SurfaceForm
    constraint: Constraint | None

    def evaluate(self, phi_RF: Array, index: Index, curved: bool) -> State:
        theta, tangent, bend = phi_RF, None, None
        if self.constraint is not None:
            theta, tangent, bend = self.constraint(phi_RF, index)
        log_L = self.log_L_RP[index] if len(self.log_L_RP) > 1 else self.log_L_RP
        weight = self.weight_RP[index] if len(self.weight_RP) > 1 else self.weight_RP
        x, y = (axis[index] if axis.ndim > 1 else axis for axis in (self.x_P, self.y_P))
        # constraints without bounds of their own (profiles) must not leave the domain either
        outside = self.form.outside(theta)
        theta = np.where(outside[:, None], 0.0, theta)
        value, gradient_RQ, *second_RQQ = moments(
            self.form, theta, x, y, log_L, weight, self.objective, curved=curved
        )
        value[outside] = np.inf
        gradient, bound, curvature = gradient_RQ, second_RQQ[0], second_RQQ[-1]
        if tangent is not None:
            turned = np.swapaxes(tangent, 1, 2)
            gradient = (turned @ gradient_RQ[:, :, None])[:, :, 0]
            bound = turned @ bound @ tangent
            curvature = turned @ curvature @ tangent if curved else bound
            if curved and bend is not None:
                curvature += np.einsum("rq,rqfg->rfg", gradient_RQ, bend)
        return State(phi_RF.copy(), theta, value, gradient, bound, curvature)


@dataclass(frozen=True)
class _Batch:
    evaluate: Evaluate
    objective: Objective
    bounds: Bounds | None

    def project(self, phi_RF: Array, index: Index) -> Array:
        if self.bounds is None:
            return phi_RF
        box = self.bounds.of(index)
        return np.clip(phi_RF, box.low, box.high)

    def without_active(self, state: State, index: Index) -> tuple[Array, Array, Array]:
        """Gradient, bound and curvature with the parameters that rest on an end of the box taken out."""
        rests = None if self.bounds is None else self.bounds.of(index).active(state.phi, state.gradient)
        if rests is None or not rests.any():
            return state.gradient, state.bound, state.curvature
        both = ~(rests[:, :, None] | rests[:, None, :])
        ones = rests[:, :, None] * np.eye(rests.shape[1])
        return state.gradient * ~rests, state.bound * both + ones, state.curvature * both + ones

    def minimise(self, start_RF: Array, index: Index, tolerance: float, max_iterations: int) -> Solution:
        state = self.evaluate(self.project(start_RF, index), index, True)
        steps = min(POLISH, max_iterations)
        # 1. Newton steps alone: a start near its minimum (a warm start, a profile) needs no more.
        away = np.flatnonzero(~self.polish(state, index, steps))
        # 2. The others descend by damped steps, then Newton steps take their gradient down to rounding.
        if len(away):
            part = self.descend(state.take(away), index[away], tolerance, max_iterations)
            self.polish(part, index[away], steps)
            state.put(away, part)
        return self.report(state, index)

    def descend(self, start: State, index: Index, tolerance: float, max_iterations: int) -> State:
        """Damped steps, until none promises to lower the objective by `tolerance`."""
        # far from the minimum by the bound J' W J, near it by the second derivatives (see the module)
        left = np.full(len(index), max_iterations)
        near = self.approach(start, index, left)
        found = self.evaluate(near.phi, index, True)
        self.close_in(found, index, left, tolerance)
        return found

    def approach(self, whole: State, index: Index, left: Index) -> State:
        """Steps by the bound until a replicate creeps or can go no lower; `left`, (R,), counts down."""
        active, state = np.arange(len(index)), whole
        damping = np.full(len(index), 1e-3)
        whole = whole.take(active)
        for iteration in range(min(FAR + 1, int(left.max(initial=0)))):
            rows = index[active]
            gradient, bound, _ = self.without_active(state, rows)
            step, decrease = _damped_step(gradient, bound, bound, damping)
            promise = self.objective.scale * np.maximum(1.0, damping)  # a short step promises little
            decrease = promise * decrease
            trial = self.evaluate(self.project(state.phi + step, rows), rows, False)
            good = (trial.value <= state.value) & (decrease > 0)
            state = state.accepted(trial, good)
            # Levenberg: a step that helped is trusted further, one that did not is shortened
            damping = np.where(good, np.maximum(damping / 5, 1e-10), damping * 8)
            ends = (decrease <= NEAR * state.value) | (iteration == FAR) | (damping > STUCK)
            if ends.any():  # those that are done leave the batch, so the last ones do not cost as all
                whole.put(active[ends], state.take(ends))
                left[active[ends]] -= iteration + 1
                active, state, damping = active[~ends], state.take(~ends), damping[~ends]
                if not len(active):
                    return whole
        whole.put(active, state)
        left[active] = 0
        return whole

    def close_in(self, whole: State, index: Index, left: Index, tolerance: float) -> None:
        """Steps by the second derivatives, at most `left` (R,) of them."""
        active = np.flatnonzero(left > 0)
        state, damping = whole.take(active), np.full(len(active), 0.1)
        for iteration in range(1, int(left.max(initial=0)) + 1):
            rows = index[active]
            gradient, bound, curvature = self.without_active(state, rows)
            damped = curvature + damping[:, None, None] * bound
            step, decrease = _damped_step(gradient, damped, bound, damping)
            promise = self.objective.scale * np.maximum(1.0, damping)
            by_bound = promise * _damped_step(gradient, bound, bound, damping)[1]
            decrease = promise * decrease
            trial = self.evaluate(self.project(state.phi + step, rows), rows, True)
            good = (trial.value <= state.value) & (decrease > 0)
            state = state.accepted(trial, good)
            damping = np.where(good, np.maximum(damping / 5, 1e-10), damping * 8)
            # the curvature may still be indefinite, and the decrease 0 by chance
            rests = np.maximum(np.abs(decrease), by_bound) <= tolerance * state.value
            ends = rests | (damping > STUCK) | (iteration >= left[active])
            if ends.any():
                whole.put(active[ends], state.take(ends))
                active, state, damping = active[~ends], state.take(~ends), damping[~ends]
                if not len(active):
                    return

    def polish(self, whole: State, index: Index, steps: int) -> NDArray[np.bool_]:
        """Newton steps, each kept where it brings the gradient closer to 0; whether it is at 0 then, (R,)."""
        active, state = np.arange(len(index)), whole.take(np.arange(len(index)))
        step, size = self.newton(state, index)
        rest = size <= REST * state.value
        for _ in range(steps):
            rows = index[active]
            trial = self.evaluate(self.project(state.phi + step, rows), rows, True)
            next_step, next_size = self.newton(trial, rows)
            # kept where the gradient is closer to 0; the objective may rise by its rounding, no more
            good = (next_size < size) & (trial.value <= state.value * (1 + SAME) + np.finfo(float).tiny)
            active, state, step, size = active[good], trial.take(good), next_step[good], next_size[good]
            if not len(active):
                break
            whole.put(active, state)
            rest[active] = size <= REST * state.value
        return rest

    def newton(self, state: State, index: Index) -> tuple[Array, Array]:
        """Newton step (R, F), and g' H^-1 g; 0 and infinity where the curvature is not positive."""
        gradient, _, curvature = self.without_active(state, index)
        diagonal = np.einsum("rff->rf", curvature)
        usable = (diagonal > 0).all(axis=1)
        # a unit diagonal: parameters of very different sizes would make the eigenvalues meaningless
        diagonal = np.sqrt(np.where(usable[:, None], diagonal, 1.0))
        curvature = np.where(usable[:, None, None], curvature, np.eye(curvature.shape[1]))
        values, vectors = np.linalg.eigh(curvature / (diagonal[:, :, None] * diagonal[:, None, :]))
        usable &= values[:, 0] > SINGULAR * values[:, -1]
        along = np.einsum("rfe,rf->re", vectors, gradient / diagonal)
        values = np.where(usable[:, None], values, 1.0)
        step = -np.einsum("rfe,re->rf", vectors, along / values) / diagonal
        with np.errstate(over="ignore"):  # of a gradient far from any minimum: infinite is right
            size = (along**2 / values).sum(axis=1)
        return np.where(usable[:, None], step, 0.0), np.where(usable, size, np.inf)

    def report(self, state: State, index: Index) -> Solution:
        gradient, bound, hessian = self.without_active(state, index)
        scale = self.objective.scale
        return Solution(
            phi=state.phi,
            theta=state.theta,
            objective=state.value,
            gradient_RF=scale * gradient,
            curvature=scale * state.bound,
            hessian=scale * hessian,
            bound=scale * bound,
        )


def _damped_step(gradient: Array, matrix: Array, bound: Array, damping: Array) -> tuple[Array, Array]:
    """Step (R, F) by a matrix, damped by the diagonal of the bound, and the decrease that it predicts."""
    F = bound.shape[1]
    own = bound.reshape(-1, F * F)[:, :: F + 1]
    tiny = 1e-16 * own.max(axis=1, keepdims=True) + 1e-300  # never singular
    damped = np.array(matrix, order="C")
    damped.reshape(-1, F * F)[:, :: F + 1] += damping[:, None] * own + tiny
    step = np.asarray(-np.linalg.solve(damped, gradient[:, :, None])[:, :, 0])
    return step, np.asarray(-0.5 * np.einsum("rf,rf->r", gradient, step))
