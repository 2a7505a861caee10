"""What a total budget should buy: simulated jets, pretraining and fine-tuning, for any law L(N, D_pre, D).

One jet of either phase costs its simulation and, in training, so many FLOPs a parameter:
C = (s + k_pre N) D_pre + (s + k N) D. The lowest loss that C buys is searched in ln N and in the share of the
budget that goes to pretraining, on a grid that is zoomed in on its lowest point, a coarse one first, for all
replicates at once. Losses alone cannot tell two points of a flat minimum apart, so its end is a root of the
derivatives, by Newton steps: there a FLOP gains as much whatever it buys.
A law is asked for nothing but its ln loss and slopes, so every transfer law is planned with alike.

Shapes: R replicates, K points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import TIE

Array = NDArray[np.float64]

SIDES = (31,) * 2 + (9,) * 28  # points of the grid along an axis, by round: 1e-10 of the range at the end
NEWTON = 30  # steps at the end, at most
KEEP = 2.0  # spacings of a round's grid that the next one reaches to each side
SHARE_REACH = 18.0  # of the logit of the share
SMALLEST_N = 1.0
STEP = 1e-5  # of a logarithm, in differences of slopes
SAME = 1e-13  # of ln L: rounding, which Newton steps may raise it by
ONE_JET = 1.0


class LogLoss(Protocol):
    """A law of R replicates; ln D_pre is minus infinity without pretraining."""

    def __call__(self, log_N: Array, log_D_pre: Array, log_D: Array) -> Array:
        """Ln L (R, K) at points (R, K)."""

    def slopes(self, log_N: Array, log_D_pre: Array, log_D: Array) -> tuple[Array, Array, Array]:
        """Fall of L by ln N, ln D_pre and ln D, (R, K) each."""


@dataclass(frozen=True)
class Price:
    """What jets cost, in FLOPs.

    Attributes
    ----------
    simulate : of a simulated jet, of either phase.
    pretrain : of a pretraining jet, for each parameter.
    finetune : of a fine-tuning jet, for each parameter.
    """

    simulate: float
    pretrain: float
    finetune: float

    def per_jet(self, N: Array) -> tuple[Array, Array]:
        """FLOPs of a pretraining and of a fine-tuning jet, simulation included, for N parameters."""
        return self.simulate + self.pretrain * N, self.simulate + self.finetune * N

    def total(self, N: Array, D_pre: Array, D: Array) -> Array:
        """FLOPs of it all.

        Parameters
        ----------
        N, D_pre, D : of one shape.
        """
        of_pretraining, of_finetuning = self.per_jet(N)
        return np.asarray(of_pretraining * D_pre + of_finetuning * D)


@dataclass(frozen=True)
class EffectiveData:
    """L = E + A / N^alpha + B / (D + k D_pre^p N^q)^beta (Hernandez et al., arXiv:2102.01293), R of them.

    Attributes
    ----------
    theta : (R, 8) ln A, ln B, ln E, alpha, beta, ln k, p, q; ln k is minus infinity from scratch.
    """

    theta: Array

    def __call__(self, log_N: Array, log_D_pre: Array, log_D: Array) -> Array:
        """Ln L (R, K)."""
        log_A, log_B, log_E, alpha, beta, log_k, p, q = self.theta.T[:, :, None]
        with np.errstate(invalid="ignore"):
            log_T = log_k + p * log_D_pre + q * log_N
        log_data = np.logaddexp(log_D, np.where(np.isnan(log_T), -np.inf, log_T))
        return np.asarray(np.logaddexp(np.logaddexp(log_A - alpha * log_N, log_B - beta * log_data), log_E))

    def slopes(self, log_N: Array, log_D_pre: Array, log_D: Array) -> tuple[Array, Array, Array]:
        """Fall of L by ln N, ln D_pre and ln D, (R, K) each: minus its derivatives."""
        log_A, log_B, _, alpha, beta, log_k, p, q = self.theta.T[:, :, None]
        with np.errstate(invalid="ignore"):
            log_T = log_k + p * log_D_pre + q * log_N
        log_T = np.where(np.isnan(log_T), -np.inf, log_T)
        log_data = np.logaddexp(log_D, log_T)
        of_data = beta * np.exp(log_B - beta * log_data)
        of_T, of_D = of_data * np.exp(log_T - log_data), of_data * np.exp(log_D - log_data)
        return alpha * np.exp(log_A - alpha * log_N) + q * of_T, p * of_T, of_D


@dataclass(frozen=True)
class Best:
    """Lowest loss of a budget, (R,) each: N, D_pre, D, and ln L."""

    N: Array
    D_pre: Array
    D: Array
    log_loss: Array


def best_split(law: LogLoss, budget: float, price: Price, *, pretraining: bool, replicates: int) -> Best:
    """Find the N, D_pre and D of the lowest loss that a budget buys.

    Parameters
    ----------
    law : ln L of R replicates.
    budget : FLOPs.
    price : of jets.
    pretraining : whether there is any; else D_pre is 0.
    replicates : R.
    """
    # from one parameter to the model for which the budget is one jet
    ends = np.log([SMALLEST_N, budget / price.finetune])
    middle = np.tile([ends.mean(), 0.0], (replicates, 1))
    half = np.array([0.5 * (ends[1] - ends[0]), SHARE_REACH if pretraining else 0.0])
    box_low, box_high = np.array([ends[0], -SHARE_REACH]), np.array([ends[1], SHARE_REACH])
    row = np.arange(replicates)
    for side in SIDES:
        axis = np.linspace(-1, 1, side)
        grid = np.meshgrid(axis, axis if pretraining else [0.0])
        offsets = np.stack(grid, axis=-1).reshape(-1, 2)
        points = np.clip(middle[:, None] + half * offsets, box_low, box_high)
        values = _at(law, points, budget, price, pretraining)[3]
        middle = points[row, values.argmin(axis=1)]
        half = half * (KEEP * 2 / (side - 1))
    middle = _rooted(law, middle, (box_low, box_high), budget, price, pretraining)
    found = _at(law, middle[:, None], budget, price, pretraining)
    if pretraining:  # none at all may be better still
        none = best_split(law, budget, price, pretraining=False, replicates=replicates)
        better = (none.log_loss <= found[3][:, 0] + TIE) | (found[1][:, 0] < ONE_JET)
        pairs = zip((none.N, none.D_pre, none.D, none.log_loss), found, strict=True)
        return Best(*(np.where(better, of_none, value[:, 0]) for of_none, value in pairs))
    return Best(*(value[:, 0] for value in found))


def _at(
    law: LogLoss, points: Array, budget: float, price: Price, pretraining: bool
) -> tuple[Array, Array, Array, Array]:
    """N, D_pre, D and ln L, (R, K) each, at points (ln N, logit of the share for pretraining), (R, K, 2)."""
    N = np.exp(points[:, :, 0])
    of_pretraining, of_finetuning = price.per_jet(N)
    share = 1 / (1 + np.exp(-points[:, :, 1])) if pretraining else np.zeros_like(N)
    rest = 1 / (1 + np.exp(points[:, :, 1])) if pretraining else np.ones_like(N)
    D_pre, D = share * budget / of_pretraining, rest * budget / of_finetuning
    with np.errstate(divide="ignore"):
        return N, D_pre, D, law(points[:, :, 0], np.log(D_pre), np.log(D))


def _rooted(
    law: LogLoss, start_R2: Array, box: tuple[Array, Array], budget: float, price: Price, pretraining: bool
) -> Array:
    """Points (ln N, logit of the share) where slopes balance, (R, 2): Newton steps from the grid's lowest.

    A coordinate at an end of the box stays there. A step is kept where it brings the balance closer to 0 and
    leaves the loss no higher than that of the grid.
    """
    held = (start_R2 <= box[0]) | (start_R2 >= box[1])
    held[:, 1] |= not pretraining

    def off(point: Array) -> tuple[Array, Array]:
        """How far from balance, (R, 2), and ln L (R,)."""
        N, D_pre, D, log_loss = _at(law, point[:, None], budget, price, pretraining)
        with np.errstate(divide="ignore", invalid="ignore"):
            by_N, by_pre, by_D = law.slopes(np.log(N), np.log(D_pre), np.log(D))
            # a larger model leaves so many jets fewer of either phase
            fewer = price.pretrain * N / price.per_jet(N)[0] * by_pre
            fewer = fewer + price.finetune * N / price.per_jet(N)[1] * by_D
            size = by_N / fewer - 1
            # of the budget, the share s of pretraining: (1 - s) by_pre = s by_D
            share = np.log(by_pre / by_D) - point[:, 1:]
        return np.where(held, 0.0, np.concatenate([size, share], axis=1)), log_loss[:, 0]

    point = start_R2
    here, log_loss = off(point)
    ceiling = log_loss + SAME
    for _ in range(NEWTON):
        columns = []
        for axis in range(2):
            move = STEP * np.eye(2)[axis]
            columns.append((off(point + move)[0] - off(point - move)[0]) / (2 * STEP))
        matrix = np.where(held[:, :, None] | held[:, None, :], np.eye(2), np.stack(columns, axis=2))
        usable = np.asarray(np.isfinite(matrix).all(axis=(1, 2)) & np.isfinite(here).all(axis=1))
        matrix = np.where(usable[:, None, None], matrix, np.eye(2))
        usable &= np.asarray(np.linalg.det(matrix) != 0)
        matrix = np.where(usable[:, None, None], matrix, np.eye(2))
        trial = np.clip(point - np.linalg.solve(matrix, here[:, :, None])[:, :, 0], *box)
        there, log_loss = off(trial)
        good = usable & (np.abs(there).max(axis=1) < np.abs(here).max(axis=1)) & (log_loss <= ceiling)
        if not good.any():
            break
        point, here = np.where(good[:, None], trial, point), np.where(good[:, None], there, here)
    return point


@dataclass(frozen=True)
class Marginal:
    """Fall of the loss, nats, by a little more of each, (R,) each.

    Attributes
    ----------
    model, pretrain, finetune : for each FLOP spent on a larger model (trained on the same jets), on more
        pretraining jets, on more fine-tuning jets; simulation included.
    pretrain_jet, finetune_jet : for each jet, whatever it costs.
    """

    model: Array
    pretrain: Array
    finetune: Array
    pretrain_jet: Array
    finetune_jet: Array


def marginal(law: LogLoss, N: Array, D_pre: Array, D: Array, price: Price) -> Marginal:
    """Gains of a little more of each at a point.

    Parameters
    ----------
    law : ln L of R replicates.
    N, D_pre, D : (R,) the point; D_pre above 0.
    price : of jets.
    """
    of_pretraining, of_finetuning = price.per_jet(N)
    logs = (np.log(value)[:, None] for value in (N, D_pre, D))
    by_N, by_pre, by_D = (slope[:, 0] for slope in law.slopes(*logs))
    return Marginal(
        model=by_N / (price.pretrain * N * D_pre + price.finetune * N * D),
        pretrain=by_pre / (of_pretraining * D_pre),
        finetune=by_D / (of_finetuning * D),
        pretrain_jet=by_pre / D_pre,
        finetune_jet=by_D / D,
    )


def pays_until(law: LogLoss, N: Array, D: Array, price: Price, log_ends: tuple[float, float]) -> Array:
    """D_pre at which a FLOP of pretraining gains no more than one of fine-tuning, (R,).

    Below it pretraining gains more. 0 where it never does within the ends, infinity where it always does.

    Parameters
    ----------
    law : ln L of R replicates.
    N, D : (R,) size and fine-tuning jets.
    price : of jets.
    log_ends : ln of the smallest and largest D_pre that are tried.
    """

    def gains_more(log_D_pre: Array) -> NDArray[np.bool_]:
        found = marginal(law, N, np.exp(log_D_pre), D, price)
        return np.asarray(found.pretrain > found.finetune)

    low, high = (np.full(len(N), end) for end in log_ends)
    never, always = ~gains_more(low), gains_more(high)
    for _ in range(60):
        middle = 0.5 * (low + high)
        more = gains_more(middle)
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.where(never, 0.0, np.where(always, np.inf, np.exp(0.5 * (low + high))))
