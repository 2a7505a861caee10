"""All measures of one composition against the downstream jets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jetscale.composition.alignment import auc, covered, separation, wasserstein
from jetscale.composition.diversity import effective_number, median_distance, vendi, width
from jetscale.composition.half_samples import Measured, Rows, measured, measured_all
from jetscale.composition.observables import OBSERVABLES, JetTable

Array = npt.NDArray[np.float64]

VENDI_JETS = 1_000
"""Eigenvalues take B^3 operations."""

MEASURES: dict[str, str] = {
    "effective_classes": "classes",
    "vendi": "Vendi score",
    "support": "support",
    "precision": "precision",
    "recall": "recall",
    "auc": "AUC",
    "distance": "distance",
}
"""Measures of the table, by name: heading. `support` and `distance` are means over the observables."""

Row = dict[str, Measured]
Pair = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Downstream:
    """The downstream jets and the coordinates that they define.

    Attributes
    ----------
    jets : as many as a composition has
    centre, spread : (O,) that make their coordinates standard
    scale : similarity's, their median distance
    """

    jets: JetTable
    centre: Array
    spread: Array
    scale: float

    @classmethod
    def of(cls, jets: JetTable) -> Downstream:
        """Downstream jets with their coordinates."""
        x = jets.coordinates()
        centre, spread = x.mean(axis=0), x.std(axis=0)
        return cls(jets, centre, spread, median_distance(((x - centre) / spread)[:VENDI_JETS]))

    def standard(self, jets: JetTable) -> Array:
        """(B, O) coordinates in standard deviations of the downstream jets."""
        return np.asarray((jets.coordinates() - self.centre) / self.spread)


def measure(jets: JetTable, downstream: Downstream, draws: int, seed: int) -> Row:
    """Every measure of `jets` by name; those of one observable as ``support.NAME`` and ``distance.NAME``."""
    x_BO, y_MO = downstream.standard(jets), downstream.standard(downstream.jets)
    sizes = (len(jets), len(downstream.jets))
    scores = separation(x_BO, y_MO, seed)
    few = x_BO[:VENDI_JETS]
    unit = (0.0, 1.0)
    row: Row = {
        "effective_classes": measured(
            lambda rows: effective_number(jets.classes_B[rows[0]]), sizes[:1], draws, seed, (1, np.inf)
        ),
        "vendi": measured(
            lambda rows: vendi(few[rows[0]], downstream.scale), (len(few),), draws, seed, (1, np.inf)
        ),
        "precision": measured(lambda rows: covered(y_MO[rows[1]], x_BO[rows[0]]), sizes, draws, seed, unit),
        "recall": measured(lambda rows: covered(x_BO[rows[0]], y_MO[rows[1]]), sizes, draws, seed, unit),
        # the classifiers stay as they are: this is the error of the test of it, not of its training
        "auc": measured(lambda rows: auc(scores[0][rows[0]], scores[1][rows[1]]), sizes, draws, seed, unit),
    }
    for summary, function, average in (("support", width, _geometric), ("distance", wasserstein, _mean)):
        statistics = _per_observable(x_BO, y_MO, function, average)
        names = [summary, *(f"{summary}.{name}" for name in OBSERVABLES)]
        row.update(zip(names, measured_all(statistics, sizes, draws, seed, (0, np.inf)), strict=True))
    return row


def _per_observable(
    x_BO: Array, y_MO: Array, function: Pair, average: Callable[[list[float]], float]
) -> Callable[[Rows], list[float]]:
    def statistics(rows: Rows) -> list[float]:
        each = [function(ours, theirs) for ours, theirs in zip(x_BO[rows[0]].T, y_MO[rows[1]].T, strict=True)]
        return [average(each), *each]

    return statistics


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def _geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-6)))))
