"""Jets of a composition, the first that a run with this seed would see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jetscale.composition.observables import JetTable, observe
from jetscale.jets.datasets.label_map import label_map
from jetscale.jets.ordering.compositions import Composition
from jetscale.jets.ordering.positions import BLOCK, MixedOrder
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.request import store_request


def draw(
    settings: DataSettings, request: Mapping[str, Any] | None, n_jets: int, seed: int, skip: int = 0
) -> JetTable:
    """Jets number `skip` to `skip` + `n_jets` of a composition, no jet twice.

    Parameters
    ----------
    settings : dataset and where it is; its training split is used
    request : see `jetscale.jets.ordering.compositions.Composition.from_request`; None for the whole dataset

    Raises
    ------
    JetDataError
        The store has too few jets for it, and the class or component that runs out; see also
        `jetscale.jets.stores.building.ensure_store`.
    """
    labels = label_map(settings.dataset, settings.qcd_labels)
    mix = Composition.natural(labels) if request is None else Composition.from_request(request, labels)
    store = ensure_store(store_request(settings, "train"))
    order = MixedOrder(store, labels, mix, seed)
    order.check_supply(skip + n_jets)
    first, last = skip // BLOCK, -(-(skip + n_jets) // BLOCK)
    parts, rows = zip(*(order.block(number) for number in range(first, last)), strict=True)
    chosen = slice(skip - first * BLOCK, skip - first * BLOCK + n_jets)
    part_B, row_B = np.concatenate(parts)[chosen], np.concatenate(rows)[chosen]
    return observe(store, part_B, row_B, np.array(labels.class_of_label))
