"""Test losses by block: what any bootstrap over test jets needs, with the same jets in every model.

Shapes: R replicates, E evaluations (rows of the loss table), B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Sums = NDArray[np.float64] | NDArray[np.float32]
Key = tuple[str, float, str]  # run, step, weights

MIN_FILLED_BLOCKS = 50  # for a bootstrap over them


def keys_of(frame: pd.DataFrame) -> list[Key]:
    """Keys of the rows of a loss table."""
    columns = zip(frame["run"], frame["step"], frame["weights"], strict=True)
    return [(str(run), float(step), str(weights)) for run, step, weights in columns]


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

    @property
    def count(self) -> int:
        """B."""
        return int(self.loss_sum_EB.shape[1])

    def merged(self, count: int) -> BlockLosses:
        """Neighbours joined until `count` blocks are left; 0: as they are.

        Raises
        ------
        UsageError
            `count` does not divide the number of blocks, or is too small for a bootstrap.
        """
        if count in (0, self.count):
            return self
        if count < MIN_FILLED_BLOCKS or self.count % count:
            fits = [n for n in range(MIN_FILLED_BLOCKS, self.count) if self.count % n == 0]
            raise UsageError(
                f"blocks={count}: {self.count} test blocks are joined to {', '.join(map(str, fits))} or left"
                " as they are (0)"
            )
        loss_sum_EB, jets_EB = (
            sums_EB.reshape(len(self.keys), count, -1).sum(axis=2, dtype=float).astype(sums_EB.dtype)
            for sums_EB in (self.loss_sum_EB, self.jets_EB)
        )
        return BlockLosses(self.keys, loss_sum_EB, jets_EB)

    def only(self, wanted: set[Key]) -> BlockLosses | None:
        """Blocks of those of these evaluations that have some; None where none has."""
        rows = [row for row, key in enumerate(self.keys) if key in wanted]
        if not rows:
            return None
        return BlockLosses([self.keys[row] for row in rows], self.loss_sum_EB[rows], self.jets_EB[rows])

    @cached_property
    def _row(self) -> dict[Key, int]:
        return {key: row for row, key in enumerate(self.keys)}

    def select(self, wanted: list[Key]) -> BlockLosses | None:
        """Blocks of these evaluations, in this order; None when one of them has none."""
        rows = [self._row.get(key, -1) for key in wanted]
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


def resampled_blocks(replicates: int, rng: np.random.Generator, blocks: int) -> Array:
    """Bootstrap weights of the blocks, (R, B): drawn with replacement.

    Parameters
    ----------
    replicates : R.
    rng : draws them.
    blocks : B.

    Returns
    -------
    (R, B) how often each block was drawn.
    """
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=replicates).astype(float)


def subsampled_blocks(samples: int, fraction: float, rng: np.random.Generator, blocks: int) -> Array:
    """Weights of the paper's samples, (R, B): `fraction` of the test set, drawn without replacement.

    Such a sample spreads as sqrt((1 - f) / f) of the sampling error, half of it at f = 0.8.
    """
    rank = rng.permuted(np.tile(np.arange(blocks), (samples, 1)), axis=1)
    return (rank < round(fraction * blocks)).astype(float)
