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

from jetscale.common.files import CHECKSUM, atomic_path, checksum_file
from jetscale.jets.errors import JetDataError
from jetscale.jets.features import feature_set
from jetscale.jets.ordering.randomness import raw_words
from jetscale.jets.ordering.selection import selected
from jetscale.jets.reading.locations import local_copy, stamp
from jetscale.jets.reading.readers import JetFileReader, reading
from jetscale.jets.reading.source_files import SourceFile
from jetscale.jets.stores.checked import ArrowFile, describe
from jetscale.jets.stores.packed_jets import PackedJets, Room, gather, pack, packed_schema, view
from jetscale.jets.stores.records import REMEDY, keep_record, read_record

Parts = npt.NDArray[np.uint32]

SPILLS = "spill"
"""Folder of the spill files, inside that of the build."""
GROUP = 20_000
"""Jets dealt at once: 15 MB packed, which the C library recycles; with 40,000 it maps memory anew each time
and takes a third longer. A part of a store of 100M jets reads 14 jets (10 kB) from each."""


@dataclass(frozen=True)
class SpillJob:
    """What to read, and the folder of the build that it is for."""

    source: SourceFile
    folder: Path
    features: str
    selection: str
    n_parts: int


@dataclass(frozen=True)
class SpillResult:
    """What became of a source file: done, or a `problem` that its user must mend."""

    source: SourceFile
    problem: str | None


def spill_path(folder: Path, name: str) -> Path:
    """Spill file of the source file `name` in the folder of a build."""
    return folder / SPILLS / f"{name}.arrow"


def try_spill(job: SpillJob) -> SpillResult:
    """`write_spill`; an unusable source becomes a result, so that the other files go on."""
    try:
        write_spill(job)
    except JetDataError as error:
        return SpillResult(job.source, str(error))
    return SpillResult(job.source, None)


def write_spill(job: SpillJob) -> None:
    """Read, check, select and pack a source file; its record says what it was and what came of it.

    Raises
    ------
    JetDataError
        See `jetscale.jets.reading.readers.JetFileReader`; the file changed while it was read.
    """
    features = feature_set(job.features)
    file, size = job.source.path, job.source.size
    target = spill_path(job.folder, job.source.name)
    with reading(file):
        before = stamp(file, size)
    with local_copy(file, size, target.parent) as path:
        with reading(file):
            checksum = checksum_file(path)
        schema = packed_schema(features, {"part": pa.uint32()}, {})
        n_jets = 0
        with (
            JetFileReader(path, file) as source,
            atomic_path(target) as aside,
        ):
            with pa.ipc.new_file(str(aside), schema) as writer:
                for jets, parts in _groups(source, job):
                    writer.write_batch(jets.record_batch(schema, {"part": parts}))
                    n_jets += jets.n_jets
            with reading(file):
                if stamp(file, size) != before:
                    raise JetDataError(f"{file}: changed while it was read; start again when it is whole")
    record = {**describe(target), CHECKSUM: checksum, "stamp": before, "n_jets": n_jets}
    keep_record(job.folder, target.name, record)


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
    """A spill file, memory-mapped, with the jets of some parts, compared with their checksums.

    Parameters
    ----------
    folder : of the build
    name : of the source file
    n_parts : of the whole store
    parts : those that will be asked for

    Raises
    ------
    JetDataError
        The file is damaged.
    """

    def __init__(self, folder: Path, name: str, n_parts: int, parts: range) -> None:
        path = spill_path(folder, name)
        file = ArrowFile(path, read_record(folder, path.name), REMEDY)
        self._groups: list[tuple[PackedJets, Any]] = []
        for batch in file.batches:
            part_B = batch.column("part").to_numpy()
            file.verify(part_B)
            jets, bounds = view(batch), np.searchsorted(part_B, np.arange(n_parts + 1))
            file.verify_jets(jets, int(bounds[parts.start]), int(bounds[parts.stop]))
            self._groups.append((jets, bounds))

    def pieces(self, part: int) -> list[PackedJets]:
        """Jets dealt to `part`, in the source's order."""
        ranges = [(jets, int(bounds[part]), int(bounds[part + 1])) for jets, bounds in self._groups]
        return [jets.slice(start, stop) for jets, start, stop in ranges if start < stop]
