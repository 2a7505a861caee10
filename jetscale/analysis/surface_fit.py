"""Approach 3: the loss surface of many replicates, each searched globally, with a certificate.

Shapes: R replicates, P points, Q = 5 parameters (ln A, ln B, ln E, alpha, beta).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.objective import Objective
from jetscale.analysis.solver import (
    EXPONENT_BOUNDS,
    FLOOR_BOUND,
    Constraint,
    Solution,
    free,
    natural_bounds,
    solve,
    tied,
)
from jetscale.analysis.starts import projected_starts
from jetscale.analysis.surface import Surfaces

Array = NDArray[np.float64]

ROUNDING = 1e-10  # residuals of ln L below this are rounding: noise-free data
SAME_LOSS = 1e-9  # of ln L: rounding
COLLINEAR = 0.9999  # correlation of ln N and ln D
AGREEMENT = 1e-6  # relative difference of the objective below which two starts found the same minimum


class Undetermined(Exception):
    """The points cannot determine what was asked of them; the message says why."""


@dataclass(frozen=True)
class Certificate:
    """Why the minimum can be believed, or not.

    Attributes
    ----------
    converged : the predicted relative decrease is below 1e-6.
    gradient : largest derivative of the objective by a (centred) parameter.
    decrease : relative decrease predicted for a further step, g' H^-1 g / (2 F).
    starts, agreeing : starts made, and those that ended within 1e-6 (relative) of the lowest objective.
    condition : condition number of the Gauss-Newton matrix, centred ln N and ln D.
    floor_share : E over the lowest loss; near 0: no floor was found.
    at_bound : names of the parameters at a bound.
    correlation : of ln N and ln D over the points.
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
        tolerance: float = 1e-9,
    ) -> Solution:
        """`solver.solve` in centred coordinates."""
        x, y = self.log_N - self.centre[0], self.log_D - self.centre[1]
        bounds = None
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

    def point(
        self, log_L: Array, weight: Array | None = None, *, starts: int = 12
    ) -> tuple[SurfaceFit, Certificate]:
        """Fit once, from `starts` nodes far apart, to the last digit; `log_L`: (P,).

        Raises
        ------
        Undetermined
            Too few points for the parameters, or fewer than three values of N or of D.
        """
        self.check_points(log_L)
        weights = np.ones((1, len(log_L))) if weight is None else weight[None]
        solution = self.solve(
            self.starts(log_L[None], weights, starts)[0], *_tile(starts, log_L[None], weights)
        )
        best = int(solution.objective.argmin())
        final = self.solve(solution.phi[[best]], log_L[None], weights, tolerance=1e-14)
        rounding = self.objective.scale * len(log_L) * ROUNDING**2 / 2
        same = final.objective[0] * (1 + AGREEMENT) + rounding
        agreeing = int((solution.objective <= same).sum())
        if (
            agreeing < 2
        ):  # the others may have stopped on their way down a flat valley, as of a floor at its bound
            solution = self.solve(solution.phi, *_tile(starts, log_L[None], weights), tolerance=1e-14)
            agreeing = int((solution.objective <= same).sum())
        certificate = self.certify(final, log_L, starts, agreeing)
        return SurfaceFit(self.uncentred(final.theta), final.objective), certificate

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
        rounding = self.objective.scale * len(log_L) * ROUNDING**2 / 2
        low, high = EXPONENT_BOUNDS
        floor_share = float(np.exp(theta[2] - log_L.min()))
        at_bound = [
            name for name, v in (("alpha", theta[3]), ("beta", theta[4])) if v < 1.01 * low or v > 0.99 * high
        ]
        if floor_share < 1.5 * FLOOR_BOUND:
            at_bound.append("L_inf")
        eigenvalues = np.linalg.eigvalsh(solution.curvature[0])
        return Certificate(
            converged=bool(
                solution.decrease[0] * solution.objective[0] <= 1e-6 * solution.objective[0] + rounding
            ),
            gradient=float(solution.gradient[0]),
            decrease=float(solution.decrease[0]),
            starts=starts,
            agreeing=agreeing,
            condition=float(eigenvalues[-1] / max(eigenvalues[0], 1e-16 * eigenvalues[-1], 1e-300)),
            floor_share=floor_share,
            at_bound=at_bound,
            correlation=float(np.corrcoef(self.log_N, self.log_D)[0, 1]),
        )


def _tile(count: int, log_L: Array, weight: Array) -> tuple[Array, Array]:
    return np.broadcast_to(log_L, (count, log_L.shape[1])), np.broadcast_to(weight, (count, weight.shape[1]))
