"""A fixed set of jets to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jetscale.jets.batch import JetBatch
from jetscale.jets.errors import JetsRunOut
from jetscale.jets.settings import DataSettings
from jetscale.jets.source import JetSource
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stream import JetStream

EVALUATION_SEED = 0
"""Seed of the order of an evaluation set with a composition: the same set for every run."""


class EvalSet:
    """The first jets of a split, the same for every run and for ever.

    Parameters
    ----------
    settings : where the jets are, and how they become inputs; the store is made if it is missing
    dataset : name of the dataset
    split : train, val or test
    n_jets : how many; None for all (all that a single pass of the composition can give)
    composition : see `Composition.from_request`; None for the split as it is

    Attributes
    ----------
    stream : the jets by position, 0 to `n_jets` - 1

    Raises
    ------
    JetDataError
        More jets asked than the split has (`check_evaluation`); see also
        `jetscale.jets.stores.building.ensure_store`.
    """

    def __init__(
        self,
        settings: DataSettings,
        dataset: str,
        split: str = "test",
        n_jets: int | None = None,
        composition: Mapping[str, Any] | None = None,
    ) -> None:
        source = JetSource(
            settings, dataset, split, composition, None if composition is None else EVALUATION_SEED
        )
        self.n_jets = source.order.n_jets if n_jets is None else n_jets
        check_evaluation(source, source.store, self.n_jets)
        self.split = split
        self.class_names = source.labels.names
        self.n_classes = source.labels.n_classes
        self.fingerprint = source.fingerprint(self.n_jets)
        self.stream = JetStream(source)

    def batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[JetBatch]:
        """Every `world`-th batch, from number `rank`, of the set cut into batches of `batch_size`.

        What is in a batch depends on `batch_size` alone, so per-batch sums do not change with the number of
        ranks.

        Parameters
        ----------
        batch_size : jets in a batch; the last one may be shorter
        rank, world : number of this process, and of all
        """
        for start in range(rank * batch_size, self.n_jets, world * batch_size):
            yield self.stream.batch(start, min(start + batch_size, self.n_jets))


def check_evaluation(source: JetSource, store: Store, n_jets: int) -> None:
    """Demand that a store has the jets of an evaluation set.

    Parameters
    ----------
    source : of the set
    store : its store
    n_jets : jets of the set

    Raises
    ------
    JetsRunOut
        It has fewer, or none are asked.
    """
    available = source.order_in(store).n_jets
    if not 0 < n_jets <= available:
        split = store.definition["split"]
        raise JetsRunOut(
            f"{store.path}: {n_jets:,} {split} jets asked, there are {available:,}; "
            "add jets, or ask for fewer"
        )
