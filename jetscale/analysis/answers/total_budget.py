"""What a total budget should buy: simulated jets, pretraining and fine-tuning, for any law L(N, D_pre, D).

One jet of either phase costs its simulation and, in training, so many FLOPs a parameter:
C = (s + k_pre N) D_pre + (s + k N) D. The lowest loss that C buys is searched in ln N and in the share of the
budget that goes to pretraining, on a grid that is zoomed in on its lowest point, a coarse one first, for all
replicates at once.
A law is asked for nothing but its ln loss, so every transfer law is planned with alike.

Shapes: R replicates, K points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import TIE

Array = NDArray[np.float64]

# (ln N, ln D_pre, ln D), each (R, K), to ln L (R, K); ln D_pre is minus infinity without pretraining
LogLoss = Callable[[Array, Array, Array], Array]

SIDES = (31,) * 2 + (9,) * 28  # points of the grid along an axis, by round: 1e-10 of the range at the end
KEEP = 2.0  # spacings of a round's grid that the next one reaches to each side
SHARE_REACH = 18.0  # of the logit of the share
SMALLEST_N = 1.0
STEP = 1e-3  # of a logarithm, in differences
ONE_JET = 1.0


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
    """Gains of a little more of each at a point, by central differences of the loss (good to about 1e-6).

    Parameters
    ----------
    law : ln L of R replicates.
    N, D_pre, D : (R,) the point; D_pre above 0.
    price : of jets.
    """
    log = np.log(np.stack([N, D_pre, D]))

    def slope(axis: int) -> Array:
        up, down = log.copy(), log.copy()
        up[axis] += STEP
        down[axis] -= STEP
        higher, lower = (np.exp(law(*(value[:, None] for value in side))[:, 0]) for side in (up, down))
        return np.asarray((lower - higher) / (2 * STEP))

    of_pretraining, of_finetuning = price.per_jet(N)
    by_N, by_pre, by_D = (slope(axis) for axis in range(3))
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
