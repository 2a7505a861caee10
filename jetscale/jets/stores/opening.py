"""Open a packed store that exists, and compare it with what is asked for and the files that are there."""

from __future__ import annotations

import logging
from functools import cache

from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import RemoteFolder
from jetscale.jets.stores.duplicates import in_other_splits, was_of_other_splits
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest

log = logging.getLogger(__name__)


def open_store(request: StoreRequest) -> Store:
    """Open a store that exists, and compare it with the settings and the source files that are there.

    Source files that are gone, or behind a URL, are not compared: a run needs no network.

    Raises
    ------
    JetDataError
        It is incomplete, or was made from other files or settings.
    """
    store = Store.open(request.path)
    check_settings(store, request)
    kept = (message for message in store.warnings if not was_of_other_splits(message))
    for message in (*kept, *in_other_splits(store, request)):
        _warned(message)
    if not isinstance(request.directory, RemoteFolder):
        _check_files(store, request)
    return store


@cache
def _warned(message: str) -> None:
    log.warning("%s", message)  # once a process, which may open the store for many runs


def check_settings(store: Store, request: StoreRequest) -> None:
    """Check that the store was made with the settings of `request`.

    Parameters
    ----------
    store : as it is
    request : as it should be

    Raises
    ------
    JetDataError
        It has another format, dataset, split, feature set, selection or order of labels; the message names
        what differs.
    """
    wanted = request.definition()
    made = {key: store.definition[key] for key in wanted if key in store.definition}
    if made != wanted:
        different = sorted(key for key in wanted if made.get(key) != wanted[key])
        raise JetDataError(
            f"{request.path}: made with another {', '.join(different)}: "
            f"{[made.get(key) for key in different]}, now {[wanted[key] for key in different]}; "
            "remove it to have it made again"
        )
    labels = list(DATASETS[request.dataset].labels)
    if store.labels and store.labels != labels:
        at = next(
            at for at, names in enumerate(zip(store.labels, labels, strict=True)) if len(set(names)) > 1
        )
        raise JetDataError(
            f"{request.path}: made with other labels: label {at} was {store.labels[at]!r}, now "
            f"{labels[at]!r}; remove it to have it made again"
        )


def _check_files(store: Store, request: StoreRequest) -> None:
    now = {file.name: file.size for file in request.sources()}
    then = {source["name"]: source["size"] for source in store.definition["sources"]}
    changed = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    if now and changed:
        raise JetDataError(
            f"{request.path}: made from other files than those in {request.directory}: {changed[0]} "
            f"has {now.get(changed[0], 'no')} bytes now and had {then.get(changed[0], 'no')} "
            f"({len(changed)} files differ); remove the store to have it made again, or name another store"
        )
