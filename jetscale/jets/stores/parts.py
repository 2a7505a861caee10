"""Second pass of `prepare`: the spill files to one part of the store.

A part is one Arrow file with one record batch of shuffled jets of all sources. Its column
``rows_by_label`` lists the part's rows sorted by label: with the counts per label that the manifest keeps
it finds the n-th jet of any class without an index over the whole store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jetscale import __version__
from jetscale.common.files import atomic_path, fingerprint
from jetscale.jets.features import feature_set
from jetscale.jets.ordering.randomness import permutation
from jetscale.jets.stores.checked import describe
from jetscale.jets.stores.packed_jets import PackedJets, Room, gather, map_batches, packed_schema, view
from jetscale.jets.stores.records import keep_record, whole_record
from jetscale.jets.stores.spill import Spill


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
    room = Room()
    for number in missing:
        pieces = [piece for spill in spills for piece in spill.pieces(number)]
        if pieces:
            target = job.folder / part_name(number)
            _write_part(target, number, pieces, room, definition, job.definition)
            entry = describe_part(target, definition["n_labels"])
            keep_record(job.folder, target.name, entry)
            entries[number] = entry
    return [entry for entry in entries.values() if entry is not None]


def _write_part(
    target: Path,
    number: int,
    pieces: list[PackedJets],
    room: Room,
    definition: dict[str, Any],
    definition_json: str,
) -> None:
    n_jets = sum(piece.n_jets for piece in pieces)
    rows = permutation(n_jets, "rows", definition["dataset"], definition["split"], number)
    jets = gather(pieces, rows, room)
    metadata = {
        "jetscale.version": __version__,
        "jetscale.fingerprint": fingerprint(definition),
        "jetscale.definition": definition_json,
    }
    features = feature_set(definition["features"]["name"])
    schema = packed_schema(features, {"rows_by_label": pa.uint32()}, metadata)
    rows_by_label = np.argsort(jets.labels, kind="stable").astype(np.uint32)
    with atomic_path(target) as aside, pa.ipc.new_file(str(aside), schema) as writer:
        writer.write_batch(jets.record_batch(schema, {"rows_by_label": rows_by_label}))


def describe_part(path: Path, n_labels: int) -> dict[str, Any]:
    """Entry of a part that is whole in the manifest: its record, and jets, constituents, jets per label."""
    _, (batch,) = map_batches(path)
    jets = view(batch)
    return {
        **describe(path),
        "n_jets": jets.n_jets,
        "n_constituents": int(jets.offsets[-1]),
        "label_counts": np.bincount(jets.labels, minlength=n_labels).tolist(),
    }
