"""The order of jets: position i of a run is a pure function of (data seed, composition, i).

Positions are dealt to components in blocks (`jetscale.jets.apportion`, shuffled inside the block). Each
component walks its jets once per pass: parts of the store in a seeded order, the same for all components so
that they share cached windows, and the jets of a part shuffled. A part is itself a random sample of the
store. Shapes: K components, P parts, L labels, B positions.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from jetscale.jets.apportion import apportion, run_out
from jetscale.jets.compositions import Composition
from jetscale.jets.errors import JetDataError
from jetscale.jets.label_map import LabelMap
from jetscale.jets.randomness import permutation
from jetscale.jets.store import Store

Integers = npt.NDArray[np.int64]

BLOCK = 1_000
"""Positions dealt together. A multiple of 100, so that whole percentages are exact in every block."""


class JetOrder(Protocol):
    """Where the jets of each block of positions lie in the store."""

    def block(self, number: int) -> tuple[Integers, Integers]:
        """Part and row of positions ``number * BLOCK`` to ``(number + 1) * BLOCK``, at most."""


class StoreOrder:
    """The store's own order: position i is the i-th jet whose label has a class."""

    def __init__(self, store: Store, labels: LabelMap) -> None:
        self._walk = Walk(store, labels.labels_of(tuple(range(labels.n_classes))), seed=None)
        self.n_jets = self._walk.n_jets

    def block(self, number: int) -> tuple[Integers, Integers]:
        """Part and row of the block's positions; the last block is short."""
        return self._walk.locate(np.arange(number * BLOCK, min((number + 1) * BLOCK, self.n_jets)))


class MixedOrder:
    """Seeded order of a composition."""

    def __init__(self, store: Store, labels: LabelMap, composition: Composition, seed: int) -> None:
        self._composition = composition
        self._weights_K = composition.weights
        self._seed = seed
        self._walks = [Walk(store, labels.labels_of(part.classes), seed) for part in composition.components]
        for walk, component in zip(self._walks, composition.components, strict=True):
            if walk.n_jets == 0:
                raise JetDataError(
                    f"{store.path}: holds no jet of {component.selector!r}, which has a weight"
                )
        self._location = str(store.path)

    def block(self, number: int) -> tuple[Integers, Integers]:
        """Part and row of the block's positions."""
        component_B, rank_B = self._deal(number)
        part_B, row_B = np.empty_like(rank_B), np.empty_like(rank_B)
        for k, walk in enumerate(self._walks):
            here = np.flatnonzero(component_B == k)
            if len(here):
                part_B[here], row_B[here] = walk.locate(rank_B[here])
        return part_B, row_B

    def passes(self, n_jets: int) -> dict[str, float]:
        """How often `n_jets` positions go through the jets of each component, by selector."""
        wanted_K = apportion(n_jets, self._weights_K)
        return {
            component.selector: float(wanted_K[k] / self._walks[k].n_jets)
            for k, component in enumerate(self._composition.components)
        }

    def check_supply(self, n_jets: int) -> None:
        """Demand that no jet is seen twice within `n_jets` positions.

        Raises
        ------
        JetDataError
            A component has fewer jets than asked.
        """
        end, k = self.single_pass()
        if n_jets <= end:
            return
        component = self._composition.components[k]
        raise JetDataError(
            f"{self._location}: {n_jets:,} jets asked in a single pass, of them "
            f"{apportion(n_jets, self._weights_K)[k]:,} of {component.selector!r} "
            f"(weight {component.weight:.4g}), which has {self._walks[k].n_jets:,} and runs out at jet "
            f"{end:,}; add jets, ask for fewer, or allow repetition with data.repeat=true"
        )

    def single_pass(self) -> tuple[int, int]:
        """Positions that can be taken without seeing a jet twice, and the component that ends them."""
        available_K = np.array([walk.n_jets for walk in self._walks])
        number = run_out(available_K, self._weights_K) // BLOCK
        while True:
            component_B, rank_B = self._deal(number)
            beyond = np.flatnonzero(rank_B >= available_K[component_B])
            if len(beyond):
                return number * BLOCK + int(beyond[0]), int(component_B[beyond[0]])
            number += 1

    def _deal(self, number: int) -> tuple[Integers, Integers]:
        """Component of each position of a block, and the position's rank among that component's jets."""
        before_K = apportion(number * BLOCK, self._weights_K)
        quota_K = apportion((number + 1) * BLOCK, self._weights_K) - before_K
        component_B = np.repeat(np.arange(len(quota_K)), quota_K)[
            permutation(BLOCK, "block", self._seed, number)
        ]
        by_component = np.argsort(component_B, kind="stable")
        rank_B = np.empty(BLOCK, np.int64)
        rank_B[by_component] = np.arange(BLOCK) + np.repeat(
            before_K - (np.cumsum(quota_K) - quota_K), quota_K
        )
        return component_B, rank_B


class Walk:
    """One component's way through its jets, pass after pass.

    Parameters
    ----------
    labels : published labels that belong to the component
    seed : data seed; None for the store's own order, one pass
    """

    def __init__(self, store: Store, labels: Integers, seed: int | None) -> None:
        self._store = store
        self._labels = labels
        self._seed = seed
        self._key = ",".join(map(str, labels))
        self._all_labels = len(labels) == store.label_counts_PL.shape[1]
        self._counts_P = store.label_counts_PL[:, labels].sum(axis=1)
        self._starts_PL = np.cumsum(store.label_counts_PL, axis=1) - store.label_counts_PL
        self.n_jets = int(self._counts_P.sum())
        self._pass: tuple[int, Integers, Integers] | None = None
        self._window: tuple[tuple[int, int], Integers] | None = None

    def locate(self, rank_B: Integers) -> tuple[Integers, Integers]:
        """Part and row of the component's jets number `rank_B`, counted over all passes."""
        pass_B, place_B = np.divmod(rank_B, self.n_jets)
        part_B, row_B = np.empty_like(rank_B), np.empty_like(rank_B)
        for number in np.unique(pass_B):
            parts, ends = self._parts_of_pass(int(number))
            stop_B = np.searchsorted(ends, place_B, side="right")
            for stop in np.unique(stop_B[pass_B == number]):
                here = np.flatnonzero((pass_B == number) & (stop_B == stop))
                part = int(parts[stop])
                rows = self._rows(int(number), part)
                part_B[here] = part
                row_B[here] = rows[place_B[here] - (ends[stop] - self._counts_P[part])]
        return part_B, row_B

    def _parts_of_pass(self, number: int) -> tuple[Integers, Integers]:
        """Parts in the order of this pass, and how many of the component's jets lie up to the end of each."""
        if self._pass is None or self._pass[0] != number:
            n_parts = len(self._counts_P)
            parts = (
                np.arange(n_parts)
                if self._seed is None
                else permutation(n_parts, "parts", self._seed, number)
            )
            self._pass = (number, parts, np.cumsum(self._counts_P[parts]))
        return self._pass[1], self._pass[2]

    def _rows(self, number: int, part: int) -> Integers:
        """Rows of the component's jets in a part, in the order of this pass."""
        if self._window is None or self._window[0] != (number, part):
            rows = self._natural_rows(part)
            if self._seed is not None:
                rows = rows[permutation(len(rows), "window", self._seed, self._key, number, part)]
            self._window = ((number, part), rows)
        return self._window[1]

    def _natural_rows(self, part: int) -> Integers:
        if self._all_labels:
            return np.arange(self._counts_P[part])
        by_label = self._store.part(part).rows_by_label
        starts = self._starts_PL[part]
        counts = self._store.label_counts_PL[part]
        slices = [by_label[starts[label] : starts[label] + counts[label]] for label in self._labels]
        return np.sort(np.concatenate(slices)).astype(np.int64)
