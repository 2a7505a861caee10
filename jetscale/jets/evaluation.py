"""A fixed set of jets to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jetscale.common.files import fingerprint
from jetscale.jets.batch import JetBatch
from jetscale.jets.datasets.label_map import label_map
from jetscale.jets.errors import JetDataError
from jetscale.jets.features import feature_set
from jetscale.jets.ordering.compositions import Composition
from jetscale.jets.ordering.positions import JetOrder, MixedOrder, StoreOrder
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.request import store_request
from jetscale.jets.stream import JetStream

EVALUATION_SEED = 0
"""Seed of the order of an evaluation set with a composition: the same set for every run."""


class EvalSet:
    """The first jets of a split, the same for every run and for ever.

    Parameters
    ----------
    settings : which jets; the store is made if it is missing
    split : train, val or test
    n_jets : how many; None for all (all that a single pass of the composition can give)
    composition : see `Composition.from_request`; None for the split as it is

    Raises
    ------
    JetDataError
        More jets asked than the split has; see also `jetscale.jets.stores.building.ensure_store`.
    """

    def __init__(
        self,
        settings: DataSettings,
        split: str = "test",
        n_jets: int | None = None,
        composition: Mapping[str, Any] | None = None,
    ) -> None:
        labels = label_map(settings.dataset, settings.qcd_labels)
        features = feature_set(settings.features)
        store = ensure_store(store_request(settings, split))
        natural = StoreOrder(store, labels)
        order: JetOrder = natural
        available, mix = natural.n_jets, Composition.natural(labels)
        if composition is not None:
            mix = Composition.from_request(composition, labels)
            mixed = MixedOrder(store, labels, mix, EVALUATION_SEED)
            order, available = mixed, mixed.single_pass()[0]
        self.n_jets = available if n_jets is None else n_jets
        if not 0 < self.n_jets <= available:
            raise JetDataError(f"{store.path}: {self.n_jets:,} {split} jets asked, there are {available:,}")
        self.split = split
        self.class_names = labels.names
        self.n_classes = labels.n_classes
        self.fingerprint = fingerprint(
            {
                "store": store.fingerprint,
                "classes": list(labels.class_of_label),
                "composition": mix.definition(),
                "n_jets": self.n_jets,
                "max_constituents": settings.max_constituents,
                "undo_deta_flip": settings.undo_deta_flip,
                "standardisation": features.standardisation,
            }
        )
        self._stream = JetStream(
            store, order, labels, features, settings.max_constituents, settings.undo_deta_flip
        )

    def batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[JetBatch]:
        """Every `world`-th batch, from number `rank`, of the set cut into batches of `batch_size`.

        What is in a batch depends on `batch_size` alone, so per-batch sums do not change with the number of
        ranks.
        """
        for start in range(rank * batch_size, self.n_jets, world * batch_size):
            yield self._stream.batch(start, min(start + batch_size, self.n_jets))
