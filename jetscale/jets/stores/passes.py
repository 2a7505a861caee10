"""The two passes of a build: source files to spill files, spill files to parts of the store.

First pass: one source file to one spill file, its jets dealt to the parts of the store. Which part a jet goes
to depends on the file's name and the entry number alone, so that neither the number of workers nor the order
in which files are read matters. The number of parts follows from the size of all files together: where it has
changed since an interrupted build, the jets of a spill file are dealt again, and no source is read for it.

Second pass: the spill files to one part, an Arrow file with one record batch of shuffled jets of all sources.
Its column ``rows_by_label`` lists the part's rows sorted by label: with the counts per label that the
manifest keeps it finds the n-th jet of any class without an index over the whole store.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jetscale import __version__
from jetscale.common.files import CHECKSUM, atomic_path, checksum_file, fingerprint
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.datasets.files import JetFileReader, SourceFile, kept_columns
from jetscale.jets.errors import JetDataError, read_errors_named
from jetscale.jets.randomness import permutation, raw_words
from jetscale.jets.reading.locations import local_copy, stamp
from jetscale.jets.stores.checked import (
    REMEDY,
    ArrowFile,
    describe,
    keep_record,
    read_record,
    whole_record,
)
from jetscale.jets.stores.packed_jets import (
    Buffers,
    PackedJets,
    gather,
    map_batches,
    pack,
    packed_schema,
    view,
)
from jetscale.jets.stores.request import selected
from jetscale.jets.stores.sketches import NOTHING, SKETCH, Hashes, as_text, smallest

Numbers = npt.NDArray[np.uint32]

PART, ENTRY = "part", "entry"
"""Columns of a spill file: the part that a jet goes to, and its entry number in the source file."""
N_PARTS, N_ENTRIES = "n_parts", "n_entries"
"""Keys of its record: parts that the jets were dealt to, and jets in the source file, selected or not."""
SPILLS = "spill"
"""Folder of the spill files, inside that of the build."""
GROUP = 20_000
"""Jets dealt at once: 15 MB packed, which the C library recycles. With 40,000 it asks for new memory each
time and takes a third longer. A part of a store of 100M jets reads 14 jets (10 kB) from each."""


@dataclass(frozen=True)
class SpillJob:
    """What to read, and the folder of the build that it is for.

    Attributes
    ----------
    is_read : its spill file is there and whole, with another number of parts
    """

    source: SourceFile
    folder: Path
    dataset: str
    features: str
    selection: str
    n_parts: int
    is_read: bool


@dataclass(frozen=True)
class SpillResult:
    """What became of a source file: done, or a `problem` that its user must solve."""

    source: SourceFile
    problem: str | None


def spill_path(folder: Path, name: str) -> Path:
    """Spill file of a source file.

    Parameters
    ----------
    folder : of the build
    name : of the source file
    """
    return folder / SPILLS / f"{name}.arrow"


def try_spill(job: SpillJob) -> SpillResult:
    """`write_spill` or `deal_again`; an unusable source becomes a result, so that the other files go on."""
    try:
        (deal_again if job.is_read else write_spill)(job)
    except JetDataError as error:
        return SpillResult(job.source, str(error))
    return SpillResult(job.source, None)


def write_spill(job: SpillJob) -> None:
    """Read, check, select and pack a source file; its record says what it was and what came of it.

    Raises
    ------
    JetDataError
        See `jetscale.jets.datasets.files.JetFileReader`; the file changed while it was read.
    """
    dataset = DATASETS[job.dataset]
    file, size = job.source.path, job.source.size
    target = spill_path(job.folder, job.source.name)
    with read_errors_named(file):
        before = stamp(file, size)
    with local_copy(file, size, target.parent) as path:
        with read_errors_named(file):
            checksum = checksum_file(path)
        schema = _spill_schema(job)
        n_jets = 0
        with (
            JetFileReader(dataset, path, file) as source,
            atomic_path(target) as aside,
        ):
            with pa.ipc.new_file(str(aside), schema) as writer:
                sketch = NOTHING
                for jets, dealt, sketch in _groups(source, job):  # noqa: B007 (the last one is of all jets)
                    writer.write_batch(jets.record_batch(schema, dealt))
                    n_jets += jets.n_jets
            with read_errors_named(file):
                if stamp(file, size) != before:
                    raise JetDataError(f"{file}: changed while it was read; start again when it is whole")
    record = {**describe(target), CHECKSUM: checksum, "stamp": before, "n_jets": n_jets}
    record |= {SKETCH: as_text(sketch), N_PARTS: job.n_parts, N_ENTRIES: source.n_jets}
    keep_record(job.folder, target.name, record)


def deal_again(job: SpillJob) -> None:
    """Deal the jets of a spill file that is there to another number of parts, as `write_spill` would have.

    Raises
    ------
    JetDataError
        The spill file is damaged.
    """
    target = spill_path(job.folder, job.source.name)
    record = read_record(job.folder, target.name)
    spilled = ArrowFile(target, record, REMEDY)
    spilled.verify_all()
    part_of_entry = _part_of_entry(job, record[N_ENTRIES])
    schema, buffers = _spill_schema(job), Buffers()
    with atomic_path(target) as aside, pa.ipc.new_file(str(aside), schema) as writer:
        for batch in spilled.batches:
            entry_B = batch.column(ENTRY).to_numpy()
            rows = np.argsort(entry_B)
            rows = rows[_stable_order(part_of_entry[entry_B[rows]], job.n_parts)]
            jets = gather([view(batch)], rows, buffers)
            writer.write_batch(jets.record_batch(schema, _dealt(entry_B[rows], part_of_entry)))
    keep_record(job.folder, target.name, {**record, **describe(target), N_PARTS: job.n_parts})


def _spill_schema(job: SpillJob) -> Any:
    dataset = DATASETS[job.dataset]
    extra = {PART: pa.uint32(), ENTRY: pa.uint32()}
    return packed_schema(dataset.feature_set(job.features), kept_columns(dataset), extra, {})


def _part_of_entry(job: SpillJob, n_entries: int) -> Numbers:
    """The part that each jet of the source file goes to."""
    return (raw_words(n_entries, "part", job.source.name) % job.n_parts).astype(np.uint32)


def _dealt(entry_B: Numbers, part_of_entry: Numbers) -> dict[str, Numbers]:
    """The columns of a spill file that its jets do not have."""
    return {PART: part_of_entry[entry_B], ENTRY: entry_B}


def _groups(source: JetFileReader, job: SpillJob) -> Iterator[tuple[PackedJets, dict[str, Numbers], Hashes]]:
    """Yield about `GROUP` selected jets at a time, sorted by part, with `_dealt` and the sketch up to here.

    The arrays are reused: jets that were yielded are overwritten by the next.
    """
    dataset = DATASETS[job.dataset]
    features = dataset.feature_set(job.features)
    part_of_entry = _part_of_entry(job, source.n_jets)
    held: list[PackedJets] = []
    passed: list[npt.NDArray[np.bool_]] = []
    first, buffers, sketch = 0, Buffers(), NOTHING
    for raw in source.jets(features.reads):
        held.append(pack(raw, features))
        sketch = smallest(sketch, held[-1])
        passed.append(selected(raw, job.selection))
        last = raw.first_entry + raw.n_jets
        if last - first >= GROUP or last == source.n_jets:
            rows = np.flatnonzero(np.concatenate(passed))
            rows = rows[_stable_order(part_of_entry[first + rows], job.n_parts)]
            entry_B = (first + rows).astype(np.uint32)
            yield gather(held, rows, buffers), _dealt(entry_B, part_of_entry), sketch
            held, passed, first = [], [], last


def _stable_order(parts: Numbers, n_parts: int) -> npt.NDArray[np.int64]:
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
            part_B = batch.column(PART).to_numpy()
            file.verify(part_B)
            jets, bounds = view(batch), np.searchsorted(part_B, np.arange(n_parts + 1))
            file.verify_jets(jets, int(bounds[parts.start]), int(bounds[parts.stop]))
            self._groups.append((jets, bounds))

    def pieces(self, part: int) -> list[PackedJets]:
        """Jets dealt to `part`, in the source's order."""
        ranges = [(jets, int(bounds[part]), int(bounds[part + 1])) for jets, bounds in self._groups]
        return [jets.slice(start, stop) for jets, start, stop in ranges if start < stop]


@dataclass(frozen=True)
class PartJob:
    """Which parts to make from which spill files.

    Attributes
    ----------
    numbers : the parts, in one job so that each spill file is opened once
    folder : of the build
    sources : names of the source files, whose spill files are there
    definition : the store's identity as JSON, goes into the schema's metadata
    """

    numbers: range
    folder: Path
    sources: tuple[str, ...]
    definition: str


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part_{number:05d}.arrow"


def write_parts(job: PartJob) -> list[dict[str, Any]]:
    """Write the parts that are not there yet; return the manifest's entries of all that hold jets.

    Raises
    ------
    JetDataError
        A spill file is damaged.
    """
    definition: dict[str, Any] = json.loads(job.definition)
    entries = {number: whole_record(job.folder, job.folder / part_name(number)) for number in job.numbers}
    missing = [number for number, entry in entries.items() if entry is None]
    spills = [Spill(job.folder, name, definition["n_parts"], job.numbers) for name in job.sources if missing]
    buffers = Buffers()
    for number in missing:
        pieces = [piece for spill in spills for piece in spill.pieces(number)]
        if pieces:
            target = job.folder / part_name(number)
            _write_part(target, number, pieces, buffers, definition, job.definition)
            entry = describe_part(target, definition["n_labels"])
            keep_record(job.folder, target.name, entry)
            entries[number] = entry
    return [entry for entry in entries.values() if entry is not None]


def _write_part(
    target: Path,
    number: int,
    pieces: list[PackedJets],
    buffers: Buffers,
    definition: dict[str, Any],
    definition_json: str,
) -> None:
    n_jets = sum(piece.n_jets for piece in pieces)
    rows = permutation(n_jets, "rows", definition["dataset"], definition["split"], number)
    jets = gather(pieces, rows, buffers)
    metadata = {
        "jetscale.version": __version__,
        "jetscale.fingerprint": fingerprint(definition),
        "jetscale.definition": definition_json,
    }
    dataset = DATASETS[definition["dataset"]]
    features = dataset.feature_set(definition["features"]["name"])
    schema = packed_schema(features, kept_columns(dataset), {"rows_by_label": pa.uint32()}, metadata)
    rows_by_label = np.argsort(jets.labels, kind="stable").astype(np.uint32)
    with atomic_path(target) as aside, pa.ipc.new_file(str(aside), schema) as writer:
        writer.write_batch(jets.record_batch(schema, {"rows_by_label": rows_by_label}))


def describe_part(path: Path, n_labels: int) -> dict[str, Any]:
    """Entry of a part that is whole in the manifest: its record, and jets, constituents, jets per label.

    Parameters
    ----------
    path : the part
    n_labels : labels of the dataset
    """
    _, (batch,) = map_batches(path)
    jets = view(batch)
    return {
        **describe(path),
        "n_jets": jets.n_jets,
        "n_constituents": int(jets.offsets[-1]),
        "label_counts": np.bincount(jets.labels, minlength=n_labels).tolist(),
    }
