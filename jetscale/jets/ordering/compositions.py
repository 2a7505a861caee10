"""Compositions: which jets a run sees, and in which proportions.

A composition is a list of components with weights; each component is a group of classes, perhaps within
windows of jet observables, whose jets come in the proportions in which the store has them. Shape: K
components.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from jetscale.common.fields import Range
from jetscale.jets.datasets.base import Dataset, LabelMap
from jetscale.jets.errors import JetDataError

EVERYTHING = "*"
WINDOWS = ("jet_pt", "jet_sdmass")
"""Observables that a component can be cut in, GeV."""
WEIGHT = Range(0, 1e12)
GEV = Range(0, 1e6)
"""Ends of a window."""
_KEYS = ("weight", "classes", "prongs", "flavours", "without", *WINDOWS)


@dataclass(frozen=True)
class Component:
    """Classes, perhaps within windows, that share a weight.

    Attributes
    ----------
    selector : class name, bucket or glob it was asked by, or the name it was given
    weight : share of the jets, all components together 1
    classes : class indices, ascending
    windows : observable, low and high: low <= value < high; in the order of `WINDOWS`
    """

    selector: str
    weight: float
    classes: tuple[int, ...]
    windows: tuple[tuple[str, float, float], ...] = ()

    def overlaps(self, other: Component) -> bool:
        """Whether a jet can belong to both."""
        ranges = {name: (low, high) for name, low, high in self.windows}
        apart = any(
            high <= ranges[name][0] or ranges[name][1] <= low
            for name, low, high in other.windows
            if name in ranges
        )
        return not apart and not set(self.classes).isdisjoint(other.classes)

    @property
    def cuts(self) -> str:
        """Its windows in words; empty without."""
        return ", ".join(f"{low:g} <= {name} < {high:g} GeV" for name, low, high in self.windows)

    def __str__(self) -> str:
        return f"{self.selector!r}, {self.cuts}" if self.windows else repr(self.selector)


@dataclass(frozen=True)
class Composition:
    """Components that do not overlap."""

    components: tuple[Component, ...]

    @classmethod
    def natural(cls, labels: LabelMap) -> Composition:
        """All jets in the proportions of the store."""
        return cls((Component(EVERYTHING, 1.0, tuple(range(labels.n_classes))),))

    @classmethod
    def from_request(cls, request: Mapping[str, Any], labels: LabelMap) -> Composition:
        """Composition from what a configuration asks for.

        Parameters
        ----------
        request : by class name, bucket (QCD, Res2P, Res34P) or glob either a weight, or a mapping with
            ``weight`` and any of ``classes`` (names, buckets or globs; then the key is only a name),
            ``prongs`` (numbers, see `jetscale.jets.datasets.base.Anatomy`), ``flavours`` (classes that have
            one of them), ``without`` (classes that have none of them), ``jet_pt`` and ``jet_sdmass`` ([low,
            high] in GeV, low included). Weights need not add up to 1; a component of weight 0 is left out.
        labels : classes of the dataset that the jets come from

        Raises
        ------
        JetDataError
            See `check_request`; a selector that matches nothing (the nearest names are given); components
            that overlap.
        """
        check_request(request, labels.dataset)
        total = math.fsum(_weight(entry) for entry in request.values())
        components: list[Component] = []
        for name, entry in request.items():
            component = _component(name, entry, total, labels)
            for other in components:
                if component.overlaps(other):
                    shared = min(set(component.classes) & set(other.classes))
                    raise JetDataError(
                        f"composition: {component} and {other} both select {labels.names[shared]!r}; "
                        "selectors must not overlap"
                    )
            components.append(component)
        return cls(tuple(component for component in components if component.weight > 0))

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(K,) float64, adding up to 1."""
        return np.array([component.weight for component in self.components])

    def definition(self) -> list[list[object]]:
        """What identifies the composition."""
        return [
            [component.selector, component.weight, list(component.classes)]
            + ([[list(window) for window in component.windows]] if component.windows else [])
            for component in self.components
        ]


def check_request(request: Mapping[str, Any], dataset: Dataset) -> None:
    """Check the form of a request, which needs no data.

    Parameters
    ----------
    request : see `Composition.from_request`
    dataset : that the jets come from

    Raises
    ------
    JetDataError
        Not a mapping, an unknown key, a value of the wrong kind, a weight or an end of a window out of its
        limits, no weight above 0, an empty window, a flavour or number of prongs that no class of the dataset
        has, a window in a column that the dataset lacks.
    """
    if not isinstance(request, Mapping):
        raise JetDataError(
            f"composition {request!r}: weights by class, bucket or glob are needed, "
            "e.g. {X_bb: 1, QCD_*: 2}"
        )
    for name, entry in request.items():
        if not isinstance(name, str):
            raise JetDataError(f"composition: {name!r} is no text; classes, buckets and names are, e.g. X_bb")
        if isinstance(entry, Mapping):
            _check_entry(name, entry, dataset)
        weight = _weight(entry)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise JetDataError(
                f"composition: the weight of {name!r} is {weight!r}; a number is needed, or a mapping with "
                "a weight, e.g. {weight: 1, prongs: [3, 4]}"
            )
        if not WEIGHT.holds(weight):
            raise JetDataError(f"composition: weight {weight} of {name!r} must be a number {WEIGHT}")
    if not any(_weight(entry) for entry in request.values()):
        raise JetDataError(f"composition {dict(request)}: at least one weight must be above 0")


def _weight(entry: Any) -> Any:
    return entry.get("weight") if isinstance(entry, Mapping) else entry


def _check_entry(name: str, entry: Mapping[str, Any], dataset: Dataset) -> None:
    for key in entry:
        if key not in _KEYS:
            raise JetDataError(f"composition: {name!r} has no key {key!r}; there are {', '.join(_KEYS)}")
    for key in WINDOWS:
        if key in entry:
            dataset.require((key,), f"composition: {key} of {name!r}", "leave it out")
        window = entry.get(key, (0, 1))
        numbers = isinstance(window, (list, tuple)) and all(
            isinstance(end, (int, float)) and not isinstance(end, bool) and GEV.holds(end) for end in window
        )
        if not (numbers and len(window) == 2 and window[0] < window[1]):
            raise JetDataError(
                f"composition: {key} of {name!r} is {window!r}; [low, high] in GeV is needed, {GEV}"
            )
    for key in ("classes", "flavours", "without", "prongs"):
        if key in entry and not _listed(entry[key]):
            raise JetDataError(f"composition: {key} of {name!r} is empty; leave it out")
    for selector in _listed(entry.get("classes", name)):
        if not isinstance(selector, str):
            raise JetDataError(f"composition: {name!r} asks classes: {selector!r}; names, buckets or globs")
    _check_anatomy(name, entry, dataset)


def _check_anatomy(name: str, entry: Mapping[str, Any], dataset: Dataset) -> None:
    for key in ("flavours", "without"):
        for flavour in _listed(entry.get(key, ())):
            if flavour not in dataset.flavours:
                known = ", ".join(dataset.flavours) or f"none of {dataset.title}"
                raise JetDataError(f"composition: {name!r} asks {key}: {flavour!r}; there are {known}")
    possible = sorted({anatomy.prongs for anatomy in dataset.anatomy.values()})
    for prongs in _listed(entry.get("prongs", ())):
        if isinstance(prongs, bool) or prongs not in possible:
            known = ", ".join("1 (QCD)" if number == 1 else str(number) for number in possible)
            known = known or f"none of {dataset.title}"
            raise JetDataError(f"composition: {name!r} asks prongs: {prongs!r}; there are {known}")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _component(name: str, entry: Any, total: float, labels: LabelMap) -> Component:
    weight = _weight(entry) / total
    if not isinstance(entry, Mapping):
        return Component(name, weight, _classes(name, labels))
    chosen = {
        number for selector in _listed(entry.get("classes", name)) for number in _classes(selector, labels)
    }
    for key, keeps in (
        ("prongs", lambda anatomy, wanted: anatomy.prongs in wanted),
        ("flavours", lambda anatomy, wanted: not anatomy.flavours.isdisjoint(wanted)),
        ("without", lambda anatomy, wanted: anatomy.flavours.isdisjoint(wanted)),
    ):
        if key in entry:
            wanted, anatomy = _listed(entry[key]), labels.dataset.anatomy
            chosen = {number for number in chosen if keeps(anatomy[labels.names[number]], wanted)}
            if not chosen:
                raise JetDataError(f"composition: no class of {name!r} is left after {key}: {entry[key]}")
    windows = tuple((key, float(entry[key][0]), float(entry[key][1])) for key in WINDOWS if key in entry)
    return Component(name, weight, tuple(sorted(chosen)), windows)


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
