"""First pass of `prepare`: one source file to one spill file, its jets dealt to the parts of the store.

Which part a jet goes to depends on the file's name and the entry number alone, so that neither the number of
workers nor the order in which files are read matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jetscale.files import CHECKSUM, atomic_path, checksum_file
from jetscale.jets.errors import JetDataError
from jetscale.jets.features import feature_set
from jetscale.jets.locations import local_copy, stamp
from jetscale.jets.packed import PackedJets, Room, gather, map_batches, pack, packed_schema, view
from jetscale.jets.randomness import raw_words
from jetscale.jets.readers import JetFileReader, reading
from jetscale.jets.selection import selected
from jetscale.jets.sources import SourceFile

Parts = npt.NDArray[np.uint32]

GROUP = 20_000
"""Jets dealt at once: 15 MB packed, which the C library recycles; with 40,000 it maps memory anew each time
and takes a third longer. A part of a store of 100M jets reads 14 jets (10 kB) from each."""


@dataclass(frozen=True)
class SpillJob:
    """What to read and where to put it."""

    source: SourceFile
    target: Path
    features: str
    selection: str
    n_parts: int


@dataclass(frozen=True)
class SpillResult:
    """What became of a source file: done, or a `problem` that its user must mend."""

    source: SourceFile
    problem: str | None


def try_spill(job: SpillJob) -> SpillResult:
    """`write_spill`; an unusable source becomes a result, so that the other files go on."""
    try:
        write_spill(job)
    except JetDataError as error:
        return SpillResult(job.source, str(error))
    return SpillResult(job.source, None)


def write_spill(job: SpillJob) -> None:
    """Read, check, select and pack a source file.

    Raises
    ------
    JetDataError
        See `jetscale.jets.readers.JetFileReader`; the file changed while it was read.
    """
    features = feature_set(job.features)
    file, size = job.source.path, job.source.size
    with reading(file):
        before = stamp(file, size)
    with local_copy(file, size, job.target.parent) as path:
        with reading(file):
            metadata = {CHECKSUM: checksum_file(path), "stamp": before}
        schema = packed_schema(features, {"part": pa.uint32()}, metadata)
        with (
            JetFileReader(path, file) as source,
            atomic_path(job.target) as aside,
        ):
            with pa.ipc.new_file(str(aside), schema) as writer:
                for jets, parts in _groups(source, job):
                    writer.write_batch(jets.record_batch(schema, {"part": parts}))
            with reading(file):
                if stamp(file, size) != before:
                    raise JetDataError(f"{file}: changed while it was read; start again when it is whole")


def _groups(source: JetFileReader, job: SpillJob) -> Iterator[tuple[PackedJets, Parts]]:
    """Selected jets and their parts, sorted by part, `GROUP` or so at a time; the next take their memory."""
    features = feature_set(job.features)
    part_of_entry = (raw_words(source.n_jets, "part", job.source.name) % job.n_parts).astype(np.uint32)
    held: list[PackedJets] = []
    passed: list[npt.NDArray[np.bool_]] = []
    first, room = 0, Room()
    for raw in source.jets(features.reads):
        held.append(pack(raw, features))
        passed.append(selected(raw, job.selection))
        last = raw.first_entry + raw.n_jets
        if last - first >= GROUP or last == source.n_jets:
            rows = np.flatnonzero(np.concatenate(passed))
            rows = rows[_stable_order(part_of_entry[first + rows], job.n_parts)]
            yield gather(held, rows, room), part_of_entry[first + rows]
            held, passed, first = [], [], last


def _stable_order(parts: Parts, n_parts: int) -> npt.NDArray[np.int64]:
    small = parts.astype(np.uint16) if n_parts <= 1 << 16 else parts  # numpy sorts 16-bit keys by radix
    return np.argsort(small, kind="stable")


class Spill:
    """A spill file, memory-mapped."""

    def __init__(self, path: Path, n_parts: int) -> None:
        schema, batches = map_batches(path)
        self.checksum: str = schema.metadata[CHECKSUM.encode()].decode()
        self.stamp: str = schema.metadata[b"stamp"].decode()
        self._groups = [view(batch) for batch in batches]
        bounds = np.arange(n_parts + 1)
        self._bounds: list[Any] = [
            np.searchsorted(batch.column("part").to_numpy(), bounds) for batch in batches
        ]

    @property
    def n_jets(self) -> int:
        """Jets in the file."""
        return sum(jets.n_jets for jets in self._groups)

    def pieces(self, part: int) -> list[PackedJets]:
        """Jets dealt to `part`, in the source's order."""
        ranges = [(int(bounds[part]), int(bounds[part + 1])) for bounds in self._bounds]
        return [
            jets.slice(start, stop)
            for jets, (start, stop) in zip(self._groups, ranges, strict=True)
            if start < stop
        ]
