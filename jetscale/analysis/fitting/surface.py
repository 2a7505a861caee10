"""The loss surface L(N, D) = E + A / N^alpha + B / D^beta and its compute-optimal frontier.

Hoffmann et al. (arXiv:2203.15556), approach 3. E is the irreducible loss (`L_inf` in results.json).
Shapes: R replicates, P points, Q = 5 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surfaces:
    """R loss surfaces; every field has shape (R,). Logarithms are kept, since A and B span many decades."""

    log_A: Array
    log_B: Array
    log_E: Array
    alpha: Array
    beta: Array

    @classmethod
    def from_theta(cls, theta_RQ: Array) -> Surfaces:
        """Columns ln A, ln B, ln E, alpha, beta."""
        return cls(*np.atleast_2d(theta_RQ).T)

    @classmethod
    def single(cls, *, E: float, A: float, B: float, alpha: float, beta: float) -> Surfaces:
        """One surface from its parameters."""
        return cls.from_theta(np.array([[np.log(A), np.log(B), np.log(E), alpha, beta]]))

    @property
    def theta(self) -> Array:
        """(R, 5): ln A, ln B, ln E, alpha, beta."""
        return np.stack([self.log_A, self.log_B, self.log_E, self.alpha, self.beta], axis=1)

    @property
    def a(self) -> Array:
        """Exponent of N* ~ C^a for a cost k N D."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> Array:
        """Exponent of D* ~ C^b for a cost k N D."""
        return self.alpha / (self.alpha + self.beta)

    def log_loss(self, log_N: Array, log_D: Array) -> Array:
        """Ln L at points of shape (P,) or (R, P); (R, P)."""
        model = self.log_A[:, None] - self.alpha[:, None] * log_N
        data = self.log_B[:, None] - self.beta[:, None] * log_D
        return np.logaddexp(np.logaddexp(model, data), self.log_E[:, None])

    def directions(
        self, log_N: Array, log_D: Array, of_N: Array | None = None, of_D: Array | None = None
    ) -> Array:
        """Derivatives of ln L of the first surface by its five parameters, (P, 5).

        The parameters are those of ln N and ln D centred on the means of `of_N` and `of_D` (the points
        themselves).
        """
        total = self.log_loss(log_N, log_D)[0]
        p1 = np.exp(self.log_A[0] - self.alpha[0] * log_N - total)
        p2 = np.exp(self.log_B[0] - self.beta[0] * log_D - total)
        x = log_N - (log_N if of_N is None else of_N).mean()
        y = log_D - (log_D if of_D is None else of_D).mean()
        return np.stack([p1, p2, np.exp(self.log_E[0] - total), p1 * x, p2 * y], axis=1)

    def optimum(self, log_C: Array, log_k: float) -> tuple[Array, Array]:
        """Return ln N* and ln D* (R, K) for budgets of shape (K,) or (R, K) at cost C = k N D.

        N* = G (C/k)^a and D* = (C/k)^b / G with G = (alpha A / (beta B))^(1 / (alpha + beta)).
        """
        log_G = (np.log(self.alpha / self.beta) + self.log_A - self.log_B) / (self.alpha + self.beta)
        reach = np.asarray(log_C) - log_k
        return log_G[:, None] + self.a[:, None] * reach, self.b[:, None] * reach - log_G[:, None]

    def optimal_log_loss(self, log_C: Array, log_k: float) -> Array:
        """Ln of the lowest loss at each budget, (R, K)."""
        log_N, log_D = self.optimum(log_C, log_k)
        return self.log_loss(log_N, log_D)
