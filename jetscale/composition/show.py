"""What a store has for each composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from jetscale.common import cli
from jetscale.common.config_safety import CONF
from jetscale.composition.named import WIDE, choose, shipped
from jetscale.jets.ordering.positions import MixedOrder
from jetscale.jets.settings import DataSettings
from jetscale.jets.source import JetSource

if TYPE_CHECKING:
    from jetscale.composition.settings import Show

_NAMED = 3
"""Classes named in the table; of more, only these."""


def show(settings: Show) -> None:
    """Print weight, classes and jets of each component, and how far a composition's single pass goes.

    A composition of which the store lacks a component is shown too: whoever downloads or simulates more wants
    to see what is there.
    """
    data = DataSettings(dir=settings.dir, store=settings.store, features=settings.features)
    store = JetSource(data, settings.dataset, "train").store
    table = Table(title=f"{store.path}: {store.n_jets:,} jets")
    for heading in ("composition", "component", "window", "weight", "classes", "jets", "single pass"):
        table.add_column(heading, justify="right" if heading in ("weight", "jets", "single pass") else "left")
    lacking = []
    for name, request in choose(shipped(CONF), settings.names, settings.own).items():
        source = JetSource(data, settings.dataset, "train", request, seed=0)
        components = source.composition.components
        order = MixedOrder(store, source.labels, source.composition, seed=0)
        end, last = order.single_pass()
        if end == 0:
            lacking.append(f"{name} ({components[last].selector})")
        for k, (component, available) in enumerate(zip(components, order.available, strict=True)):
            held = [source.labels.names[number] for number in component.classes]
            table.add_row(
                name if k == 0 else "",
                component.selector,
                component.cuts,
                f"{component.weight:.3g}",
                f"{len(held)}: {', '.join(held[:_NAMED])}{', ...' if len(held) > _NAMED else ''}",
                f"{available:,}",
                f"{end:,}" if k == last else "",
                end_section=k == len(components) - 1,
            )
    console = cli.console(WIDE)
    console.print(table)
    if lacking:
        console.print(f"No run can have these, since a component has no jets: {', '.join(lacking)}")
