"""Approach 3: the loss surface of many replicates, each searched globally, with a certificate.

Shapes: R replicates, P points, Q = 5 parameters (ln A, ln B, ln E, alpha, beta).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.certificate import Certificate, at_most
from jetscale.analysis.fitting.constraints import Bounds, Constraint, Index
from jetscale.analysis.fitting.numbers import distinct
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.side_by_side import SideBySide
from jetscale.analysis.fitting.solver import Solution, solve
from jetscale.analysis.fitting.surface import FLOOR_BOUND, SurfaceForm, Surfaces, form_named

Array = NDArray[np.float64]

ROUNDING = 1e-10  # residuals of ln L below this are rounding: noise-free data
SAME_LOSS = 1e-9  # of ln L: rounding
EQUAL = 1e-10  # relative difference of the objective below which two minima are equal
NOISE = 10.0  # of a gradient in its own units, in units of the rounding of a double
DIGITS = 8  # that a parameter should have: results are compared to 1e-6
AGREEMENT = 1e-6  # relative difference of the objective below which two starts found the same minimum
STARTS = 12  # nodes of the grid from which a fit of the data starts
REMEMBERED = 1024  # fits


class Undetermined(Exception):
    """The points cannot determine what was asked of them; the message says why."""


@dataclass(frozen=True)
class SurfaceFit:
    """R fitted surfaces with the objective of each."""

    surfaces: Surfaces
    objective: Array


@dataclass(frozen=True)
class Fitter:
    """Points to fit, centred once.

    Attributes
    ----------
    log_N, log_D : (P,).
    objective : what is minimised.
    form : of the surface.
    weight : (P,) how much each point counts; None: all alike. It multiplies the weights of every solve.
    """

    log_N: Array
    log_D: Array
    objective: Objective
    form: SurfaceForm = field(default_factory=lambda: form_named("separate"))
    weight: Array | None = None

    def of(self, chosen: NDArray[np.bool_]) -> Fitter:
        """The same for some of the points.

        Parameters
        ----------
        chosen : (P,) which they are.
        """
        weight = None if self.weight is None else self.weight[chosen]
        return replace(self, log_N=self.log_N[chosen], log_D=self.log_D[chosen], weight=weight)

    @property
    def weights(self) -> Array:
        """Weights of the points, (P,)."""
        return np.ones(len(self.log_N)) if self.weight is None else self.weight

    @property
    def parameters(self) -> int:
        """How many are fitted."""
        return len(self.form.free)

    @property
    def centre(self) -> Array:
        """Means of ln N and ln D; centring lowers the condition number by three orders of magnitude.

        0 along an axis that the form does not let be centred.
        """
        means = (self.log_N.mean(), self.log_D.mean())
        return np.array(
            [mean if moves else 0.0 for mean, moves in zip(means, self.form.centred, strict=True)]
        )

    def solve(
        self,
        start: Array,
        log_L: Array,
        weight: Array,
        constraint: Constraint | None = None,
        bounds: Bounds | None = None,
        tolerance: float = 1e-9,
    ) -> Solution:
        """`solver.solve` in centred coordinates.

        Parameters
        ----------
        start : (R, F).
        log_L, weight : (R, P) or (1, P).
        constraint, bounds : those of the form by default.
        tolerance : as in `solver.solve`.
        """
        x, y = self.log_N - self.centre[0], self.log_D - self.centre[1]
        if constraint is None:
            bounds, constraint = self.form.bounds(log_L), self.form.constraint
        weight = weight if self.weight is None else weight * self.weight
        return solve(
            start, x, y, log_L, weight, self.objective, self.form, constraint, bounds, tolerance=tolerance
        )

    def starts(self, log_L: Array, weight: Array, count: int) -> Array:
        """(R, count, parameters) in centred coordinates.

        Parameters
        ----------
        log_L, weight : (R, P) or (1, P).
        count : starts for each replicate.
        """
        x, y = self.log_N - self.centre[0], self.log_D - self.centre[1]
        weight = weight if self.weight is None else weight * self.weight
        return self.form.starts(x, y, log_L, weight, count)

    def uncentred(self, theta: Array) -> Surfaces:
        """Surfaces of ln N and ln D themselves."""
        return Surfaces(self.form.moved(theta, -self.centre[0], -self.centre[1]), self.form)

    def centred(self, surfaces: Surfaces) -> Array:
        """Inverse of `uncentred`: theta, (R, Q)."""
        return self.form.moved(surfaces.theta, self.centre[0], self.centre[1])

    def replicates(self, log_L: Array, weight: Array, *, starts: int = 2) -> SurfaceFit:
        """Fit every replicate from its own best grid nodes; `log_L`, `weight`: (R, P) or (1, P).

        Parameters
        ----------
        log_L, weight : (R, P) or (1, P).
        starts : for each replicate.
        """
        solutions = [
            self.solve(start, log_L, weight)
            for start in np.moveaxis(self.starts(log_L, weight, starts), 1, 0)
        ]
        objective_SR = np.stack([solution.objective for solution in solutions])
        best = objective_SR.argmin(axis=0)
        row = np.arange(len(best))
        theta = np.stack([solution.theta for solution in solutions])[best, row]
        return SurfaceFit(self.uncentred(theta), objective_SR[best, row])

    def point(self, log_L: Array, *, starts: int = STARTS) -> tuple[SurfaceFit, Certificate]:
        """Fit once, from `starts` nodes far apart, to the last digit; `log_L`: (P,).

        Parameters
        ----------
        log_L : (P,).
        starts : nodes of the grid.

        Raises
        ------
        Undetermined
            Too few points for the parameters, or fewer than three values of N or of D.
        """
        self.check_points(log_L)
        prefit([(self, log_L)], starts)
        return _FOUND[self._content(log_L, starts)]

    def _content(self, log_L: Array, starts: int) -> tuple[object, ...]:
        """What a fit depends on."""
        weight = b"" if self.weight is None else self.weight.tobytes()
        points = (self.log_N.tobytes(), self.log_D.tobytes(), log_L.tobytes(), weight)
        return (*points, self.objective, self.form, starts)

    def search(self, log_L: Array, starts: int = STARTS) -> tuple[SurfaceFit, Certificate]:
        """Do what `point` promises, whether it was done before or not.

        Parameters
        ----------
        log_L : (P,).
        starts : nodes of the grid.
        """
        return _search([(self, log_L)], starts)[0]

    def compared(self, log_L: Array) -> Callable[[Array, Array], Array]:
        """Fit for a comparison with the additive form: without a certificate, next to it where the form can.

        Parameters
        ----------
        log_L : (P,).

        Returns
        -------
        Function of ln N and ln D (T,) that predicts ln L (T,).

        Raises
        ------
        Undetermined
            As in `point`.
        """
        self.check_points(log_L)
        precompare([(self, log_L)])
        surfaces = _COMPARED.get(self._content(log_L, 0)) or self.point(log_L)[0].surfaces
        return lambda x, y: surfaces.log_loss(x, y)[0]

    @property
    def additive(self) -> Fitter:
        """The same points with the additive form."""
        return replace(self, form=form_named("separate"))

    def rounding(self, log_L: Array) -> float:
        """The objective below which residuals are rounding errors."""
        return float(self.objective.scale * len(log_L) * ROUNDING**2 / 2)

    def check_points(self, log_L: Array) -> None:
        """Refuse what cannot determine the parameters; values within 0.1% of one another count once."""
        distinct_N, distinct_D = distinct(self.log_N), distinct(self.log_D)
        needed_N, needed_D = self.form.distinct
        if len(log_L) <= self.parameters:
            raise Undetermined(f"{len(log_L)} points cannot determine {self.parameters} parameters")
        if np.ptp(log_L) < SAME_LOSS:
            raise Undetermined("the loss does not depend on N or D")
        if distinct_N < needed_N or distinct_D < needed_D:
            needs = "3 of each" if needed_N == needed_D == 3 else f"{needed_N} of N and {needed_D} of D"
            raise Undetermined(
                f"N takes {distinct_N} and D takes {distinct_D} values; a surface needs at least {needs}"
            )

    def certify(self, solution: Solution, log_L: Array, starts: int, agreeing: int) -> Certificate:
        """Certificate of the one replicate in `solution`.

        Parameters
        ----------
        solution : of one replicate.
        log_L : (P,).
        starts, agreeing : how many were made, and ended in this minimum.
        """
        theta = solution.theta[0]
        rounding = self.rounding(log_L)
        has_floor = "L_inf" in self.form.reported
        log_floor = Surfaces(theta[None], self.form).log_floor[0] if has_floor else np.nan
        floor_share = float(np.exp(log_floor - log_L.min()))
        at_bound = [self.form.parameters[q] for q in self.form.shapes if self._at_limit(q, theta[q])]
        if floor_share < 1.5 * FLOOR_BOUND:
            at_bound.append("L_inf")
        return Certificate(
            converged=bool(
                solution.decrease[0] * solution.objective[0] <= 1e-6 * solution.objective[0] + rounding
            ),
            gradient=at_most(float(solution.gradient[0]), 1e-12),
            decrease=at_most(float(solution.decrease[0]) if solution.objective[0] > rounding else 0.0, 1e-15),
            starts=starts,
            agreeing=agreeing,
            condition=self.condition(theta, log_L),
            floor_share=floor_share,
            at_bound=at_bound,
            correlation=_correlation(self.log_N, self.log_D),
            digits=self.digits(solution),
        )

    def _at_limit(self, column: int, value: float) -> bool:
        """Whether a parameter that is no logarithm is within 1% of a limit."""
        low, high = self.form.limit(self.form.parameters[column])
        return bool(value - low < 0.01 * abs(low) or high - value < 0.01 * abs(high))

    def condition(self, theta: Array, log_L: Array) -> float:
        """Condition number of J' W J, at most 1e16; from J itself, where rounding takes half the digits.

        Parameters
        ----------
        theta : (Q,) centred parameters.
        log_L : (P,).
        """
        surface = Surfaces(theta[None], self.form)
        x, y = self.log_N - self.centre[0], self.log_D - self.centre[1]
        total, directions = surface.log_loss(x, y)[0], surface.directions(x, y)
        _, tangent, _ = self.form.constraint(self.form.reduced(theta[None]), np.array([0]))
        if directions.shape[1] == tangent.shape[1]:  # a pinned form gives those of its free parameters
            directions = directions @ tangent[0]
        residual = total - log_L
        if self.objective.residual == "raw":
            residual, directions = np.exp(total) - np.exp(log_L), directions * np.exp(total)[:, None]
        weight = self.weights / np.maximum(1.0, np.abs(residual) / self.objective.corner)
        singular = np.linalg.svd(directions * np.sqrt(weight)[:, None], compute_uv=False)
        return float((singular[0] / max(singular[-1], 1e-8 * singular[0])) ** 2)

    def digits(self, solution: Solution) -> dict[str, int]:
        """Digits of the parameters, and of a and b, that are not rounding; those with enough are left out.

        A gradient with rounding errors, solved with the curvature: on a ray of N and D the curvature is
        singular, and the parameters move freely along it.
        """
        curvature = solution.hessian[0]
        unit = np.sqrt(np.maximum(np.diag(solution.curvature[0]), np.finfo(float).tiny))
        values, vectors = np.linalg.eigh(curvature / np.outer(unit, unit))
        noise = NOISE * np.finfo(float).eps
        found = {}
        for name, direction in self.sensitivities(solution.phi[0]).items():
            along = (direction / unit) @ vectors / np.maximum(np.abs(values), noise)
            size = np.abs(along).max()  # infinite, or its square is, for a curvature that underflows
            error = noise * size * float(np.linalg.norm(along / size)) if 0 < size < np.inf else size
            count = int(-np.log10(np.clip(error, 1e-16, 1.0))) if np.isfinite(error) else 0
            if count < DIGITS:
                found[name] = count
        return found

    def sensitivities(self, phi: Array) -> dict[str, Array]:
        """Relative derivatives of the reported quantities, and of a and b, by the free parameters.

        Parameters
        ----------
        phi : (F,) free parameters of a centred surface.

        Returns
        -------
        By name, (F,): by differences over 2e-6, good to nine digits. Without a and b where the form has no
        closed form of them.
        """
        F, h = len(phi), 1e-6
        points = np.concatenate([phi + h * np.eye(F), phi - h * np.eye(F), phi[None]])
        theta, _, _ = self.form.constraint(points, np.arange(len(points)))
        surfaces = self.uncentred(theta)
        values = self.form.values(surfaces.theta)
        exponents = self.form.exponents(surfaces.theta)
        if exponents is not None:
            values |= {"a": exponents[0], "b": exponents[1]}
        found = {}
        for name, value in values.items():
            up, down = value[:F], value[F : 2 * F]
            found[name] = (up - down) / (2 * h * max(abs(float(value[-1])), np.finfo(float).tiny))
        return found


def _correlation(x_P: Array, y_P: Array) -> float:
    """Of ln N and ln D; NaN where one of them does not vary."""
    if np.ptp(x_P) == 0 or np.ptp(y_P) == 0:
        return float("nan")
    return float(np.corrcoef(x_P, y_P)[0, 1])


Problem = tuple[Fitter, Array]  # points, and their ln L (P,)

_FOUND: OrderedDict[tuple[object, ...], tuple[SurfaceFit, Certificate]] = OrderedDict()
"""Fits that were made: a multiverse and windows of other forms ask for the same one again and again."""


_COMPARED: OrderedDict[tuple[object, ...], Surfaces] = OrderedDict()
"""Surfaces that were fitted next to additive ones."""


def precompare(problems: Iterable[Problem]) -> None:
    """Fit many sets of points at once and remember it, for `Fitter.compared` to find.

    Parameters
    ----------
    problems : what `Fitter.compared` will be asked for.
    """
    whole = list(problems)
    prefit((fitter if fitter.form.additive else fitter.additive, log_L) for fitter, log_L in whole)
    alike: dict[tuple[SurfaceForm, Objective], list[tuple[Problem, Array]]] = {}
    for fitter, log_L in whole:
        try:
            fitter.check_points(log_L)
            fitter.additive.check_points(log_L)
        except Undetermined:
            continue
        if not fitter.form.additive and fitter._content(log_L, 0) not in _COMPARED:
            nearest = fitter.additive.point(log_L)[0].surfaces
            starts = fitter.form.nearby(fitter.additive.centred(nearest))
            if starts is not None:
                alike.setdefault((fitter.form, fitter.objective), []).append(((fitter, log_L), starts))
    for (form, _), group in alike.items():
        points = side_by_side([problem for problem, _ in group])
        row = np.repeat(np.arange(len(group)), [len(starts) for _, starts in group])
        solution = points.solve(
            row,
            np.concatenate([starts for _, starts in group]),
            form.constraint,
            _boxes([problem for problem, _ in group]).of(row),
        )
        for k, ((fitter, log_L), _) in enumerate(group):
            mine = np.flatnonzero(row == k)
            lowest = mine[[solution.objective[mine].argmin()]]
            _COMPARED[fitter._content(log_L, 0)] = fitter.uncentred(solution.theta[lowest])
    while len(_COMPARED) > REMEMBERED:
        _COMPARED.popitem(last=False)


def _boxes(problems: Sequence[Problem]) -> Bounds:
    """Bounds of the free parameters of every problem, (K, F)."""
    boxes = [fitter.form.bounds(log_L[None]) for fitter, log_L in problems]
    return Bounds(np.stack([box.low for box in boxes]), np.stack([box.high for box in boxes]))


def prefit(problems: Iterable[Problem], starts: int = STARTS) -> None:
    """Fit many sets of points at once and remember it, for `Fitter.point` to find.

    A small fit takes as long as its calls of numpy do, whatever they compute; so all fits of one form and
    objective go through the solver side by side. Points that determine no fit are passed over.

    Parameters
    ----------
    problems : what `Fitter.point` will be asked for.
    starts : nodes of the grid.
    """
    alike: dict[tuple[SurfaceForm, Objective], dict[tuple[object, ...], Problem]] = {}
    for fitter, log_L in problems:
        content = fitter._content(log_L, starts)
        if content in _FOUND:
            _FOUND.move_to_end(content)
            continue
        try:
            fitter.check_points(log_L)
        except Undetermined:
            continue
        alike.setdefault((fitter.form, fitter.objective), {})[content] = (fitter, log_L)
    for group in alike.values():
        _FOUND.update(zip(group, _search(list(group.values()), starts), strict=True))
    while len(_FOUND) > REMEMBERED:
        _FOUND.popitem(last=False)


def side_by_side(problems: Sequence[Problem]) -> SideBySide:
    """Sets of points of one form and objective, to be solved together.

    Parameters
    ----------
    problems : at least one.
    """
    points = []
    for fitter, log_L in problems:
        x, y = fitter.log_N - fitter.centre[0], fitter.log_D - fitter.centre[1]
        points.append((x, y, log_L, fitter.weights))
    return SideBySide.of(problems[0][0].form, problems[0][0].objective, points)


def _search(problems: Sequence[Problem], starts: int) -> list[tuple[SurfaceFit, Certificate]]:
    """Fit sets of points of one form and objective; where one has fewer, the rest are points of no weight."""
    form = problems[0][0].form
    points = side_by_side(problems)
    bounds = _boxes(problems)
    start = [fitter.starts(each[None], np.ones((1, len(each))), starts)[0] for fitter, each in problems]

    def solved(start_RF: Array, row: Index, tolerance: float) -> Solution:
        return points.solve(row, start_RF, form.constraint, bounds.of(row), tolerance)

    every = np.arange(len(problems))
    solution = solved(np.concatenate(start), np.repeat(every, starts), 1e-9)
    parts = [solution.of(slice(k * starts, (k + 1) * starts)) for k in every]
    rounding = [fitter.rounding(each) for fitter, each in problems]
    lowest = [_lowest(part, least, form) for part, least in zip(parts, rounding, strict=True)]
    best = np.stack([part.phi[at] for part, at in zip(parts, lowest, strict=True)])
    final = solved(best, every, 1e-14)
    found = []
    for k, (fitter, each) in enumerate(problems):
        one = final.of(slice(k, k + 1))
        agreeing = int((parts[k].objective <= one.objective[0] * (1 + AGREEMENT) + rounding[k]).sum())
        value = np.where(one.objective <= rounding[k], 0.0, one.objective)
        certificate = fitter.certify(one, each, starts, agreeing)
        found.append((SurfaceFit(fitter.uncentred(one.theta), value), certificate))
    return found


def _lowest(solution: Solution, rounding: float, form: SurfaceForm) -> int:
    """Number of the lowest solution; of those that are equal up to rounding the one of smallest alpha.

    Which parameter decides among equals is of no account, as long as rounding does not: the first that is no
    logarithm.
    """
    equal = np.flatnonzero(solution.objective <= solution.objective.min() * (1 + EQUAL) + rounding)
    return int(equal[solution.theta[equal, form.shapes[0]].argmin()])
