"""Compare checksums: of a store's parts, and of the source files that are there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jetscale.common.files import CHECKSUM, checksum_file
from jetscale.jets.datasets.files import SourceFile
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import local_copy
from jetscale.jets.stores.opening import check_settings
from jetscale.jets.stores.packed_store import MANIFEST, Part, Store
from jetscale.jets.stores.request import StoreRequest
from jetscale.jets.stores.workers import available_cores


@dataclass(frozen=True)
class _Check:
    """How many bytes to go through, and what then gives the message, if there is a problem."""

    size: int
    problem: Callable[[], str | None]


def check_store(
    request: StoreRequest, progress: Callable[[str, int, int], None], workers: int = 0
) -> tuple[Store | None, list[str]]:
    """The store, if it has a readable manifest, and a message for every damaged file.

    Parameters
    ----------
    workers : threads (hashing frees the interpreter); 0 for one per core
    """
    try:
        store = Store.read_manifest(request.path)
        check_settings(store, request)
    except JetDataError as error:
        return None, [str(error)]
    problems: list[str] = []
    checks = [_Check(entry["size"], partial(_part_problem, store, entry)) for entry in store.entries]
    try:
        sources = request.sources()
    except JetDataError as error:
        problems.append(str(error))
    else:
        found, other = _source_checks(store, sources)
        checks += found
        problems += other
    total = sum(check.size for check in checks)
    done = 0
    progress("checking", done, total)
    with ThreadPoolExecutor(workers or available_cores()) as pool:
        running = {pool.submit(check.problem): check for check in checks}
        for future in as_completed(running):
            problem = future.result()
            problems += [problem] if problem else []
            done += running[future].size
            progress("checking", done, total)
    return store, sorted(problems)


def _source_checks(store: Store, sources: list[SourceFile]) -> tuple[list[_Check], list[str]]:
    """Checks of the source files that are there, and what to say of others. No files at all are fine."""
    if not sources:
        return [], []
    remedy = f"{store.path} was made from another: restore the file, or remove the store"
    then = {source["name"]: source for source in store.definition["sources"]}
    now = {file.name: file for file in sources}
    problems = [f"{name}: the source file is missing; {remedy}" for name in then.keys() - now.keys()]
    problems += [
        f"{now[name].path}: is no source of {store.path}; {remedy}" for name in now.keys() - then.keys()
    ]
    checks = []
    for name in then.keys() & now.keys():
        file, source = now[name], then[name]
        if file.size == source["size"]:
            checks.append(_Check(file.size, partial(_source_problem, file, source[CHECKSUM], remedy)))
        else:
            problems.append(f"{file.path}: has {file.size} bytes instead of {source['size']}; {remedy}")
    return checks, problems


def _part_problem(store: Store, entry: Mapping[str, Any]) -> str | None:
    """Message for a part that is missing or damaged, or has other labels than jets are found by."""
    path = store.path / entry["file"]
    try:
        part = Part(path, entry, store.remedy)
        labels = part.jets.labels
        by_label = labels[part.rows_by_label]
    except JetDataError as error:
        return str(error)
    expected = np.repeat(np.arange(len(entry["label_counts"])), entry["label_counts"])
    if np.array_equal(by_label, expected) and np.array_equal(np.sort(labels), expected):
        return None
    return f"{path}: its jets have other labels than {MANIFEST} says; {store.remedy}"


def _source_problem(source: SourceFile, checksum: str, remedy: str) -> str | None:
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            local_copy(source.path, source.size, Path(folder)) as path,
        ):
            found = checksum_file(path)
    except JetDataError as error:
        return str(error)
    except OSError as error:
        return f"{source.path}: cannot be read ({error}); {remedy}"
    if found == checksum:
        return None
    return f"{source.path}: damaged, checksum {found} instead of {checksum}; {remedy}"
