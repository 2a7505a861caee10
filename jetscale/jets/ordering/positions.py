"""The order of jets: position i of a run is a pure function of (data seed, composition, i).

Positions are dealt to components in blocks (`jets.ordering.apportion`), shuffled inside a block. Each
component walks its jets once per pass: parts of the store in a seeded order, the same for all components so
that they share mapped parts, and the jets of a part shuffled. A part is itself a random sample of the
store. Shapes: K components, P parts, L labels, B positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from jetscale.jets.datasets.base import LabelMap
from jetscale.jets.errors import JetDataError, JetsRunOut
from jetscale.jets.ordering.apportion import apportion, run_out
from jetscale.jets.ordering.compositions import EVERYTHING, Component, Composition
from jetscale.jets.randomness import permutation
from jetscale.jets.stores.packed_store import Store

Integers = npt.NDArray[np.int64]

BLOCK = 1_000
"""Positions dealt together. A multiple of 100, so that whole percentages are exact in every block."""


class JetOrder(Protocol):
    """Where the jets of each block of positions lie in the store."""

    @property
    def n_jets(self) -> int:
        """Positions before a jet comes again."""

    def block(self, number: int) -> tuple[Integers, Integers]:
        """Part and row of positions ``number * BLOCK`` to ``(number + 1) * BLOCK``.

        The last block may be shorter.
        """


class StoreOrder:
    """The store's own order: position i is the i-th jet whose label has a class."""

    def __init__(self, store: Store, labels: LabelMap) -> None:
        self._walk = Walk(store, labels.labels_of(tuple(range(labels.n_classes))), seed=None)

    @property
    def n_jets(self) -> int:
        """Jets in the store whose label has a class."""
        return self._walk.n_jets

    def block(self, number: int) -> tuple[Integers, Integers]:
        """Part and row of the block's positions; the last block is short."""
        return self._walk.locate(number * BLOCK, min((number + 1) * BLOCK, self.n_jets))


class MixedOrder:
    """Seeded order of a composition."""

    def __init__(self, store: Store, labels: LabelMap, composition: Composition, seed: int) -> None:
        self._composition = composition
        self._labels = labels
        self._weights_K = composition.weights
        self._seed = seed
        self._walks = [
            Walk(store, labels.labels_of(part.classes), seed, part.windows) for part in composition.components
        ]
        self._location = str(store.path)

    def check_every_component(self) -> None:
        """Demand that there are jets of every component; where one has none, no position can be asked for.

        Raises
        ------
        JetDataError
            A component has none.
        """
        for available, component in zip(self.available, self._composition.components, strict=True):
            if available == 0:
                raise JetDataError(f"{self._location}: holds no jet of {component}, which has a weight")

    def block(self, number: int) -> tuple[Integers, Integers]:
        """Part and row of the block's positions."""
        part_B, row_B = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
        for k, before, here in self._deal(number):
            part_B[here], row_B[here] = self._walks[k].locate(before, before + len(here))
        return part_B, row_B

    @property
    def n_jets(self) -> int:
        """Positions before a jet comes again."""
        return self.single_pass()[0]

    @property
    def available(self) -> list[int]:
        """Jets of each component."""
        return [walk.n_jets for walk in self._walks]

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
        JetsRunOut
            A component has fewer jets than asked.
        """
        end, k = self.single_pass()
        if n_jets <= end:
            return
        component = self._composition.components[k]
        raise JetsRunOut(
            f"{self._location}: {n_jets:,} jets asked in a single pass, of them "
            f"{apportion(n_jets, self._weights_K)[k]:,} of {component} "
            f"(weight {component.weight:.4g}), which has {self._walks[k].n_jets:,} and runs out at jet "
            f"{end:,}; add jets{self._where_from(component)}, or ask for fewer (data.repeat=true shows jets "
            "again: D means less)"
        )

    def _where_from(self, component: Component) -> str:
        """Where jets of a component come from, if that is not what a budget of the download fetches."""
        dataset, groups = self._labels.dataset, self._labels.buckets.values()
        whole = not component.windows and (not groups or component.classes in groups)
        if whole or not dataset.downloadable or component.selector == EVERYTHING:
            return ""
        return (
            f" (a budget of jetscale.download fetches what whole buckets need, dataset={dataset.name} "
            "budget=all fetches all)"
        )

    def single_pass(self) -> tuple[int, int]:
        """Positions that can be taken without seeing a jet twice, and the component that ends them.

        None where a component has no jets: no run starts with such a composition.
        """
        available_K = np.array(self.available)
        if not available_K.all():
            return 0, int(np.argmin(available_K))
        number = run_out(available_K, self._weights_K) // BLOCK
        while True:
            ends = [
                (number * BLOCK + int(here[available_K[k] - before]), k)
                for k, before, here in self._deal(number)
                if before + len(here) > available_K[k]
            ]
            if ends:
                return min(ends)
            number += 1

    def _deal(self, number: int) -> list[tuple[int, int, Integers]]:
        """How the positions of a block are dealt.

        Returns
        -------
        For each component that has some: its number, how many of its jets come before the block, and its
        places in the block, ascending.
        """
        before_K = apportion(number * BLOCK, self._weights_K)
        quota_K = apportion((number + 1) * BLOCK, self._weights_K) - before_K
        shuffled = permutation(BLOCK, "block", self._seed, number)
        places = np.split(shuffled, np.cumsum(quota_K)[:-1])
        return [(k, int(before_K[k]), np.sort(here)) for k, here in enumerate(places) if len(here)]


class Walk:
    """One component's way through its jets, pass after pass.

    Parameters
    ----------
    labels : published labels that belong to the component
    seed : data seed; None for the store's own order, one pass
    windows : observable, low and high: only jets with low <= value < high
    """

    def __init__(
        self,
        store: Store,
        labels: Integers,
        seed: int | None,
        windows: tuple[tuple[str, float, float], ...] = (),
    ) -> None:
        self._store = store
        self._labels = labels
        self._seed = seed
        self._windows = windows
        self._key = ",".join(map(str, [*labels, *windows]))
        self._all_labels = len(labels) == store.label_counts_PL.shape[1]
        self._counts_P = store.label_counts_PL[:, labels].sum(axis=1)
        if windows:  # the manifest counts labels alone: the observables themselves are read once
            self._counts_P = np.array([len(self._rows(part)) for part in range(len(self._counts_P))])
        self.n_jets = int(self._counts_P.sum())
        self._pass: tuple[int, Integers, Integers] | None = None
        self._stretch = _Stretch(0, 0, 0, np.empty(0, np.int64))

    def locate(self, start: int, stop: int) -> tuple[Integers, Integers]:
        """Part and row of the component's jets number `start` to `stop`, counted over all passes.

        Parameters
        ----------
        start, stop : numbers of jets, `stop` exclusive
        """
        part_B, row_B = np.empty(stop - start, np.int64), np.empty(stop - start, np.int64)
        at = start
        while at < stop:
            if not self._stretch.start <= at < self._stretch.stop:
                self._stretch = self._open_stretch(at)
            stretch = self._stretch
            end = min(stop, stretch.stop)
            part_B[at - start : end - start] = stretch.part
            row_B[at - start : end - start] = stretch.rows[at - stretch.start : end - stretch.start]
            at = end
        return part_B, row_B

    def _open_stretch(self, jet: int) -> _Stretch:
        """The stretch that holds the component's jet number `jet`."""
        number, place = divmod(jet, self.n_jets)
        parts, ends = self._parts_of_pass(number)
        turn = int(np.searchsorted(ends, place, side="right"))
        part = int(parts[turn])
        stop = number * self.n_jets + int(ends[turn])
        rows = self._rows(part)
        if self._seed is not None:
            rows = rows[permutation(len(rows), "window", self._seed, self._key, number, part)]
        return _Stretch(stop - len(rows), stop, part, rows)

    def _parts_of_pass(self, number: int) -> tuple[Integers, Integers]:
        """Parts in the order of a pass, and how many of the component's jets lie up to the end of each."""
        if self._pass is None or self._pass[0] != number:
            n_parts = len(self._counts_P)
            parts = (
                np.arange(n_parts)
                if self._seed is None
                else permutation(n_parts, "parts", self._seed, number)
            )
            self._pass = (number, parts, np.cumsum(self._counts_P[parts]))
        return self._pass[1], self._pass[2]

    def _rows(self, part: int) -> Integers:
        """Rows of the component's jets in a part, ascending."""
        rows = self._rows_of_labels(part)
        for observable, low, high in self._windows:
            value = self._store.part(part).column(observable, rows)
            rows = rows[(low <= value) & (value < high)]
        return rows

    def _rows_of_labels(self, part: int) -> Integers:
        if self._all_labels:
            return np.arange(self._store.label_counts_PL[part].sum())
        by_label = self._store.part(part).rows_by_label
        counts = self._store.label_counts_PL[part]
        starts = np.cumsum(counts) - counts
        slices = [by_label[starts[label] : starts[label] + counts[label]] for label in self._labels]
        return np.sort(np.concatenate(slices)).astype(np.int64)


@dataclass(frozen=True)
class _Stretch:
    """Jets of one component in one part, in the order of a pass: number `start` to `stop` of its walk."""

    start: int
    stop: int
    part: int
    rows: Integers
