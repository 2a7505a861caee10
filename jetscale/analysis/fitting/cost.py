"""What training costs: C = k N D, with k a number or, where a table's C says so, a function of N and D.

Attention, embeddings and data seen for free make k depend on N (and D). Then the best N at a budget is not
that of C = k N D: at the optimum alpha A N^-alpha / (1 + dln k/dln N) = beta B D^-beta / (1 + dln k/dln D),
and the exponent is a = beta / (alpha + beta (1 + dln k/dln N)) where k is a power of N (Porian et al.,
arXiv:2406.19146).

Shapes: R replicates, K budgets, P points, F terms of ln k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import distinct
from jetscale.analysis.fitting.surface import Surfaces

Array = NDArray[np.float64]

SAME = 1.02  # largest over smallest k up to which it is one number
CLOSE = 0.005  # rms of ln k about a form that is taken without looking for a better one
NOT_MODELLED = 0.03  # rms of ln k beyond which it is no function of N and D
MIN_ELASTICITY = 0.1  # of C in N or D; with less the cost does not rise as training does
BUDGETS = 9  # at which N* is found for an exponent
_REACH = 80.0  # of ln N about a first guess
_HALVINGS = 90

# powers of (ln N, ln D) in ln k, tried in this order
FORMS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((0, 0), (1, 0)),
    ((0, 0), (1, 0), (2, 0)),
    ((0, 0), (1, 0), (2, 0), (3, 0)),
    ((0, 0), (1, 0), (0, 1)),
    ((0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1)),
    ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (0, 3), (1, 1), (2, 1), (1, 2)),
)


@dataclass(frozen=True)
class Cost:
    """ln C = ln N + ln D + ln k, with ln k a polynomial of ln N and ln D inside a box, straight beyond it.

    Attributes
    ----------
    powers : of (ln N, ln D), each from the middle of the box.
    coefficients : of the terms, as many.
    low, high : corners (ln N, ln D) of the box.
    problem : why C given cannot be told from N and D (C = k N D is used then); empty where it can.
    """

    powers: tuple[tuple[int, int], ...]
    coefficients: tuple[float, ...]
    low: tuple[float, float] = (0.0, 0.0)
    high: tuple[float, float] = (0.0, 0.0)
    problem: str = ""

    @classmethod
    def constant(cls, k: float, problem: str = "") -> Cost:
        """C = k N D."""
        return cls(((0, 0),), (float(np.log(k)),), problem=problem)

    @classmethod
    def of_points(cls, log_N: Array, log_D: Array, log_C: Array, k: float) -> Cost:
        """Cost of points (P,) whose C is known; `k` is taken where it agrees.

        Parameters
        ----------
        log_N, log_D, log_C : (P,) ln of parameters, samples and FLOPs.
        k : of C = k N D.
        """
        log_k = log_C - log_N - log_D
        middle = float(np.exp(np.median(log_k)))
        if abs(middle / k - 1) < 1e-9:
            middle = k
        if np.ptp(log_k) <= np.log(SAME):
            return cls.constant(middle)
        found = _best_form(log_N, log_D, log_k)
        if found is not None:
            return found
        spread = float(np.exp(np.ptp(log_k)))
        return cls.constant(
            middle,
            f"C / (N D) varies by a factor {spread:.3g} and is no smooth function of N and D"
            + (": are there two units in one column?" if spread > 30 else ""),
        )

    @property
    def is_constant(self) -> bool:
        """Whether C = k N D."""
        return len(self.powers) == 1

    @property
    def warning(self) -> str:
        """What a reader of exponents and plans must know; empty for C = k N D."""
        if self.problem:
            return f"a and b are those of C = k N D, not of the C given: {self.problem}"
        if self.is_constant:
            return ""
        (x_low, y_low), (x_high, y_high) = self.low, self.high
        ends = np.exp(self.log_k(np.array([x_low, x_high]), np.array([y_low, y_high])))
        return (
            f"C / (N D) is {ends[0]:.4g} at the smallest N and D and {ends[1]:.4g} at the largest:"
            " a, b and plans are"
            " for the C given (slopes of the optimum over its range), so a + b is not 1"
        )

    @property
    def k(self) -> float:
        """Value of k in the middle of the box."""
        return float(np.exp(self.coefficients[0]))

    def log_k(self, log_N: Array, log_D: Array) -> Array:
        """Ln k at points of one shape."""
        return self._terms(log_N, log_D)[0]

    def elasticities(self, log_N: Array, log_D: Array) -> tuple[Array, Array]:
        """Dln C / dln N and dln C / dln D.

        Parameters
        ----------
        log_N, log_D : of one shape.

        Returns
        -------
        Two arrays of that shape; 1 for C = k N D.
        """
        _, by_N, by_D = self._terms(log_N, log_D)
        return 1 + by_N, 1 + by_D

    def log_flops(self, log_N: Array, log_D: Array) -> Array:
        """Ln C."""
        return log_N + log_D + self.log_k(log_N, log_D)

    def log_data(self, log_C: Array, log_N: Array) -> Array:
        """Ln D that the budget buys at this size.

        Parameters
        ----------
        log_C, log_N : of one shape.
        """
        if self.is_constant:
            return np.asarray(log_C - self.coefficients[0] - log_N)
        log_D = log_C - self.coefficients[0] - log_N
        depends = any(power for _, power in self.powers)
        for _ in range(30 if depends else 1):
            _, eta_D = self.elasticities(log_N, log_D)
            step = (log_C - self.log_flops(log_N, log_D)) / np.maximum(eta_D, MIN_ELASTICITY)
            log_D = log_D + step
            if np.abs(step).max(initial=0.0) < 1e-12:
                break
        return np.asarray(log_D)

    def log_size(self, log_C: float, log_D: float) -> float:
        """Ln N of the model that the budget trains on so much data.

        Parameters
        ----------
        log_C, log_D : ln of the budget in FLOPs, and of the data.
        """
        from scipy.optimize import brentq

        start = log_C - self.coefficients[0] - log_D
        if self.is_constant:
            return start

        def missing(log_N: float) -> float:  # C rises with N
            return float(self.log_flops(np.array(log_N), np.array(log_D))) - log_C

        reach = _REACH / MIN_ELASTICITY  # C may rise that slowly with N
        return float(brentq(missing, start - reach, start + reach, xtol=1e-12))

    def optimum(self, surfaces: Surfaces, log_C: Array) -> tuple[Array, Array]:
        """Return ln N* and ln D* (R, K) at budgets of shape (K,) or (R, K).

        Parameters
        ----------
        surfaces : R of them.
        log_C : ln of the budgets in FLOPs.
        """
        form, theta = surfaces.form, surfaces.theta
        closed = form.optimum(theta, log_C, self.coefficients[0])
        if closed is not None and self.is_constant:
            return closed
        budget = np.broadcast_to(log_C, (len(theta), np.shape(log_C)[-1]))
        start = 0.5 * (budget - self.coefficients[0]) if closed is None else closed[0]
        low, high = start - _REACH, start + _REACH
        for _ in range(_HALVINGS):  # the gain of a larger model over its cost falls along the constraint
            log_N = 0.5 * (low + high)
            log_D = self.log_data(budget, log_N)
            eta_N, eta_D = (np.maximum(eta, MIN_ELASTICITY) for eta in self.elasticities(log_N, log_D))
            larger = form.log_trade(theta, log_N, log_D) > np.log(eta_N / eta_D)
            low, high = np.where(larger, log_N, low), np.where(larger, high, log_N)
        log_N = 0.5 * (low + high)
        return log_N, self.log_data(budget, log_N)

    def optimal_log_loss(self, surfaces: Surfaces, log_C: Array) -> Array:
        """Ln of the lowest loss at each budget, (R, K).

        Parameters
        ----------
        surfaces : R of them.
        log_C : (K,) or (R, K) ln of the budgets in FLOPs.
        """
        return surfaces.log_loss(*self.optimum(surfaces, log_C))

    def exponents(self, surfaces: Surfaces, log_C_low: float, log_C_high: float) -> tuple[Array, Array]:
        """A and b, (R,): exact for C = k N D, else slopes of ln N* and ln D* over this range of budgets.

        Parameters
        ----------
        surfaces : R of them.
        log_C_low, log_C_high : ends of the budgets, in ln of FLOPs.
        """
        exact = surfaces.form.exponents(surfaces.theta)
        if self.is_constant and exact is not None:
            return exact
        log_C = np.linspace(log_C_low, max(log_C_high, log_C_low + 0.1), BUDGETS)
        x = log_C - log_C.mean()
        slopes = [value @ x / (x @ x) for value in self.optimum(surfaces, log_C)]
        return slopes[0], slopes[1]

    def to_json(self) -> dict[str, Any]:
        """Entry of results.json, which `from_json` reads."""
        return {
            "k": self.k,
            "powers": [list(power) for power in self.powers],
            "coefficients": list(self.coefficients),
            "low": list(self.low),
            "high": list(self.high),
            "problem": self.problem,
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Cost:
        """Inverse of `to_json`."""
        return cls(
            tuple((int(power[0]), int(power[1])) for power in entry["powers"]),
            tuple(entry["coefficients"]),
            (entry["low"][0], entry["low"][1]),
            (entry["high"][0], entry["high"][1]),
            entry["problem"],
        )

    def _terms(self, log_N: Array, log_D: Array) -> tuple[Array, Array, Array]:
        """Ln k and its derivatives by ln N and ln D; beyond the box as at its nearest point."""
        shape = np.broadcast_shapes(np.shape(log_N), np.shape(log_D))
        if self.is_constant:
            zero = np.zeros(shape)
            return zero + self.coefficients[0], zero, zero
        value, by_N, by_D = (np.zeros(shape) for _ in range(3))
        (x_low, y_low), (x_high, y_high) = self.low, self.high
        x_in, y_in = np.clip(log_N, x_low, x_high), np.clip(log_D, y_low, y_high)
        x, y = x_in - 0.5 * (x_low + x_high), y_in - 0.5 * (y_low + y_high)
        for (i, j), coefficient in zip(self.powers, self.coefficients, strict=True):
            value = value + coefficient * x**i * y**j
            if i:
                by_N = by_N + coefficient * i * x ** (i - 1) * y**j
            if j:
                by_D = by_D + coefficient * j * x**i * y ** (j - 1)
        return value + by_N * (log_N - x_in) + by_D * (log_D - y_in), by_N, by_D


def _best_form(log_N: Array, log_D: Array, log_k: Array) -> Cost | None:
    """First form that is close enough, else the closest that is usable; None where none is."""
    low, high = (float(log_N.min()), float(log_D.min())), (float(log_N.max()), float(log_D.max()))
    x, y = log_N - 0.5 * (low[0] + high[0]), log_D - 0.5 * (low[1] + high[1])
    sizes, amounts = distinct(log_N), distinct(log_D)
    best, best_rms = None, NOT_MODELLED
    for powers in FORMS:
        degree_N, degree_D = (max(power[axis] for power in powers) for axis in (0, 1))
        if degree_N >= sizes or degree_D >= amounts or len(log_k) < len(powers) + 3:
            continue
        terms_PF = np.stack([x**i * y**j for i, j in powers], axis=1)
        coefficients, _, rank, _ = np.linalg.lstsq(terms_PF, log_k, rcond=1e-9)
        rms = float(np.sqrt(((log_k - terms_PF @ coefficients) ** 2).mean()))
        found = Cost(powers, tuple(coefficients.tolist()), low, high)
        if rank < len(powers) or rms >= best_rms or not _rises(found):
            continue
        best, best_rms = found, rms
        if rms <= CLOSE:
            break
    return best


def _rises(cost: Cost) -> bool:
    """Whether C rises with N and with D all over the box."""
    log_N, log_D = np.meshgrid(*(np.linspace(cost.low[axis], cost.high[axis], 9) for axis in (0, 1)))
    return all(bool((eta > MIN_ELASTICITY).all()) for eta in cost.elasticities(log_N, log_D))
