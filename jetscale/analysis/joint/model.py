"""Several groups of runs in one model: ln L of each is a surface whose parameters are linear in common ones.

Group g has the parameters theta_g = M_g phi of its form, with one vector phi for all groups. A parameter that
is shared stands in the M_g of several groups, a free one in that of its own group only, and a law of transfer
puts multiples of one parameter into several groups. The objective is the sum over groups, so its derivatives
are the sums of M_g' (derivatives of group g): a matrix whose blocks of different groups are coupled by shared
parameters alone (an arrow). Only the blocks are computed; the solver of single surfaces does the rest.

Shapes: R replicates, P points of a group, Q parameters of a form, F of phi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.certificate import at_most
from jetscale.analysis.fitting.constraints import Bounds, Index
from jetscale.analysis.fitting.moments import moments
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.solver import Solution, State, minimise
from jetscale.analysis.fitting.surface import SurfaceForm, Surfaces
from jetscale.analysis.fitting.surface_fit import AGREEMENT, EQUAL, ROUNDING

Array = NDArray[np.float64]
Losses = Mapping[str, Array]  # by group, (R, P) or (1, P)

CONVERGED = 1e-6  # predicted relative decrease below which a minimum counts as reached
FLAT = 1e-4  # difference in ln L of fits that are equally good: 1e-12 where there is one minimum


@dataclass(frozen=True)
class Group:
    """One group of runs in a joint model.

    Attributes
    ----------
    name : of the group.
    form : of its surface.
    x_P, y_P : (P,) ln N and ln D, less the centre of the model.
    matrix : (Q, F), M_g.
    offset : (Q,), added to M_g phi.
    """

    name: str
    form: SurfaceForm
    x_P: Array
    y_P: Array
    matrix: Array
    offset: Array

    def theta(self, phi_RF: Array) -> Array:
        """Parameters of its surfaces, (R, Q), in centred ln N and ln D."""
        return np.asarray(phi_RF @ self.matrix.T + self.offset)


@dataclass(frozen=True)
class JointCertificate:
    """Why the minimum of a joint fit can be believed, or not; as `surface_fit.Certificate`.

    Attributes
    ----------
    converged : the predicted relative decrease is below 1e-6.
    gradient, decrease : at most this, powers of ten.
    starts, agreeing : starts made, and those that ended within 1e-6 (relative) of the lowest objective. A
        start between two minima ends in either, as rounding has it: results.json has all of them, or 2 for
        two or more, or 1.
    condition : condition number of the Gauss-Newton matrix of all groups, centred ln N and ln D.
    at_bound : names of the parameters at a bound.
    spread : largest difference in ln L of a point between starts that ended equally low; see `flat`.
    """

    converged: bool
    gradient: float
    decrease: float
    starts: int
    agreeing: int
    condition: float
    at_bound: list[str]
    spread: float

    @property
    def flat(self) -> bool:
        """Whether different surfaces fit equally well, so that the fit determines none of them.

        So it is where one surface has to pass between two groups with the same number of points on either
        side: wherever it passes, the sum of absolute residuals is the same.
        """
        return self.spread > FLAT

    def to_json(self) -> dict[str, Any]:
        """Entry of results.json."""
        told = self.agreeing if self.agreeing == self.starts else min(self.agreeing, 2)
        return {key: value for key, value in asdict(self).items() if key != "spread"} | {"agreeing": told}

    def told_flat(self) -> str:
        """What to say of a `flat` fit."""
        return f"surfaces that differ by up to {np.expm1(self.spread):.1%} fit its losses equally well"


@dataclass(frozen=True)
class JointFit:
    """R fitted joint models.

    Attributes
    ----------
    phi : (R, F). objective : (R,).
    minima : (M, F) where the starts of a fit of the data ended, one of each objective, the lowest first;
        None for replicates.
    """

    phi: Array
    objective: Array
    minima: Array | None = None


@dataclass(frozen=True)
class JointModel:
    """Groups, and the parameters that they share.

    Attributes
    ----------
    names : of the F parameters phi.
    groups : in order.
    objective : what is minimised, summed over the points of all groups.
    bounds : box of phi.
    centre : mean ln N and ln D of all points, taken off both.
    """

    names: tuple[str, ...]
    groups: tuple[Group, ...]
    objective: Objective
    bounds: Bounds
    centre: tuple[float, float]

    @property
    def points(self) -> int:
        """Of all groups together."""
        return sum(len(group.x_P) for group in self.groups)

    def column(self, name: str) -> int:
        """Where a parameter stands in phi."""
        return self.names.index(name)

    def surfaces(self, phi_RF: Array) -> dict[str, Surfaces]:
        """The surface of every group, in ln N and ln D themselves."""
        dx, dy = self.centre
        return {
            group.name: Surfaces(group.form.moved(group.theta(phi_RF), -dx, -dy), group.form)
            for group in self.groups
        }

    def fitted(self, phi_RF: Array) -> dict[str, Array]:
        """Ln L at the points of every group, (R, P)."""
        return {
            group.name: group.form.log_loss(group.theta(phi_RF), group.x_P, group.y_P)
            for group in self.groups
        }

    def solve(self, start_RF: Array, log_L: Losses, weight: Losses, tolerance: float = 1e-9) -> Solution:
        """Minimise from these starts.

        Parameters
        ----------
        start_RF : (R, F).
        log_L, weight : by group, (R, P) or (1, P).
        tolerance : as in `solver.solve`.
        """
        blocks = self.blocks()
        if len(blocks) > 1:  # nothing couples them: each ends when it is done, not when the slowest is
            found = [block.solve(start_RF[:, columns], log_L, weight, tolerance) for block, columns in blocks]
            return _joined(found, [columns for _, columns in blocks], start_RF)
        stacks = [_Stack.of(groups, log_L, weight) for groups in self.by_form()]

        def evaluate(phi_RF: Array, index: Index, curved: bool) -> State:
            first, *others = [stack.moments(phi_RF, index, self.objective, curved) for stack in stacks]
            value, gradient, bound, *curvature = (
                sum(parts[1:], start=parts[0]) for parts in zip(first, *others, strict=True)
            )
            return State(
                phi_RF.copy(), phi_RF.copy(), value, gradient, bound, curvature[0] if curved else bound
            )

        return minimise(evaluate, start_RF, self.points, self.objective, self.bounds, tolerance=tolerance)

    def by_form(self) -> list[list[Group]]:
        """The groups, those of one form together."""
        found: dict[type[SurfaceForm], list[Group]] = {}
        for group in self.groups:
            found.setdefault(type(group.form), []).append(group)
        return list(found.values())

    def blocks(self) -> list[tuple[JointModel, Index]]:
        """Models of the groups that share parameters, and their columns of phi; this one where all do."""
        uses = np.stack([(group.matrix != 0).any(axis=0) for group in self.groups])
        label = np.arange(len(self.groups))
        for of_column in uses.T:
            together = np.flatnonzero(of_column)
            if len(together):
                label[np.isin(label, label[together])] = label[together].min()
        if len(set(label.tolist())) == 1:
            return [(self, np.arange(len(self.names)))]
        found = []
        for one in sorted(set(label.tolist())):
            columns = np.flatnonzero(uses[label == one].any(axis=0))
            groups = [
                replace(group, matrix=group.matrix[:, columns])
                for group, its in zip(self.groups, label, strict=True)
                if its == one
            ]
            names = tuple(self.names[column] for column in columns)
            bounds = Bounds(self.bounds.low[columns], self.bounds.high[columns])
            found.append((JointModel(names, tuple(groups), self.objective, bounds, self.centre), columns))
        return found

    def best(self, starts_SRF: Array, log_L: Losses, weight: Losses) -> JointFit:
        """The lowest minimum of every replicate over its starts (S, R, F)."""
        S, R, F = starts_SRF.shape
        rows = np.tile(np.arange(R), S)
        tiled, weights = (
            {name: _rows(value, rows) for name, value in losses.items()} for losses in (log_L, weight)
        )
        solution = self.solve(starts_SRF.reshape(S * R, F), tiled, weights)
        objective_SR, phi_SRF = solution.objective.reshape(S, R), solution.phi.reshape(S, R, F)
        lowest, row = _chosen(_equal(objective_SR, 0.0), phi_SRF), np.arange(R)
        return JointFit(phi_SRF[lowest, row], objective_SR[lowest, row])

    def point(self, starts_SF: Array, log_L: Losses, weight: Losses) -> tuple[JointFit, JointCertificate]:
        """Fit once, from several starts, to the last digit.

        Parameters
        ----------
        starts_SF : (S, F).
        log_L, weight : by group, (1, P).
        """
        S = len(starts_SF)
        found = self.solve(starts_SF, log_L, weight)
        rounding = self.objective.scale * self.points * ROUNDING**2 / 2
        equal = _equal(found.objective, rounding)
        lowest = int(_chosen(equal, found.phi))
        final = self.solve(found.phi[[lowest]], log_L, weight, tolerance=1e-14)
        value = float(final.objective[0])
        decrease = float(final.decrease[0]) if value > rounding else 0.0
        certificate = JointCertificate(
            converged=decrease * value <= CONVERGED * value + rounding,
            gradient=at_most(float(final.gradient[0]), 1e-12),
            decrease=at_most(decrease, 1e-15),
            starts=S,
            agreeing=int((found.objective <= value * (1 + AGREEMENT) + rounding).sum()),
            condition=self.condition(final.phi[0], log_L, weight),
            at_bound=self.at_bound(final.phi[0]),
            spread=self.spread(found.phi[equal]),
        )
        order = np.argsort(found.objective)
        apart = np.diff(found.objective[order]) > AGREEMENT * value + rounding
        minima = np.concatenate([final.phi, found.phi[order[1:][apart]]])
        objective = np.where(final.objective <= rounding, 0.0, final.objective)
        return JointFit(final.phi, objective, minima), certificate

    def spread(self, phi_SF: Array) -> float:
        """Largest difference in ln L of a point between parameters (S, F)."""
        return max(float(np.ptp(log_L, axis=0).max()) for log_L in self.fitted(phi_SF).values())

    def at_bound(self, phi_F: Array) -> list[str]:
        """Names of the parameters that rest at an end of the box, or within a thousandth of it."""
        width = 1e-3 * np.minimum(self.bounds.high - self.bounds.low, 1.0)
        close = (phi_F <= self.bounds.low + width) | (phi_F >= self.bounds.high - width)
        return [name for name, rests in zip(self.names, close, strict=True) if rests]

    def condition(self, phi_F: Array, log_L: Losses, weight: Losses) -> float:
        """Condition number of J' W J over all groups, at most 1e16.

        Parameters
        ----------
        phi_F : (F,).
        log_L, weight : by group, (1, P).
        """
        rows = []
        for group in self.groups:
            fitted, J_RQP, _ = group.form.derivatives(group.theta(phi_F[None]), group.x_P, group.y_P)
            residual, J_PF = fitted[0] - log_L[group.name][0], J_RQP[0].T @ group.matrix
            if self.objective.residual == "raw":
                residual = np.exp(fitted[0]) - np.exp(log_L[group.name][0])
                J_PF = J_PF * np.exp(fitted[0])[:, None]
            counts = weight[group.name][0] / np.maximum(1.0, np.abs(residual) / self.objective.corner)
            rows.append(J_PF * np.sqrt(counts)[:, None])
        singular = np.linalg.svd(np.concatenate(rows), compute_uv=False)
        return float((singular[0] / max(singular[-1], 1e-8 * singular[0])) ** 2)


def _equal(objective_S: Array, rounding: float) -> NDArray[np.bool_]:
    """Starts (first axis) that ended as low as the lowest, up to rounding."""
    return np.asarray(objective_S <= objective_S.min(axis=0) * (1 + EQUAL) + rounding)


def _chosen(equal_S: NDArray[np.bool_], phi_SF: Array) -> Index:
    """Of the starts (first axis) that ended equally low, the number of that of the smallest sum of phi.

    What decides among equals is of no account, as long as rounding does not.
    """
    return np.asarray(np.where(equal_S, phi_SF.sum(axis=-1), np.inf).argmin(axis=0))


@dataclass(frozen=True)
class _Stack:
    """Groups of one form with their losses: add their share to the derivatives of the whole.

    All are evaluated at once, (groups x R) surfaces: one call for each would cost more than what it computes.
    A group of fewer points than another has points of no weight at the end.

    Attributes
    ----------
    groups : of one form.
    x_GP, y_GP : (G, P).
    log_L_GRP, weight_GRP : (G, R, P) or (G, 1, P).
    of_vector, of_matrix : add up the groups' first and second derivatives.
    """

    groups: list[Group]
    x_GP: Array
    y_GP: Array
    log_L_GRP: Array
    weight_GRP: Array
    of_vector: _Sums
    of_matrix: _Sums

    @classmethod
    def of(cls, groups: list[Group], log_L: Losses, weight: Losses) -> _Stack:
        P = max(len(group.x_P) for group in groups)
        M_GQF = np.stack([group.matrix for group in groups])
        G, Q, F = M_GQF.shape
        return cls(
            groups,
            np.stack([_padded(group.x_P[None], P)[0] for group in groups]),
            np.stack([_padded(group.y_P[None], P)[0] for group in groups]),
            _stacked([_padded(log_L[group.name], P) for group in groups]),
            _stacked([_padded(weight[group.name], P) for group in groups]),
            _Sums.of(M_GQF.reshape(G * Q, F)),
            _Sums.of(np.einsum("gqf,gsh->gqsfh", M_GQF, M_GQF).reshape(G * Q * Q, F * F)),
        )

    def moments(self, phi_RF: Array, index: Index, objective: Objective, curved: bool) -> list[Array]:
        """What `moments` returns, of all groups together and by phi."""
        G, (R, F) = len(self.groups), phi_RF.shape
        form, P = self.groups[0].form, self.x_GP.shape[1]

        def every(values_GRP: Array) -> Array:
            chosen = values_GRP[:, index] if values_GRP.shape[1] > 1 else values_GRP
            return np.broadcast_to(chosen, (G, R, P)).reshape(G * R, P)

        theta = np.concatenate([group.theta(phi_RF) for group in self.groups])
        outside = form.outside(theta)
        theta = np.where(outside[:, None], 0.0, theta)
        x, y = every(self.x_GP[:, None]), every(self.y_GP[:, None])
        log_L, weight = every(self.log_L_GRP), every(self.weight_GRP)
        value, gradient, *second = moments(form, theta, x, y, log_L, weight, objective, curved=curved)
        value = np.where(outside, np.inf, value).reshape(G, R).sum(axis=0)
        return [
            value,
            self.of_vector(gradient.reshape(G, R, -1)),
            *(self.of_matrix(part.reshape(G, R, -1)).reshape(R, F, F) for part in second),
        ]


@dataclass(frozen=True)
class _Sums:
    """A matrix (S, T) of few entries that are not 0, by which rows of S numbers are multiplied.

    Attributes
    ----------
    source, factor : (entries,) in order of their column.
    begin, target : where each column that has an entry begins among them, and its number.
    columns : how many there are, T.
    """

    source: Index
    factor: Array
    begin: Index
    target: Index
    columns: int

    @classmethod
    def of(cls, matrix_ST: Array) -> _Sums:
        column, source = np.nonzero(matrix_ST.T)
        target, begin = np.unique(column, return_index=True)
        return cls(source, matrix_ST[source, column], begin, target, matrix_ST.shape[1])

    def __call__(self, values_GRQ: Array) -> Array:
        """Rows (R, T) for values whose first and last axes together are S."""
        G, R, Q = values_GRQ.shape
        values_SR = values_GRQ.transpose(0, 2, 1).reshape(G * Q, R)
        found_TR = np.zeros((self.columns, R))
        found_TR[self.target] = np.add.reduceat(values_SR[self.source] * self.factor[:, None], self.begin)
        return np.ascontiguousarray(found_TR.T)


def _padded(values: Array, P: int) -> Array:
    return values if values.shape[1] == P else np.pad(values, ((0, 0), (0, P - values.shape[1])))


def _stacked(values: list[Array]) -> Array:
    """(G, R, P) of (R, P) or (1, P) each."""
    R = max(len(value) for value in values)
    return np.stack([np.broadcast_to(value, (R, value.shape[1])) for value in values])


def _joined(parts: list[Solution], columns: list[Index], start_RF: Array) -> Solution:
    """Solution of the whole model from those of blocks that share nothing."""
    R, F = start_RF.shape
    found = Solution(
        *(np.empty((R, F)), np.empty((R, F)), np.zeros(R), np.zeros((R, F))),
        *(np.zeros((R, F, F)) for _ in range(3)),
    )
    for part, its in zip(parts, columns, strict=True):
        found.phi[:, its], found.theta[:, its], found.gradient_RF[:, its] = (
            part.phi,
            part.phi,
            part.gradient_RF,
        )
        found.objective[:] += part.objective
        block = np.ix_(np.arange(R), its, its)
        found.curvature[block], found.hessian[block], found.bound[block] = (
            part.curvature,
            part.hessian,
            part.bound,
        )
    return found


def _rows(values: Array, index: Index) -> Array:
    return values[index] if len(values) > 1 else values
