"""Make a packed store: deal the jets of all files to parts, shuffle each part, rename the whole into place.

An external shuffle in two passes, with memory bounded per worker. All work happens in a hidden folder
beside the store; every file in it is whole or absent, so a build that was killed goes on where it stopped
and ends with the same bytes. The store appears under its name when it is complete, never before.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from jetscale import __version__
from jetscale.files import fingerprint, fsync_directory, write_json
from jetscale.jets.errors import JetDataError
from jetscale.jets.parts import PartJob, write_parts
from jetscale.jets.request import StoreRequest
from jetscale.jets.sources import SourceFile, missing_message
from jetscale.jets.spill import Spill, SpillJob, write_spill
from jetscale.jets.store import MANIFEST, Store
from jetscale.jets.workers import available_cores, run_jobs

PART_BYTES = 1 << 27
"""Source bytes per part: about 100,000 JetClass jets, 75 MB packed; a window that stays cached."""
INLINE_BYTES = 1 << 26
"""Below this many source bytes starting worker processes takes longer than the work."""
PARTS_PER_JOB = 16

Progress = Callable[[str, int, int], None]
"""Told (what, done, total) as the work goes on."""

log = logging.getLogger(__name__)


def _silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


def ensure_store(
    request: StoreRequest, workers: int = 0, progress: Progress = _silent, part_bytes: int = PART_BYTES
) -> Store:
    """Open the store, made first if it is missing.

    Any number of processes may call this at once: one builds, the others wait for it.

    Parameters
    ----------
    workers : processes to build with; 0 for one per core

    Raises
    ------
    JetDataError
        There is neither store nor source files; the store was made from other files or settings; a source
        file is unusable (see `jetscale.jets.readers.JetFileReader`).
    """
    if not request.path.exists():
        sources = request.sources()
        if not sources:
            raise JetDataError(
                missing_message(request.directory, request.dataset, request.split, request.path)
            )
        request.store_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(request.store_dir / f".{request.path.name}.lock"):
            if not request.path.exists():
                if workers == 0:
                    workers = available_cores() if sum(file.size for file in sources) > INLINE_BYTES else 1
                _build(request, sources, workers, progress, part_bytes)
    return open_store(request)


def open_store(request: StoreRequest) -> Store:
    """Open a store that exists and hold it against the settings and the source files that are there.

    Where the source files are gone the store stands for itself.

    Raises
    ------
    JetDataError
        It is incomplete, or was made from other files or settings.
    """
    store = Store.open(request.path)
    wanted = request.definition()
    made = {key: store.definition[key] for key in wanted if key in store.definition}
    if made != wanted:
        different = sorted(key for key in wanted if made.get(key) != wanted[key])
        raise JetDataError(
            f"{request.path}: made with another {', '.join(different)}: "
            f"{[made.get(key) for key in different]}, now {[wanted[key] for key in different]}; "
            "remove it to have it made again"
        )
    now = {file.name: file.size for file in request.sources()}
    then = {source["name"]: source["size"] for source in store.definition["sources"]}
    changed = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    if now and changed:
        raise JetDataError(
            f"{request.path}: made from other files than those in {request.directory}: {changed[0]} "
            f"has {now.get(changed[0], 'no')} bytes now and had {then.get(changed[0], 'no')} "
            f"({len(changed)} files differ); remove the store to have it made again, or name another store"
        )
    return store


def _build(
    request: StoreRequest, sources: list[SourceFile], workers: int, progress: Progress, part_bytes: int
) -> None:
    log.info("packing %d files into %s with %d workers", len(sources), request.path, workers)
    total = sum(file.size for file in sources)
    plan = {**request.definition(), "n_parts": -(-total // part_bytes)}
    files = [{"name": file.name, "size": file.size} for file in sources]
    staging = request.store_dir / f".{request.path.name}.building"
    _start_staging(staging, {**plan, "sources": files, "jetscale": __version__})
    spills = _first_pass(request, sources, staging, plan["n_parts"], workers, progress)
    opened = [Spill(path, plan["n_parts"]) for path in spills]
    _refuse_duplicates(sources, opened)
    if not sum(spill.n_jets for spill in opened):
        raise JetDataError(
            f"{request.directory}: no jet of {len(sources)} files passes selection={request.selection}"
        )
    definition = {
        **plan,
        "sources": [{**file, "sha256": spill.checksum} for file, spill in zip(files, opened, strict=True)],
    }
    entries = _second_pass(staging, definition, spills, workers, progress)
    write_json(staging / MANIFEST, _manifest(definition, entries))
    shutil.rmtree(staging / "spill")
    (staging / "plan.json").unlink()
    staging.rename(request.path)
    fsync_directory(request.store_dir)


def _start_staging(staging: Path, plan: dict[str, Any]) -> None:
    """Go on with an interrupted build of the same plan; discard what an interrupted build of another left."""
    planned = staging / "plan.json"
    if staging.exists() and not (planned.exists() and json.loads(planned.read_text()) == plan):
        log.warning("%s: left by an interrupted build from other files or settings, starting afresh", staging)
        shutil.rmtree(staging)
    (staging / "spill").mkdir(parents=True, exist_ok=True)
    for left_over in [*staging.glob(".*.part*"), *(staging / "spill").glob(".*.part*")]:
        left_over.unlink()
    write_json(planned, plan)


def _first_pass(
    request: StoreRequest,
    sources: list[SourceFile],
    staging: Path,
    n_parts: int,
    workers: int,
    progress: Progress,
) -> list[Path]:
    spills = [staging / "spill" / f"{file.name}.arrow" for file in sources]
    jobs = [
        SpillJob(file.path, spill, request.features, request.selection, n_parts)
        for file, spill in zip(sources, spills, strict=True)
        if not spill.exists()
    ]
    total = sum(file.size for file in sources)
    done = total - sum(job.source.stat().st_size for job in jobs)
    progress("reading", done, total)
    for size in run_jobs(write_spill, jobs, workers):
        done += size
        progress("reading", done, total)
    return spills


def _refuse_duplicates(sources: list[SourceFile], spills: list[Spill]) -> None:
    first: dict[str, SourceFile] = {}
    for file, spill in zip(sources, spills, strict=True):
        if spill.checksum in first:
            raise JetDataError(
                f"{file.path}: duplicated file, the same bytes as {first[spill.checksum].path}; "
                "remove one of them"
            )
        first[spill.checksum] = file


def _second_pass(
    staging: Path, definition: dict[str, Any], spills: list[Path], workers: int, progress: Progress
) -> list[dict[str, Any]]:
    n_parts: int = definition["n_parts"]
    per_job = max(1, min(PARTS_PER_JOB, -(-n_parts // workers)))
    numbers = [tuple(range(start, min(start + per_job, n_parts))) for start in range(0, n_parts, per_job)]
    jobs = [PartJob(some, staging, tuple(spills), json.dumps(definition)) for some in numbers]
    entries: list[dict[str, Any]] = []
    progress("mixing", 0, n_parts)
    for number, made in enumerate(run_jobs(write_parts, jobs, workers), start=1):
        entries += made
        progress("mixing", min(number * per_job, n_parts), n_parts)
    return sorted(entries, key=lambda entry: str(entry["file"]))


def _manifest(definition: dict[str, Any], entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint(definition),
        "jetscale": __version__,
        "n_jets": sum(entry["n_jets"] for entry in entries),
        "n_constituents": sum(entry["n_constituents"] for entry in entries),
        "definition": definition,
        "parts": entries,
    }
