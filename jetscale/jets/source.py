"""The jets of a dataset and split in a certain order: the start of training, evaluation and compositions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from jetscale.common.files import fingerprint
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.ordering.compositions import Composition
from jetscale.jets.ordering.positions import JetOrder, MixedOrder, StoreOrder
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest, store_request


class JetSource:
    """Jets of one split of a dataset, mixed as a composition asks, in an order that a seed determines.

    No file is looked at before `store` or `order` is asked for. `jetscale.jets.stream.JetStream` makes
    batches of a source; this module needs no torch.

    Parameters
    ----------
    settings : where the jets are, and how they become inputs
    dataset : name of the dataset
    split : train, val or test
    composition : see `Composition.from_request`; None for all jets as they are
    seed : of the order; None for the store's own order, which has no composition

    Attributes
    ----------
    labels : classes of the dataset
    features : inputs of a constituent
    composition : the mixture
    max_constituents : constituents kept per jet, the leading ones in pT (`pack` has sorted them)
    undo_deta_flip : give part_deta its geometric sign; as published it is times the sign of jet_eta

    Raises
    ------
    JetDataError
        The dataset lacks a column that the inputs or the selection need; the composition is refused.
    UsageError
        There is no dataset of that name.
    """

    def __init__(
        self,
        settings: DataSettings,
        dataset: str,
        split: str,
        composition: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        if composition is not None and seed is None:
            raise ValueError("the order of a composition needs a seed")
        self._settings, self._split, self._seed = settings, split, seed
        self.dataset = DATASETS[dataset]
        self.labels = self.dataset.label_map(settings.qcd_labels)
        self.features = self.dataset.feature_set(settings.features)
        self.composition = (
            Composition.natural(self.labels)
            if composition is None
            else Composition.from_request(composition, self.labels)
        )
        self.max_constituents = settings.max_constituents
        self.undo_deta_flip = settings.undo_deta_flip

    @property
    def request(self) -> StoreRequest:
        """Which packed store the jets are in."""
        return store_request(self._settings, self.dataset.name, self._split)

    @cached_property
    def store(self) -> Store:
        """The packed store, made where it is missing (`ensure_store`) and opened once."""
        return ensure_store(self.request)

    @cached_property
    def order(self) -> JetOrder:
        """Which jet is at which position."""
        return self.order_in(self.store)

    def order_in(self, store: Store) -> JetOrder:
        """The order that the jets have in a store.

        Parameters
        ----------
        store : of `request`, opened by the caller

        Raises
        ------
        JetDataError
            It holds no jet of a component of the composition.
        """
        if self._seed is None:
            return StoreOrder(store, self.labels)
        order = MixedOrder(store, self.labels, self.composition, self._seed)
        order.check_every_component()
        return order

    def fingerprint(self, n_jets: int | None = None) -> str:
        """Identity of the data, not of the seed: content of the store, composition, how inputs are made.

        Parameters
        ----------
        n_jets : of a set that is fixed; None for a stream
        """
        return fingerprint(
            {
                "store": self.store.fingerprint,
                "composition": self.composition.definition(),
                "classes": list(self.labels.class_of_label),
                "max_constituents": self.max_constituents,
                "undo_deta_flip": self.undo_deta_flip,
                "standardisation": self.features.standardisation,
                **({} if n_jets is None else {"n_jets": n_jets}),
            }
        )
