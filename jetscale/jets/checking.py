"""Compare checksums: of a store's parts, and of the source files that are there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from jetscale.files import CHECKSUM, checksum_file
from jetscale.jets.building import hold_against_settings
from jetscale.jets.errors import JetDataError
from jetscale.jets.locations import File, local_copy
from jetscale.jets.request import StoreRequest
from jetscale.jets.sources import SourceFile
from jetscale.jets.store import Store
from jetscale.jets.workers import available_cores


@dataclass(frozen=True)
class _Check:
    """A file, its size, the checksum it must have, and what to say of another."""

    file: File
    size: int
    checksum: str
    mend: str


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
        hold_against_settings(store, request)
    except JetDataError as error:
        return None, [str(error)]
    problems = store.wrong_sizes()
    checks = [
        _Check(
            store.path / entry["file"],
            entry["size"],
            entry[CHECKSUM],
            f"remove {store.path} to have it made again",
        )
        for entry in store.entries
        if not any(problem.startswith(f"{store.path / entry['file']}:") for problem in problems)
    ]
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
        running = {pool.submit(_problem, check): check for check in checks}
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
    mend = f"{store.path} was made from another: restore the file, or remove the store"
    then = {source["name"]: source for source in store.definition["sources"]}
    now = {file.name: file for file in sources}
    problems = [f"{name}: the source file is missing; {mend}" for name in then.keys() - now.keys()]
    problems += [
        f"{now[name].path}: is no source of {store.path}; {mend}" for name in now.keys() - then.keys()
    ]
    checks = []
    for name in then.keys() & now.keys():
        file, source = now[name], then[name]
        if file.size == source["size"]:
            checks.append(_Check(file.path, file.size, source[CHECKSUM], mend))
        else:
            problems.append(f"{file.path}: has {file.size} bytes instead of {source['size']}; {mend}")
    return checks, problems


def _problem(check: _Check) -> str | None:
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            local_copy(check.file, check.size, Path(folder)) as path,
        ):
            found = checksum_file(path)
    except JetDataError as error:
        return str(error)
    except OSError as error:
        return f"{check.file}: cannot be read ({error}); {check.mend}"
    if found == check.checksum:
        return None
    return f"{check.file}: damaged, checksum {found} instead of {check.checksum}; {check.mend}"
