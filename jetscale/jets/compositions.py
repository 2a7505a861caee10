"""Compositions: which classes a run sees, and in which proportions.

A composition is a list of components with weights; each component is a group of classes, whose jets come
in the proportions in which the store has them. Shape: K components.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import JetDataError
from jetscale.jets.label_map import LabelMap

EVERYTHING = "*"


@dataclass(frozen=True)
class Component:
    """Classes that share a weight.

    Attributes
    ----------
    selector : class name, bucket or glob it was asked by
    weight : share of the jets, all components together 1
    classes : class indices, ascending
    """

    selector: str
    weight: float
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Composition:
    """Components that do not overlap."""

    components: tuple[Component, ...]

    @classmethod
    def natural(cls, labels: LabelMap) -> Composition:
        """All jets in the proportions of the store."""
        return cls((Component(EVERYTHING, 1.0, tuple(range(labels.n_classes))),))

    @classmethod
    def from_weights(cls, mapping: Mapping[str, float], labels: LabelMap) -> Composition:
        """Composition from weights by class name, bucket (QCD, Res2P, Res34P) or glob.

        Weights need not add up to 1; a component of weight 0 is left out.

        Raises
        ------
        JetDataError
            A selector that matches nothing (the nearest names are given) or overlaps another; a weight that
            is negative or not finite; no weight above 0.
        """
        owner: dict[int, str] = {}
        selected: dict[str, tuple[int, ...]] = {}
        for selector, weight in mapping.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise JetDataError(
                    f"composition: weight {weight} of {selector!r} must be finite and not negative"
                )
            selected[selector] = _classes(selector, labels)
            for number in selected[selector]:
                if number in owner:
                    raise JetDataError(
                        f"composition: {selector!r} and {owner[number]!r} both select "
                        f"{labels.names[number]!r}; selectors must not overlap"
                    )
                owner[number] = selector
        total = math.fsum(mapping.values())
        if total <= 0:
            raise JetDataError(f"composition {dict(mapping)}: at least one weight must be above 0")
        return cls(
            tuple(
                Component(selector, weight / total, selected[selector])
                for selector, weight in mapping.items()
                if weight > 0
            )
        )

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(K,) float64, adding up to 1."""
        return np.array([component.weight for component in self.components])

    def definition(self) -> list[list[object]]:
        """What identifies the composition."""
        return [
            [component.selector, component.weight, list(component.classes)] for component in self.components
        ]


def _classes(selector: str, labels: LabelMap) -> tuple[int, ...]:
    if selector in labels.names:
        return (labels.names.index(selector),)
    if selector in labels.buckets:
        return labels.buckets[selector]
    found = tuple(number for number, name in enumerate(labels.names) if fnmatchcase(name, selector))
    if found:
        return found
    known = [*labels.buckets, *labels.names]
    near = difflib.get_close_matches(selector, known, n=3, cutoff=0.4) or known[:3]
    raise JetDataError(f"composition: {selector!r} matches no class; the nearest names are {', '.join(near)}")
