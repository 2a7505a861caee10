"""What ``python -m jetscale.prepare`` does: stores made or checked, with progress and a report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from jetscale.jets.datasets.label_map import STORED_LABELS
from jetscale.jets.datasets.schemas import FOLDERS, SPLITS
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.source_files import find_sources, missing_message
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import Progress as Report
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.checking import check_store
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest
from jetscale.prepare.settings import ALL, PrepareSettings


def prepare(settings: PrepareSettings) -> None:
    """Make, or check, the stores that `settings` ask for.

    Raises
    ------
    JetDataError
        There is nothing to make them of, a source cannot be used, or a check found damage.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    problems: list[str] = []
    for request in _requests(settings):
        with _progress_bar(console, request) as report:
            if settings.check:
                store, found = check_store(request, report, settings.workers)
            else:
                store, found = ensure_store(request, settings.workers, report), []
        if store and not found:
            _report(console, store, "checksums good" if settings.check else "ready")
        for problem in found:
            console.print(problem)
        problems += found
    if problems:
        raise JetDataError(f"{len(problems)} damaged files, named above")


def _report(console: Console, store: Store, state: str) -> None:
    console.print(
        f"{store.path}: {state}, {store.n_jets:,} jets, {store.n_constituents:,} constituents, "
        f"{len(store.entries)} parts, fingerprint {store.fingerprint[:12]}"
    )
    labels = STORED_LABELS[store.definition["dataset"]]
    without = [labels[label] for label in np.flatnonzero(store.label_counts == 0)]
    if without:
        some = ", ".join(without[:10]) + (", ..." if len(without) > 10 else "")
        console.print(f"  {len(without)} labels have no jets: {some}")


def _requests(settings: PrepareSettings) -> list[StoreRequest]:
    """Stores asked for; of what was not named exactly, those that have a store or files to make it from."""
    data = DataSettings(dir=settings.dir, store=settings.store)
    directory = data.directory
    datasets = list(FOLDERS) if settings.dataset == ALL else [settings.dataset]
    splits = list(SPLITS) if settings.split == ALL else [settings.split]
    asked = [
        StoreRequest(directory, data.store_dir, dataset, split, settings.features, settings.selection)
        for dataset in datasets
        for split in splits
    ]
    found = [
        request
        for request in asked
        if request.path.exists()
        or (not settings.check and find_sources(directory, request.dataset, request.split))
    ]
    if not found:
        reasons = [
            missing_message(directory, one.dataset, one.split, one.path) for one in asked[:: len(splits)]
        ]
        raise JetDataError("\n".join(reasons))
    return found


@contextmanager
def _progress_bar(console: Console, request: StoreRequest) -> Iterator[Report]:
    with Progress(
        TextColumn(f"{request.path.name} {{task.description}}"),
        BarColumn(),
        TaskProgressColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        tasks = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report
