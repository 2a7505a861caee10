"""Test losses by block: what any bootstrap over test jets needs, with the same jets in every model.

Shapes: R replicates, E evaluations (rows of the loss table), B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sums = NDArray[np.float64] | NDArray[np.float32]
Key = tuple[str, float, str]  # run, step, weights

N_BLOCKS = 1000


@dataclass(frozen=True)
class BlockLosses:
    """Summed losses of the test jets of each block.

    Attributes
    ----------
    keys : (run, step, weights) of each evaluation.
    loss_sum_EB : nats.
    jets_EB : 0 where a block holds no jet.
    """

    keys: list[Key]
    loss_sum_EB: Sums
    jets_EB: Sums

    def select(self, wanted: list[Key]) -> BlockLosses | None:
        """Blocks of these evaluations, in this order; None when one of them has none."""
        position = {key: row for row, key in enumerate(self.keys)}
        rows = [position.get(key, -1) for key in wanted]
        if min(rows, default=-1) < 0:
            return None
        return BlockLosses(wanted, self.loss_sum_EB[rows].astype(float), self.jets_EB[rows].astype(float))

    def log_losses(self, weight_RB: Array) -> Array:
        """Logarithm of the mean test loss of each evaluation in each replicate, (R, E).

        Raises
        ------
        ValueError
            A replicate drew only empty blocks (a test set of a few jets).
        """
        jets_RE = weight_RB @ self.jets_EB.T
        if not (jets_RE > 0).all():
            raise ValueError("too few test jets for a bootstrap over test blocks")
        return np.asarray(np.log((weight_RB @ self.loss_sum_EB.T) / jets_RE))


def resampled_blocks(replicates: int, rng: np.random.Generator, blocks: int = N_BLOCKS) -> Array:
    """Bootstrap weights of the blocks, (R, B): drawn with replacement."""
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=replicates).astype(float)


def subsampled_blocks(
    samples: int, fraction: float, rng: np.random.Generator, blocks: int = N_BLOCKS
) -> Array:
    """Weights of the paper's samples, (R, B): `fraction` of the test set, drawn without replacement.

    Such a sample spreads as sqrt((1 - f) / f) of the sampling error, half of it at f = 0.8.
    """
    rank = rng.permuted(np.tile(np.arange(blocks), (samples, 1)), axis=1)
    return (rank < round(fraction * blocks)).astype(float)
