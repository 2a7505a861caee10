"""What a budget buys on a loss surface, in closed form where there is one.

For a cost C = k N D (else by bisection): L*(C) - E = K (C/k)^-gamma with gamma = alpha beta / (alpha + beta),
which inverts.

Shapes: R replicates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.surface import Surfaces

Array = NDArray[np.float64]

_BISECTIONS = 100
_REACH = 60.0  # of ln C about the one of C = k N D
_HIGHEST = 400.0  # ln C


def compute_for_loss(surfaces: Surfaces, loss: float, cost: Cost) -> Array:
    """Logarithm of the least compute that reaches `loss`, (R,); infinite where the floor is above it.

    Parameters
    ----------
    surfaces : R of them.
    loss : to be reached, nats.
    cost : C of N and D.

    Returns
    -------
    (R,) ln C in FLOPs.
    """
    closed = surfaces.form.compute_for_loss(surfaces.theta, loss, float(np.log(cost.k)))
    if closed is not None and cost.is_constant:
        return closed
    reached = np.exp(surfaces.log_floor) < loss
    if closed is None:
        low, high = np.zeros((2, len(reached), 1))
        high = high + _HIGHEST
    else:
        start = np.where(reached, closed, 0.0)[:, None]
        low, high = start - _REACH, start + _REACH
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        over = cost.optimal_log_loss(surfaces, middle) > np.log(loss)
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return np.where(reached, 0.5 * (low + high)[:, 0], np.inf)


def size_range(surfaces: Surfaces, log_C: float, cost: Cost, tolerance: float) -> tuple[Array, Array]:
    """Return ln N of the smallest and largest model within `tolerance` of the best loss at C; (R,) each.

    The loss on the constraint falls to the optimum and rises after it, so each side has one crossing.

    Parameters
    ----------
    surfaces : R of them.
    log_C : ln of the budget in FLOPs.
    cost : C of N and D.
    tolerance : relative excess over the best loss, 0.01 for 1%.
    """
    budget = np.array([log_C])
    best_N = cost.optimum(surfaces, budget)[0][:, 0]
    limit = cost.optimal_log_loss(surfaces, budget)[:, 0] + np.log1p(tolerance)
    ends = []
    for direction in (-1.0, 1.0):
        inner, outer = np.zeros_like(best_N), np.full_like(best_N, 60.0)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (inner + outer)
            log_N = best_N + direction * middle
            log_D = cost.log_data(np.full_like(log_N, log_C), log_N)
            over = surfaces.log_loss(log_N[:, None], log_D[:, None])[:, 0] > limit
            inner, outer = np.where(over, inner, middle), np.where(over, middle, outer)
        ends.append(best_N + direction * inner)
    return ends[0], ends[1]


def compute_multiplier(
    one: Surfaces, one_cost: Cost, other: Surfaces, other_cost: Cost, log_C: float
) -> Array:
    """Logarithm of the compute `other` needs, over C, for the loss that `one` reaches with C; (R,).

    Parameters
    ----------
    one, one_cost : surfaces and cost that set the loss.
    other, other_cost : those that are to reach it; as many surfaces.
    log_C : ln of the budget of `one` in FLOPs.
    """
    loss = np.exp(one_cost.optimal_log_loss(one, np.array([log_C]))[:, 0])
    needed = [
        compute_for_loss(Surfaces.from_theta(theta, other.form), float(value), other_cost)[0]
        for theta, value in zip(other.theta, loss, strict=True)
    ]
    return np.array(needed) - log_C


def nearest_width(log_N: float, dims: Array, sizes: Array, step: int = 8) -> tuple[int, float] | None:
    """Width (a multiple of `step`) whose model is nearest to N in ln N, and its N.

    The parameter count of a width-d transformer is a polynomial of degree 2 in d; it is taken through the
    trained widths, so at least three of them are needed.

    Parameters
    ----------
    log_N : ln of the wanted number of parameters.
    dims, sizes : (S,) width and N of the runs; NaN widths are left out.
    step : widths are multiples of it.

    Returns
    -------
    Width and its N; None where fewer than three widths are known.
    """
    dims, first = np.unique(dims[np.isfinite(dims)], return_index=True)
    if len(dims) < 3:
        return None
    counted = np.polynomial.Polynomial.fit(dims, sizes[first], 2)
    candidates = np.arange(step, 64 * int(dims.max()) + 1, step)
    counts = counted(candidates)
    usable = counts > 0
    best = int(np.abs(np.log(counts[usable]) - log_N).argmin())
    return int(candidates[usable][best]), float(counts[usable][best])
