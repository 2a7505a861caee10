"""Make a packed store: deal the jets of all files to parts, shuffle each part, rename the whole into place.

An external shuffle in two passes, with memory bounded per worker. All work happens in a hidden folder
beside the store; every file in it is whole or absent, so a build that was killed goes on where it stopped
and ends with the same bytes. The store appears under its name when it is complete, never before.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from jetscale import __version__
from jetscale.common.files import CHECKSUM, DamagedFile, fsync_directory, read_sealed, write_sealed
from jetscale.common.progress import in_parts, waiting
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.datasets.files import SourceFile, missing_message
from jetscale.jets.errors import JetDataError, raise_problems, read_errors_named
from jetscale.jets.reading.locations import stamp
from jetscale.jets.reading.manifests import maker_of
from jetscale.jets.stores.checked import RECORDS, read_record, whole_record
from jetscale.jets.stores.duplicates import in_two_files, same_bytes
from jetscale.jets.stores.opening import open_store
from jetscale.jets.stores.packed_store import LABELS, SKETCHES, WARNINGS, Store, write_manifest
from jetscale.jets.stores.passes import (
    N_PARTS,
    SPILLS,
    PartJob,
    SpillJob,
    spill_path,
    try_spill,
    write_parts,
)
from jetscale.jets.stores.request import StoreRequest
from jetscale.jets.stores.sketches import SKETCH
from jetscale.jets.stores.workers import Workers, available_cores

PART_BYTES = 1 << 27
"""Source bytes per part: about 100,000 JetClass jets, 75 MB packed; a window that stays cached."""
INLINE_BYTES = 1 << 26
"""Below this many source bytes starting worker processes takes longer than the work."""
PARTS_PER_JOB = 16
PLAN = "plan.json"

Progress = Callable[[str, int, int], None]
"""Told (what, bytes done, bytes in all) as the work goes on."""

log = logging.getLogger(__name__)


def ensure_store(
    request: StoreRequest,
    workers: int = 0,
    progress: Progress | None = None,
    part_bytes: int = PART_BYTES,
) -> Store:
    """Open the store, made first if it is missing.

    Any number of processes may call this at once: one builds, the others wait for it.

    Parameters
    ----------
    workers : processes to build with; 0 for one per core
    progress : told of it; None: a bar on a terminal, else lines in the log

    Raises
    ------
    JetDataError
        There is neither store nor source files; the store was made from other files or settings; source
        files are unusable (see `jetscale.jets.datasets.files.JetFileReader`; all of them are named, the
        others are done and kept); the store's folder cannot be written to.
    """
    if not request.path.exists():
        sources = _sources(request)
        with _writing(request), _lock(request):
            if not request.path.exists():
                if workers == 0:
                    workers = available_cores() if sum(file.size for file in sources) > INLINE_BYTES else 1
                with Workers(workers) as pool, in_parts(request.path.name, say=log.info) as shown:
                    _Build(request, sources, progress or shown, part_bytes).run(pool)
    return open_store(request)


def store_or_files(request: StoreRequest) -> Store | None:
    """Open the store where it exists; None where there are source files to make it from.

    Nothing is packed, and no jet is read.

    Raises
    ------
    JetDataError
        There is neither store nor source files; see also `open_store`.
    """
    if request.path.exists():
        return open_store(request)
    _sources(request)
    return None


def _sources(request: StoreRequest) -> list[SourceFile]:
    """The source files, at least one."""
    if sources := request.sources():
        return sources
    raise JetDataError(missing_message(request.directory, request.dataset, request.split, request.path))


@contextmanager
def _lock(request: StoreRequest) -> Iterator[None]:
    request.store_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(request.store_dir / f".{request.path.name}.lock")
    with waiting(f"another process packs {request.path}; waiting for it", log.info):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing(request: StoreRequest) -> Iterator[None]:
    """A disk that is full or cannot be written to becomes a `JetDataError` that names it and the way out."""
    try:
        yield
    except OSError as error:
        folder = request.store_dir
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            way_out = "making it takes twice its own size: free some space, or name a folder on another disk"
        else:
            way_out = "make the folder writable, or name another"
        raise JetDataError(
            f"{request.path}: cannot be written below {folder} ({error}); {way_out} "
            "(data.store=FOLDER, or store=FOLDER of jetscale.prepare) and start again, what is done is kept"
        ) from error


def _sealed_content(path: Path) -> dict[str, Any]:
    """Content of a sealed file; empty where it is missing or damaged."""
    try:
        return read_sealed(path)
    except (FileNotFoundError, DamagedFile):
        return {}


class _Build:
    """One build of one store."""

    def __init__(
        self, request: StoreRequest, sources: list[SourceFile], progress: Progress, part_bytes: int
    ) -> None:
        self.request = request
        self.sources = sources
        self.progress = progress
        self.total = sum(file.size for file in sources)
        self.n_parts = -(-self.total // part_bytes)
        self.definition = request.definition()
        self.files = [{"name": file.name, "size": file.size} for file in sources]
        self.staging = request.store_dir / f".{request.path.name}.building"
        self.spills = [spill_path(self.staging, file.name) for file in sources]

    def run(self, workers: Workers) -> None:
        """From source files to the store under its name."""
        log.info(
            "packing %d files into %s, %d at a time", len(self.sources), self.request.path, workers.n_workers
        )
        self._start_staging()
        self._first_pass(workers)
        records = self._records()
        warnings = [*in_two_files(self.sources, records), *self._mixed_makers()]
        sources = self._sources_with_checksums(records)
        definition = {**self.definition, N_PARTS: self.n_parts, "sources": sources}
        entries = self._second_pass(workers, definition)
        sketches = {file.name: record[SKETCH] for file, record in zip(self.sources, records, strict=True)}
        labels = list(DATASETS[self.request.dataset].labels)
        beside = {LABELS: labels, SKETCHES: sketches, WARNINGS: warnings}
        write_manifest(self.staging, definition, entries, beside)
        for work in (SPILLS, RECORDS):
            shutil.rmtree(self.staging / work)
        (self.staging / PLAN).unlink()
        self.staging.rename(self.request.path)
        fsync_directory(self.request.store_dir)

    def _start_staging(self) -> None:
        """Go on with an interrupted build; discard what is not of this store any more.

        What a file became depends on nothing but the file, the definition and the number of parts. A part has
        jets of all files, and names them.
        """
        made_by = {"definition": self.definition, "jetscale": __version__}
        plan = {"made_by": made_by, "sources": self.files, N_PARTS: self.n_parts}
        planned = self.staging / PLAN
        left = _sealed_content(planned)
        if self.staging.exists() and left.get("made_by") != made_by:
            log.warning("%s: left by an interrupted build of something else, starting afresh", self.staging)
            shutil.rmtree(self.staging)
        elif left != plan:
            self._discard_parts()
            for spill in {*self.staging.glob(f"{SPILLS}/*.arrow")}.difference(self.spills):
                spill.unlink()
        (self.staging / SPILLS).mkdir(parents=True, exist_ok=True)
        for left_over in self.staging.rglob(".*.part*"):
            left_over.unlink()
        write_sealed(planned, plan)

    def _discard_parts(self) -> None:
        for part in self.staging.glob("part_*"):
            part.unlink()

    def _first_pass(self, workers: Workers) -> None:
        jobs = []
        for file, spill in zip(self.sources, self.spills, strict=True):
            n_parts = self._parts_of_spill(file, spill)
            if n_parts != self.n_parts:
                jobs.append(self._spill_job(file, is_read=n_parts is not None))
        if jobs:  # a part made from a file that has changed since is none of this store
            self._discard_parts()
        done = self.total - sum(job.source.size for job in jobs)
        self.progress("reading", done, self.total)
        problems = []
        for result in workers.run(try_spill, jobs):
            problems += [result.problem] if result.problem else []
            done += result.source.size
            self.progress("reading", done, self.total)
        raise_problems(sorted(problems), f"of {len(self.sources)} files cannot be used, the others are kept")

    def _spill_job(self, file: SourceFile, is_read: bool) -> SpillJob:
        of_store = (self.request.dataset, self.request.features, self.request.selection)
        return SpillJob(file, self.staging, *of_store, self.n_parts, is_read)

    def _parts_of_spill(self, file: SourceFile, spill: Path) -> int | None:
        """Parts that an interrupted build dealt the file's jets to; None where the file must be read (again).

        It must where it, or what was made of it, is not what it was.
        """
        record = whole_record(self.staging, spill)
        with read_errors_named(file.path):
            if record is None or record["stamp"] != stamp(file.path, file.size):
                return None
        return int(record[N_PARTS])

    def _records(self) -> list[dict[str, Any]]:
        """Records of the spill files; no file twice, and some jet selected."""
        records = [read_record(self.staging, path.name) for path in self.spills]
        raise_problems(same_bytes(self.sources, records))
        if not any(record["n_jets"] for record in records):
            raise JetDataError(
                f"{self.request.directory}: no jet of {len(self.sources)} files passes "
                f"selection={self.request.selection}"
            )
        return records

    def _mixed_makers(self) -> list[str]:
        """A message of real and simulated jets, or those of two simulators, in one store."""
        makers = {maker_of(file.path): file for file in self.sources if isinstance(file.path, Path)}
        if len(makers) < 2:
            return []
        told = "; ".join(f"{maker} ({file.name})" for maker, file in sorted(makers.items()))
        path, n = self.request.path, len(makers)
        return [
            f"{path}: jets of {n} origins are mixed in it, {told}: what is measured on them holds for none"
        ]

    def _sources_with_checksums(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Name, size and checksum of every source."""
        return [
            {**file, CHECKSUM: record[CHECKSUM]} for file, record in zip(self.files, records, strict=True)
        ]

    def _second_pass(self, workers: Workers, definition: dict[str, Any]) -> list[dict[str, Any]]:
        """Manifest entries of all parts, in order."""
        per_job = max(1, min(PARTS_PER_JOB, -(-self.n_parts // workers.n_workers)))
        jobs = [
            PartJob(
                range(start, min(start + per_job, self.n_parts)),
                self.staging,
                tuple(file.name for file in self.sources),
                json.dumps(definition),
            )
            for start in range(0, self.n_parts, per_job)
        ]
        entries: list[dict[str, Any]] = []
        total = sum(spill.stat().st_size for spill in self.spills)
        self.progress("mixing", 0, total)
        for number, made in enumerate(workers.run(write_parts, jobs), start=1):
            entries += made
            self.progress("mixing", total * number // len(jobs), total)
        return sorted(entries, key=lambda entry: str(entry["file"]))
