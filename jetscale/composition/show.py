"""What a store has for each composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from jetscale.common import cli
from jetscale.common.config_safety import CONF
from jetscale.composition.named import WIDE, choose, shipped
from jetscale.jets.datasets.label_map import label_map
from jetscale.jets.ordering.compositions import Composition
from jetscale.jets.ordering.positions import MixedOrder
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.request import store_request

if TYPE_CHECKING:
    from jetscale.composition.settings import Show

_NAMED = 3
"""Classes named in the table; of more, only these."""


def show(settings: Show) -> None:
    """Print weight, classes and jets of each component, and how far a composition's single pass goes."""
    data = DataSettings(dir=settings.dir, dataset="jetclass2", store=settings.store)
    labels = label_map(data.dataset, data.qcd_labels)
    store = ensure_store(store_request(data, "train"))
    table = Table(title=f"{store.path}: {store.n_jets:,} jets")
    for heading in ("composition", "component", "window", "weight", "classes", "jets", "single pass"):
        table.add_column(heading, justify="right" if heading in ("weight", "jets", "single pass") else "left")
    for name, request in choose(shipped(CONF), settings.names, settings.own).items():
        mix = Composition.from_request(request, labels)
        order = MixedOrder(store, labels, mix, seed=0)
        end, last = order.single_pass()
        for k, (component, available) in enumerate(zip(mix.components, order.available, strict=True)):
            held = [labels.names[number] for number in component.classes]
            table.add_row(
                name if k == 0 else "",
                component.selector,
                component.cuts,
                f"{component.weight:.3g}",
                f"{len(held)}: {', '.join(held[:_NAMED])}{', ...' if len(held) > _NAMED else ''}",
                f"{available:,}",
                f"{end:,}" if k == last else "",
                end_section=k == len(mix.components) - 1,
            )
    cli.console(WIDE).print(table)
