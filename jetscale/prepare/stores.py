"""What ``python -m jetscale.prepare`` does: stores made or checked, with progress and a report."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from rich.console import Console

from jetscale.common.progress import in_parts
from jetscale.jets.datasets.base import DATASETS, SPLITS
from jetscale.jets.datasets.files import missing_message
from jetscale.jets.errors import JetDataError, LackingColumn
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.checking import check_store
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest, store_request
from jetscale.prepare.settings import ALL, PrepareSettings

log = logging.getLogger(__name__)


def prepare(settings: PrepareSettings) -> None:
    """Make, or check, the stores that `settings` ask for.

    Raises
    ------
    JetDataError
        There is nothing to make them of, a source cannot be used, or a check found damage.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
    problems: list[str] = []
    for request in _requests(settings):
        if settings.check:
            with in_parts(request.path.name) as report:
                store, found = check_store(request, report, settings.workers)
        else:
            store, found = ensure_store(request, settings.workers), []
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
    labels = DATASETS[store.definition["dataset"]].labels
    without = [labels[label] for label in np.flatnonzero(store.label_counts == 0)]
    if without:
        some = ", ".join(without[:10]) + (", ..." if len(without) > 10 else "")
        console.print(f"  {len(without)} labels have no jets: {some}")


def _requests(settings: PrepareSettings) -> list[StoreRequest]:
    """Stores asked for; of what was not named exactly, those that have a store or files to make it from."""
    data = DataSettings(
        dir=settings.dir, store=settings.store, features=settings.features, selection=settings.selection
    )
    splits = SPLITS if settings.split == ALL else (settings.split,)
    asked = [store_request(data, dataset, split) for dataset in _datasets(settings, data) for split in splits]
    found = [
        request for request in asked if request.path.exists() or (not settings.check and request.sources())
    ]
    if not found:
        reasons = [
            missing_message(data.directory, one.dataset, one.split, one.path) for one in asked[:: len(splits)]
        ]
        raise JetDataError("\n".join(reasons))
    return found


def _datasets(settings: PrepareSettings, data: DataSettings) -> list[str]:
    """Datasets asked for; of all, those that have the columns that the features and the selection need."""
    if settings.dataset != ALL:
        return [settings.dataset]
    possible = []
    for dataset in DATASETS.names():
        folder = data.directory / DATASETS[dataset].folder
        try:
            StoreRequest(
                data.directory, data.store_dir, dataset, "train", settings.features, settings.selection
            )
        except LackingColumn as error:
            if isinstance(folder, Path) and folder.is_dir():
                log.warning("%s is left out: %s", folder, error)
            continue
        possible.append(dataset)
    return possible
