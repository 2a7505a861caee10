"""What an approach to the exponents is, and the registry of approaches.

Every registered approach is fitted to the data and to every replicate, so its errors, its differences
between subsets and its rows in the report come by themselves. An approach of your own is one class in one
file, loaded by ``--trust MODULE``: it must say how replicates become estimates of a and b (`Approach.draws`).

Shapes: R replicates, P points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import Quantity, Scale, beyond_rounding
from jetscale.analysis.fitting.surface import SurfaceForm, Surfaces
from jetscale.analysis.fitting.task import Task
from jetscale.common.registry import Registry

Array = NDArray[np.float64]
Value = TypeVar("Value")

# what every replicate yields, each (R,), by "approach2.a" and the like: columns of replicates.parquet
Draws = dict[str, Array]

EXPONENTS = ("a", "b")


class Approach(ABC):
    """One way from losses to exponents.

    Attributes
    ----------
    name : under which it is registered: its key in results.json, "approach2".
    label : in the terminal and in the report: "approach 2".
    title : what it is, in a few words, for the report.
    grid_bias : where a known surface on this grid gives it a biased a and b, the prefix under which the
        predicted bias stands in results.json; its intervals are widened by it. Empty: none is predicted.
    """

    label: str = ""
    title: str = ""
    grid_bias: str = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.label = self.label or name

    @abstractmethod
    def draws(self, task: Task, log_L_RP: Array, weight_RP: Array) -> dict[str, Array]:
        """Estimate "a", "b" and what else there is from every replicate.

        Parameters
        ----------
        task : the subset; `task.prepared` holds what `prepare` returned, under the approach's name.
        log_L_RP, weight_RP : (R, P) or (1, P) ln losses and weights of the points.

        Returns
        -------
        (R,) each, by name; NaN where a replicate does not determine it.
        """

    def prepare(self, task: Task) -> Any:  # noqa: ARG002 (the interface has it)
        """Find once, from the data, what every replicate uses."""
        return None

    def point(self, task: Task) -> tuple[dict[str, float], list[str]]:
        """Estimates of the data themselves, NaN where they do not determine them, and what to warn of."""
        ones = np.ones((1, len(task.log_L_P)))
        found = self.draws(task, task.log_L_P[None], ones)
        return {name: float(value[0]) for name, value in found.items()}, []

    def scale(self, task: Task, name: str) -> Scale:  # noqa: ARG002 (the interface has it)
        """Scale on which the interval of an estimate is taken."""
        return "linear"

    def settled(self, task: Task, found: dict[str, Quantity]) -> dict[str, Quantity]:  # noqa: ARG002 (the interface has it)
        """Quantities as they are reported, by name; for what only this approach knows of their precision."""
        return found

    def describe(self, task: Task) -> dict[str, Any]:  # noqa: ARG002 (the interface has it)
        """Facts of results.json that are no quantities."""
        return {}

    def shown(self, form: SurfaceForm) -> tuple[str, ...]:  # noqa: ARG002 (the interface has it)
        """Names of the quantities in the tables that compare choices; `form` is the surface's."""
        return EXPONENTS

    def cells(self, entry: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 (the interface has it)
        """Columns of its table in the report besides a and b.

        Parameters
        ----------
        entry : of this approach and one subset in results.json.

        Returns
        -------
        By heading: a text, a number, or a quantity ({"value", "sd", "ci95"}).
        """
        return {}


APPROACHES: Registry[type[Approach]] = Registry(
    "approach",
    {
        "approach1": "jetscale.analysis.fitting.approach1:EnvelopeApproach",
        "approach2": "jetscale.analysis.fitting.approach2:IsoflopApproach",
        "approach3": "jetscale.analysis.fitting.approach3:SurfaceApproach",
    },
)


def approaches() -> list[Approach]:
    """Every registered approach, jetscale's own first."""
    return [_approach(name) for name in APPROACHES.names()]


@lru_cache(maxsize=64)
def _approach(name: str) -> Approach:
    return APPROACHES[name](name)


def joined(approach: str, found: Mapping[str, Value]) -> dict[str, Value]:
    """Keys "approach2.a" of the names "a" of one approach.

    Parameters
    ----------
    approach : name of it.
    found : by name of a quantity.
    """
    return {f"{approach}.{name}": value for name, value in found.items()}


def part(approach: str, found: Mapping[str, Value]) -> dict[str, Value]:
    """Inverse of `joined`: what `found` holds of one approach, by name."""
    prefix = f"{approach}."
    return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}


def prepared(task: Task) -> Task:
    """The task with every approach prepared."""
    return replace(task, prepared={one.name: one.prepare(task) for one in approaches()})


def fit_all(task: Task, log_L_RP: Array, weight_RP: Array) -> Draws:
    """Fit every approach to every replicate.

    Parameters
    ----------
    task : prepared.
    log_L_RP, weight_RP : (R, P) or (1, P).
    """
    draws: Draws = {}
    for one in approaches():
        draws |= joined(one.name, one.draws(task, log_L_RP, weight_RP))
    return draws


def grid_bias(task: Task, surface: Surfaces) -> dict[str, dict[str, float]]:
    """Errors of a and b on this grid if `surface` were the truth, by approach and name.

    A parabola is not the profile of the surface, and sizes come in steps.

    Parameters
    ----------
    task : prepared.
    surface : one surface.
    """
    smooth = surface.log_loss(task.curves.log_N, task.curves.log_D)
    a, b = task.exponents(surface)
    true = {"a": float(a[0]), "b": float(b[0])}
    found = {}
    for one in approaches():
        if one.grid_bias:
            draws = one.draws(task, smooth, np.ones_like(smooth))
            found[one.name] = {
                name: beyond_rounding(float(draws[name][0]) - value) for name, value in true.items()
            }
    return found
