"""Measures of a composition: what one is, and all of them by name.

A further measure is one file: make a `Measure`, and register it under its name with `MEASURES`. It then
appears in the table, in ``compare.json``, and with ``--trust`` on the command line.

Shapes: B jets of the composition, M downstream jets, O observables that both have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from jetscale.common.registry import Registry
from jetscale.composition.half_samples import Measured, Rows, measured, measured_all
from jetscale.composition.observables import JetTable

Array = npt.NDArray[np.float64]
Row = dict[str, Measured]
"""Measures of one composition by name; those of one observable as ``support.NAME`` and ``distance.NAME``."""

EVERY_NUMBER = (-np.inf, np.inf)


@dataclass(frozen=True)
class Comparison:
    """A composition beside the downstream jets.

    Attributes
    ----------
    jets, downstream : of the composition, and downstream; both with the same observables
    draws : half-samples behind each standard error
    seed : of the half-samples
    """

    jets: JetTable
    downstream: JetTable
    draws: int
    seed: int

    @cached_property
    def ours(self) -> Array:
        """(B, O) coordinates of the composition's jets, in standard deviations of the downstream jets."""
        return self._standard(self.jets)

    @cached_property
    def theirs(self) -> Array:
        """(M, O) coordinates of the downstream jets, mean 0 and standard deviation 1."""
        return self._standard(self.downstream)

    @property
    def sizes(self) -> tuple[int, int]:
        """B and M."""
        return len(self.jets), len(self.downstream)

    def measured(
        self,
        statistic: Callable[[Rows], float],
        limits: tuple[float, float] = EVERY_NUMBER,
        sizes: tuple[int, ...] | None = None,
    ) -> Measured:
        """A statistic with its standard error.

        Parameters
        ----------
        statistic : of (rows of the composition's jets, rows of the downstream jets), index arrays
        limits : smallest and largest value that it can have
        sizes : jets of each sample, where they are not all of `sizes`
        """
        return measured(statistic, sizes or self.sizes, self.draws, self.seed, limits)

    def per_observable(
        self, function: Callable[[Array, Array], float], average: Callable[[list[float]], float]
    ) -> dict[str, Measured]:
        """A function of one observable: its average over all of them under the empty name, and each by name.

        Parameters
        ----------
        function : of the (B,) and (M,) coordinates of the two samples
        average : of its values for all observables
        """

        def statistics(rows: Rows) -> list[float]:
            pairs = zip(self.ours[rows[0]].T, self.theirs[rows[1]].T, strict=True)
            each = [function(one, other) for one, other in pairs]
            return [average(each), *each]

        found = measured_all(statistics, self.sizes, self.draws, self.seed, (0, np.inf))
        return dict(zip(("", *self.jets.observables), found, strict=True))

    def _standard(self, jets: JetTable) -> Array:
        of_downstream = self.downstream.coordinates()
        return np.asarray((jets.coordinates() - of_downstream.mean(axis=0)) / of_downstream.std(axis=0))


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes
    ----------
    heading : of its column in the table
    of : the measure of a comparison (`Comparison.measured`); or several numbers, the table's under the empty
        name
    """

    heading: str
    of: Callable[[Comparison], Measured | Mapping[str, Measured]]


MEASURES: Registry[Measure] = Registry(
    "measure",
    {
        "effective_classes": "jetscale.composition.diversity:EFFECTIVE_CLASSES",
        "vendi": "jetscale.composition.diversity:VENDI",
        "support": "jetscale.composition.diversity:SUPPORT",
        "precision": "jetscale.composition.alignment:PRECISION",
        "recall": "jetscale.composition.alignment:RECALL",
        "auc": "jetscale.composition.alignment:AUC",
        "distance": "jetscale.composition.alignment:DISTANCE",
    },
)
"""All measures by name, in the order of the table."""


def measure(jets: JetTable, downstream: JetTable, draws: int, seed: int) -> Row:
    """Every measure of `jets`; see `Comparison` for the parameters.

    Parameters
    ----------
    jets : of the composition
    downstream : jets to compare with, with the same observables
    draws : half-samples behind each standard error
    seed : of the half-samples
    """
    import sklearn.ensemble  # noqa: F401  # `threadpool_limits` reaches only the libraries that are loaded

    comparison = Comparison(jets, downstream, draws, seed)
    row: Row = {}
    with threadpool_limits(1):  # on so few jets, threads that wait for each other cost more than they bring
        for name in MEASURES.names():
            found = MEASURES[name].of(comparison)
            numbers = {"": found} if isinstance(found, Measured) else found
            row |= {f"{name}.{part}" if part else name: number for part, number in numbers.items()}
    return row
