"""Approach 3: the loss surface of many replicates, each searched globally, with a certificate.

Shapes: R replicates, P points, Q = 5 parameters (ln A, ln B, ln E, alpha, beta).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.solver import (
    EXPONENT_BOUNDS,
    FLOOR_BOUND,
    Bounds,
    Constraint,
    Solution,
    free,
    natural_bounds,
    solve,
    tied,
)
from jetscale.analysis.fitting.starts import projected_starts
from jetscale.analysis.fitting.surface import Surfaces

Array = NDArray[np.float64]

ROUNDING = 1e-10  # residuals of ln L below this are rounding: noise-free data
SAME_LOSS = 1e-9  # of ln L: rounding
COLLINEAR = 0.9999  # correlation of ln N and ln D
EQUAL = 1e-10  # relative difference of the objective below which two minima are equal
NOISE = 10.0  # of a gradient in its own units, in units of the rounding of a double
DIGITS = 8  # that a parameter should have: results are compared to 1e-6
AGREEMENT = 1e-6  # relative difference of the objective below which two starts found the same minimum


class Undetermined(Exception):
    """The points cannot determine what was asked of them; the message says why."""


@dataclass(frozen=True)
class Certificate:
    """Why the minimum can be believed, or not.

    Attributes
    ----------
    converged : the predicted relative decrease is below 1e-6.
    gradient : the largest derivative of the objective by a (centred) parameter is at most this, a power of
        ten; 1e-12 stands for 0 up to rounding.
    decrease : the relative decrease predicted for a further step, g' H^-1 g / (2 F), is at most this, a power
        of ten; 1e-15 stands for 0 up to rounding.
    starts, agreeing : starts made, and those that ended within 1e-6 (relative) of the lowest objective.
    condition : condition number of the Gauss-Newton matrix, centred ln N and ln D.
    floor_share : E over the lowest loss; near 0: no floor was found.
    at_bound : names of the parameters at a bound.
    correlation : of ln N and ln D over the points.
    digits : how many digits rounding errors leave of a quantity, where these are fewer than a double should
        keep; the quantity is rounded to them, and null for 0.
    """

    converged: bool
    gradient: float
    decrease: float
    starts: int
    agreeing: int
    condition: float
    floor_share: float
    at_bound: list[str]
    correlation: float
    digits: dict[str, int]

    @property
    def has_floor(self) -> bool:
        """Whether a loss was found below which the fit cannot fall."""
        return self.floor_share >= 0.02

    def undetermined(self) -> str:
        """Why the exponents a and b cannot be given; empty where they can."""
        if not self.converged:
            return f"it did not converge (predicted relative decrease {self.decrease:.1e})"
        bounded = [name for name in self.at_bound if name in ("alpha", "beta")]
        if bounded:
            return f"{', '.join(bounded)} at a bound: the loss does not fall with N and D as the form does"
        if abs(self.correlation) > COLLINEAR:
            return (
                "D is proportional to N in every run: alpha and beta may be swapped, a and b cannot be told"
            )
        return ""

    def warnings(self) -> list[str]:
        """What a reader must know before using the fit."""
        found = []
        if self.undetermined():
            found.append(f"approach 3: no exponent: {self.undetermined()}")
        if self.digits:
            shown = ", ".join(f"{name} {count}" for name, count in self.digits.items())
            found.append(f"approach 3: so flat a minimum that rounding errors leave few digits: {shown}")
        if self.agreeing < 2:
            found.append(f"approach 3: only {self.agreeing} of {self.starts} starts reached the minimum")
        if not self.has_floor:
            found.append(
                "approach 3: no floor found: L_inf is below 2% of the lowest loss and has no interval"
            )
        if abs(self.correlation) > 0.9:
            found.append(
                f"ln N and ln D are collinear (correlation {self.correlation:+.2f}): "
                "alpha, beta and anything off their ray are badly determined"
            )
        return found


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
    tied : one exponent for both terms, alpha = beta.
    """

    log_N: Array
    log_D: Array
    objective: Objective
    tied: bool = False

    @property
    def parameters(self) -> int:
        """How many are fitted."""
        return 4 if self.tied else 5

    @property
    def centre(self) -> Array:
        """Means of ln N and ln D; centring lowers the condition number by three orders of magnitude."""
        return np.array([self.log_N.mean(), self.log_D.mean()])

    def solve(
        self,
        start: Array,
        log_L: Array,
        weight: Array,
        constraint: Constraint | None = None,
        bounds: Bounds | None = None,
        tolerance: float = 1e-9,
    ) -> Solution:
        """`solver.solve` in centred coordinates."""
        x, y = self.log_N - self.centre[0], self.log_D - self.centre[1]
        if constraint is None:
            bounds = natural_bounds(log_L, self.parameters)
            constraint = tied if self.tied else free
        return solve(start, x, y, log_L, weight, self.objective, constraint, bounds, tolerance=tolerance)

    def starts(self, log_L: Array, weight: Array, count: int) -> Array:
        """(R, count, parameters) in centred coordinates."""
        x, y = self.log_N - self.centre[0], self.log_D - self.centre[1]
        return projected_starts(x, y, log_L, weight, count, tied=self.tied)[:, :, : self.parameters]

    def uncentred(self, theta: Array) -> Surfaces:
        """Surfaces of ln N and ln D themselves."""
        shifted = theta.copy()
        shifted[:, 0] += theta[:, 3] * self.centre[0]
        shifted[:, 1] += theta[:, 4] * self.centre[1]
        return Surfaces.from_theta(shifted)

    def centred(self, surfaces: Surfaces) -> Array:
        """Inverse of `uncentred`."""
        theta = surfaces.theta
        theta[:, 0] -= theta[:, 3] * self.centre[0]
        theta[:, 1] -= theta[:, 4] * self.centre[1]
        return theta

    def replicates(self, log_L: Array, weight: Array, *, starts: int = 2) -> SurfaceFit:
        """Fit every replicate from its own best grid nodes; `log_L`, `weight`: (R, P) or (1, P)."""
        solutions = [
            self.solve(start, log_L, weight)
            for start in np.moveaxis(self.starts(log_L, weight, starts), 1, 0)
        ]
        objective_SR = np.stack([solution.objective for solution in solutions])
        best = objective_SR.argmin(axis=0)
        row = np.arange(len(best))
        theta = np.stack([solution.theta for solution in solutions])[best, row]
        return SurfaceFit(self.uncentred(theta), objective_SR[best, row])

    def point(self, log_L: Array, *, starts: int = 12) -> tuple[SurfaceFit, Certificate]:
        """Fit once, from `starts` nodes far apart, to the last digit; `log_L`: (P,).

        Raises
        ------
        Undetermined
            Too few points for the parameters, or fewer than three values of N or of D.
        """
        self.check_points(log_L)
        content = (self.log_N.tobytes(), self.log_D.tobytes(), log_L.tobytes())
        return _point(*content, self.objective, self.tied, starts)

    def search(self, log_L: Array, starts: int = 12) -> tuple[SurfaceFit, Certificate]:
        """Do what `point` promises, whether it was done before or not."""
        weights = np.ones((1, len(log_L)))
        solution = self.solve(
            self.starts(log_L[None], weights, starts)[0], *_tile(starts, log_L[None], weights)
        )
        rounding = self.rounding(log_L)
        best = _lowest(solution, rounding)
        final = self.solve(solution.phi[[best]], log_L[None], weights, tolerance=1e-14)
        agreeing = int((solution.objective <= final.objective[0] * (1 + AGREEMENT) + rounding).sum())
        certificate = self.certify(final, log_L, starts, agreeing)
        objective = np.where(final.objective <= rounding, 0.0, final.objective)
        return SurfaceFit(self.uncentred(final.theta), objective), certificate

    def rounding(self, log_L: Array) -> float:
        """The objective below which residuals are rounding errors."""
        return float(self.objective.scale * len(log_L) * ROUNDING**2 / 2)

    def check_points(self, log_L: Array) -> None:
        """Refuse what cannot determine five parameters."""
        distinct_N, distinct_D = len(np.unique(self.log_N)), len(np.unique(self.log_D))
        if len(log_L) <= self.parameters:
            raise Undetermined(f"{len(log_L)} points cannot determine {self.parameters} parameters")
        if np.ptp(log_L) < SAME_LOSS:
            raise Undetermined("the loss does not depend on N or D")
        if distinct_N < 3 or distinct_D < 3:
            raise Undetermined(
                f"N takes {distinct_N} and D takes {distinct_D} values; a surface needs at least 3 of each"
            )

    def certify(self, solution: Solution, log_L: Array, starts: int, agreeing: int) -> Certificate:
        """Certificate of the one replicate in `solution`."""
        theta = solution.theta[0]
        rounding = self.rounding(log_L)
        low, high = EXPONENT_BOUNDS
        floor_share = float(np.exp(theta[2] - log_L.min()))
        at_bound = [
            name for name, v in (("alpha", theta[3]), ("beta", theta[4])) if v < 1.01 * low or v > 0.99 * high
        ]
        if floor_share < 1.5 * FLOOR_BOUND:
            at_bound.append("L_inf")
        return Certificate(
            converged=bool(
                solution.decrease[0] * solution.objective[0] <= 1e-6 * solution.objective[0] + rounding
            ),
            gradient=_at_most(float(solution.gradient[0]), 1e-12),
            decrease=_at_most(
                float(solution.decrease[0]) if solution.objective[0] > rounding else 0.0, 1e-15
            ),
            starts=starts,
            agreeing=agreeing,
            condition=self.condition(theta, log_L),
            floor_share=floor_share,
            at_bound=at_bound,
            correlation=float(np.corrcoef(self.log_N, self.log_D)[0, 1]),
            digits=self.digits(solution),
        )

    def condition(self, theta: Array, log_L: Array) -> float:
        """Condition number of J' W J, at most 1e16; from J itself, where rounding takes half the digits."""
        surface = Surfaces.from_theta(theta[None])
        x, y = self.log_N - self.centre[0], self.log_D - self.centre[1]
        total, directions = surface.log_loss(x, y)[0], surface.directions(x, y)
        if self.tied:
            directions = np.column_stack([directions[:, :3], directions[:, 3] + directions[:, 4]])
        residual = total - log_L
        if self.objective.residual == "raw":
            residual, directions = np.exp(total) - np.exp(log_L), directions * np.exp(total)[:, None]
        weight = 1 / np.maximum(1.0, np.abs(residual) / self.objective.corner)
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
        theta, last = solution.theta[0], self.parameters - 1
        identity = np.eye(self.parameters)
        alpha, beta = theta[3:]
        share = beta / (alpha + beta) ** 2 * identity[3] - alpha / (alpha + beta) ** 2 * identity[last]
        relative = {
            "L_inf": identity[2],
            "A": identity[0] + self.centre[0] * identity[3],
            "B": identity[1] + self.centre[1] * identity[last],
            "alpha": identity[3] / alpha,
            "beta": identity[last] / beta,
            "a": share * (alpha + beta) / beta,
            "b": share * (alpha + beta) / alpha,
        }
        found = {}
        for name, direction in relative.items():
            along = (direction / unit) @ vectors / np.maximum(np.abs(values), noise)
            count = int(-np.log10(max(noise * float(np.linalg.norm(along)), 1e-16)))
            if count < DIGITS:
                found[name] = max(count, 0)
        return found


@lru_cache(maxsize=64)
def _point(
    log_N: bytes, log_D: bytes, log_L: bytes, objective: Objective, tied: bool, starts: int
) -> tuple[SurfaceFit, Certificate]:
    """Remember fits: a multiverse and windows of other forms ask for the same one again and again."""
    x, y, z = (np.frombuffer(content) for content in (log_N, log_D, log_L))
    return Fitter(x, y, objective, tied).search(z, starts)


def _lowest(solution: Solution, rounding: float) -> int:
    """Number of the lowest solution; of those that are equal up to rounding the one of smallest alpha."""
    equal = np.flatnonzero(solution.objective <= solution.objective.min() * (1 + EQUAL) + rounding)
    return int(equal[solution.theta[equal, 3].argmin()])


def _at_most(value: float, rounding: float) -> float:
    """Return the next power of ten, or `rounding` where the value is below it."""
    return rounding if value <= rounding else float(10.0 ** np.ceil(np.log10(value)))


def _tile(count: int, log_L: Array, weight: Array) -> tuple[Array, Array]:
    return np.broadcast_to(log_L, (count, log_L.shape[1])), np.broadcast_to(weight, (count, weight.shape[1]))
