"""Intervals from half-samples.

Distances to nearest neighbours are meaningless in a bootstrap sample, where a jet's nearest neighbour is
its own copy; halves drawn without replacement have no copies. For a statistic that averages over n jets
the variance between halves, (n - d) / d times the mean square deviation with d = n / 2 jets left out, is
that of the statistic itself (the delete-d jackknife: Shao and Wu, Ann. Statist. 17 (1989) 1176).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """A measure of a sample.

    Attributes
    ----------
    value : on all jets
    sd : standard error, from halves
    ci95 : value -/+ 1.96 sd, within the measure's own limits
    """

    value: float
    sd: float
    ci95: tuple[float, float]

    def plain(self) -> dict[str, object]:
        """As results.json writes a quantity."""
        return {"value": self.value, "sd": self.sd, "ci95": list(self.ci95)}

    def __str__(self) -> str:
        return f"{self.value:.3g} ± {self.sd:.1g}"


Rows = tuple[Integers, ...]


def measured(
    statistic: Callable[[Rows], float],
    sizes: tuple[int, ...],
    draws: int,
    seed: int,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> Measured:
    """A statistic with its standard error; see `measured_all`.

    Parameters
    ----------
    statistic : of the rows chosen from each sample
    sizes, draws, seed, limits : see `measured_all`
    """
    return measured_all(lambda rows: [statistic(rows)], sizes, draws, seed, limits)[0]


def measured_all(
    statistics: Callable[[Rows], list[float]],
    sizes: tuple[int, ...],
    draws: int,
    seed: int,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> list[Measured]:
    """Statistics of one or several samples, with their standard errors.

    Parameters
    ----------
    statistics : of the rows chosen from each sample
    sizes : jets in each sample
    draws : number of half-samples, at least 2; every sample is halved in each draw
    seed : of the halves
    limits : smallest and largest value a statistic can have
    """
    rng = np.random.default_rng([seed, *sizes])
    values = statistics(tuple(np.arange(size) for size in sizes))
    halves = [
        statistics(tuple(np.sort(rng.permutation(size)[: size // 2]) for size in sizes)) for _ in range(draws)
    ]
    found = []
    for value, sd in zip(values, np.std(halves, axis=0, ddof=1).tolist(), strict=True):
        low, high = (float(np.clip(value + sign * 1.96 * sd, *limits)) for sign in (-1, 1))
        found.append(Measured(float(value), sd, (low, high)))
    return found
