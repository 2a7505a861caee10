"""All compositions measured: a table, compare.json, figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from jetscale import __version__
from jetscale.common import cli
from jetscale.common.config_safety import CONF
from jetscale.common.files import write_json
from jetscale.common.progress import Progress
from jetscale.composition.measures import MEASURES, Row, measure
from jetscale.composition.named import WIDE, choose, shipped
from jetscale.composition.observables import JetTable
from jetscale.composition.sampling import draw
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.settings import DataSettings

if TYPE_CHECKING:
    from jetscale.composition.settings import Compare

REFERENCE = "(downstream)"
"""Row of other jets from the downstream classes: what perfect alignment gives."""


def compare(settings: Compare) -> dict[str, Row]:
    """Measure, print the table, write compare.json and the figures.

    Raises
    ------
    UsageError
        A name that is no experiment's.
    JetDataError
        The stores have too few jets; see `jetscale.composition.sampling.draw`.
    """
    from jetscale.composition.figures import draw_figures

    requests = choose(shipped(CONF), settings.names, settings.own)
    samples = _samples(settings, requests)
    named = [(name, jets) for name, jets in samples.items() if name]
    rows = {}
    progress = Progress("measuring", len(named), "compositions", say=None)
    with progress:
        for name, jets in named:
            progress.step(name)
            rows[name] = measure(jets, samples[""], settings.draws, settings.seed)
    out = Path(settings.out)
    content = {
        "version": __version__,
        "settings": {key: value for key, value in asdict(settings).items() if key != "out"},
        "compositions": requests,
        "measures": {name: {key: value.plain() for key, value in row.items()} for name, row in rows.items()},
    }
    write_json(out / "compare.json", content)
    drawn = draw_figures(rows, {name: samples[name] for name in ("", *requests)}, out)
    console = cli.console(WIDE)
    console.print(as_table(rows, settings))
    for path in (out / "compare.json", *drawn):
        console.print(str(path))
    return rows


def _samples(settings: Compare, requests: dict[str, Any]) -> dict[str, JetTable]:
    """Jets by composition; under the empty name the downstream ones, under `REFERENCE` others of theirs.

    All have the observables that both datasets have.
    """
    data = DataSettings(dir=settings.dir, store=settings.store, features=settings.features)
    drawn = {
        name: draw(data, settings.dataset, request, settings.jets, settings.seed)
        for name, request in requests.items()
    }
    target = dict.fromkeys(settings.downstream, 1.0)
    first, second = (
        draw(data, settings.downstream_dataset, target, settings.jets, settings.seed, skip=skip)
        for skip in (0, settings.jets)
    )
    samples = {"": first, REFERENCE: second, **drawn}
    shared = [
        name for name in first.observables if all(name in jets.observables for jets in samples.values())
    ]
    return {name: jets.only(shared) for name, jets in samples.items()}


def as_table(rows: dict[str, Row], settings: Compare) -> Table:
    """Measures as a table, the least distinguishable composition first.

    Parameters
    ----------
    rows : measures by composition
    settings : of the command, for the title
    """
    names = ", ".join(settings.downstream)
    downstream = DATASETS[settings.downstream_dataset].title
    table = Table(
        title=f"{settings.jets:,} jets each; aligned with {names} of {downstream}",
        caption="AUC 0.5: not to be told from downstream; distance: mean over observables, in downstream sd",
    )
    table.add_column("composition")
    for name in MEASURES.names():
        table.add_column(MEASURES[name].heading, justify="right")
    for name in sorted(rows, key=lambda name: rows[name]["auc"].value):
        table.add_row(name, *(str(rows[name][key]) for key in MEASURES.names()))
    return table
