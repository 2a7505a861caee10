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
        There is nothing to make them of, sources cannot be used (the stores of the others are made), or a
        check found damage.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
    if settings.check:
        _check(_stores_there(settings), settings.workers, console)
    else:
        _make(settings, console)


def _make(settings: PrepareSettings, console: Console) -> None:
    """All stores that can be made, then one error of all that is wrong with the others."""
    asked = _asked(settings)
    problems: list[str] = []
    n_found = 0
    for request in asked:
        try:
            if request.path.exists() or request.sources():
                n_found += 1
                _report(console, ensure_store(request, settings.workers), "ready")
        except JetDataError as error:
            problems.append(str(error))
    if problems:
        # a file that belongs to no split is wrong in each
        raise JetDataError("\n".join(dict.fromkeys(problems)))
    if not n_found:
        raise JetDataError(_nothing_found(asked))


def _check(stores: list[StoreRequest], workers: int, console: Console) -> None:
    n_problems = 0
    for request in stores:
        with in_parts(request.path.name) as report:
            store, found = check_store(request, report, workers)
        if store and not found:
            _report(console, store, "checksums good")
        for problem in found:
            console.print(problem)
        n_problems += len(found)
    if n_problems:
        raise JetDataError(f"{n_problems} damaged files, named above")


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


def _asked(settings: PrepareSettings) -> list[StoreRequest]:
    """Stores asked for, whether or not there is anything to make them of."""
    data = DataSettings(
        dir=settings.dir, store=settings.store, features=settings.features, selection=settings.selection
    )
    splits = SPLITS if settings.split == ALL else (settings.split,)
    return [store_request(data, dataset, split) for dataset in _datasets(settings, data) for split in splits]


def _stores_there(settings: PrepareSettings) -> list[StoreRequest]:
    """Of the stores asked for those that exist, at least one."""
    asked = _asked(settings)
    if there := [request for request in asked if request.path.exists()]:
        return there
    if with_files := [request for request in asked if request.sources()]:
        paths = ", ".join(str(request.path) for request in with_files)
        raise JetDataError(f"{paths}: there is no store yet to check; leave check out, and it is made")
    raise JetDataError(_nothing_found(asked))


def _nothing_found(asked: list[StoreRequest]) -> str:
    """Where was looked in vain, and what to do: one message a dataset, of its first split."""
    first: dict[str, StoreRequest] = {}
    for request in asked:
        first.setdefault(request.dataset, request)
    reasons = [missing_message(one.directory, one.dataset, one.split, one.path) for one in first.values()]
    return "\n".join(reasons)


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
