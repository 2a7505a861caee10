"""Jets of a composition, the first that a run with this seed would see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jetscale.composition.observables import JetTable, observe
from jetscale.jets.ordering.positions import BLOCK, MixedOrder
from jetscale.jets.settings import DataSettings
from jetscale.jets.source import JetSource


def draw(
    settings: DataSettings,
    dataset: str,
    request: Mapping[str, Any] | None,
    n_jets: int,
    seed: int,
    skip: int = 0,
) -> JetTable:
    """Jets number `skip` to `skip` + `n_jets` of a composition, no jet twice.

    Parameters
    ----------
    settings : where the jets are
    dataset : name of the dataset; its training split is used
    request : see `jetscale.jets.ordering.compositions.Composition.from_request`; None for the whole dataset
    n_jets : how many
    seed : of the order
    skip : jets left out before them

    Raises
    ------
    JetDataError
        The store has too few jets for it, and the class or component that runs out; see also
        `jetscale.jets.stores.building.ensure_store`.
    """
    source = JetSource(settings, dataset, "train", request, seed)
    order = source.order
    assert isinstance(order, MixedOrder)
    order.check_supply(skip + n_jets)
    first, last = skip // BLOCK, -(-(skip + n_jets) // BLOCK)
    parts, rows = zip(*(order.block(number) for number in range(first, last)), strict=True)
    chosen = slice(skip - first * BLOCK, skip - first * BLOCK + n_jets)
    part_B, row_B = np.concatenate(parts)[chosen], np.concatenate(rows)[chosen]
    return observe(source, part_B, row_B)
