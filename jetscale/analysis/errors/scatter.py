"""What one more run would differ from the law by: the scatter of runs about it, and test-jet noise.

Shapes: P points, E evaluations, B blocks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.tables.test_blocks import BlockLosses

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scatter:
    """How single runs differ from the law.

    Attributes
    ----------
    run_sd : standard deviation of ln L of one run about the law: scatter between runs and what the form of
        the law misses; NaN where it cannot be told.
    dof : degrees of freedom behind it.
    jet_sd : standard deviation of the loss of one test jet, nats; NaN where no losses by block are known.
    test_jets : size of the test set; NaN too.
    """

    run_sd: float
    dof: float
    jet_sd: float = float("nan")
    test_jets: float = float("nan")

    def to_json(self) -> dict[str, Any]:
        """Entry of results.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Scatter:
        """Inverse of `to_json`, where NaN is null."""
        return cls(**{key: float("nan") if value is None else value for key, value in entry.items()})

    def test_sd(self, loss: float) -> float:
        """Standard deviation of ln L by a test set of this size, at a loss; 0 where it is not known.

        Parameters
        ----------
        loss : nats.
        """
        return self.jet_sd / np.sqrt(self.test_jets) / loss if np.isfinite(self.test_jets) else 0.0


def measured(
    curves: CurveSet,
    residual_P: Array,
    log_L_E: Array,
    parameters: int,
    regular: NDArray[np.bool_],
    blocks: BlockLosses | None,
) -> Scatter:
    """Scatter of one subset's runs.

    Each run (of seeds: their mean) stands for one residual, whose mean square is divided by the degrees of
    freedom that the fit leaves. Where seeds are averaged, the part of their variance that the mean of S does
    not show, (S - 1) / S of it, is added.

    Parameters
    ----------
    curves : the points.
    residual_P : (P,) observed minus fitted ln L.
    log_L_E : (E,) ln losses of the evaluations.
    parameters : of the law.
    regular : (P,) points that are no outliers.
    blocks : test losses by block; None where they are not known.
    """
    cells = np.unique(curves.cell[regular])
    dof = len(cells) - parameters
    weight = 1.0 if curves.weight is None else curves.weight[regular]
    mean_square = float((weight * residual_P[regular] ** 2).mean())
    variance = mean_square * len(cells) / dof if dof > 0 else float("nan")
    of_seeds, seed_dof = curves.seed_variance(log_L_E)
    if seed_dof:
        seeds = float(np.mean(curves.seeds_per_cell))
        between = of_seeds / seeds if np.isnan(variance) else variance
        variance = between + of_seeds * (1 - 1 / seeds)
    jet_sd, jets = _of_a_jet(blocks)
    return Scatter(float(np.sqrt(variance)), float(max(dof, seed_dof, 1)), jet_sd, jets)


def _of_a_jet(blocks: BlockLosses | None) -> tuple[float, float]:
    """Standard deviation of one jet's loss, by the scatter of block means about their evaluation's mean."""
    if blocks is None:
        return float("nan"), float("nan")
    jets_EB = np.asarray(blocks.jets_EB, dtype=np.float64)
    filled = jets_EB > 0
    mean_EB = np.where(filled, blocks.loss_sum_EB / np.where(filled, jets_EB, 1), 0.0)
    total_E = jets_EB.sum(axis=1)
    loss_E = blocks.loss_sum_EB.sum(axis=1) / total_E
    squares_E = (jets_EB * filled * (mean_EB - loss_E[:, None]) ** 2).sum(axis=1) / (filled.sum(axis=1) - 1)
    return float(np.sqrt(np.median(squares_E))), float(np.median(total_E))
