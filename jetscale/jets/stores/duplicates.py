"""Find jets that would be counted twice: in two files of a split, or in files of two splits.

The second is worse than the first: a loss on jets that were trained on looks good and means nothing. Two
files of a split with the same bytes are a mistake, and an error. Jets in other bytes, and a test on the jets
of the training, may be wanted in a trial, so each start of a run warns of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from jetscale.common.files import CHECKSUM
from jetscale.jets.datasets.base import SPLITS
from jetscale.jets.datasets.files import SourceFile
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import File
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest
from jetscale.jets.stores.sketches import SKETCH, shared


def same_bytes(sources: Sequence[SourceFile], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A message for each file of a split whose bytes another file of it has too.

    Parameters
    ----------
    sources : the files
    records : checksum of each
    """
    first: dict[str, File] = {}
    problems = []
    for file, record in zip(sources, records, strict=True):
        same = first.setdefault(record[CHECKSUM], file.path)
        if same is not file.path:
            problems.append(f"{file.path}: duplicated file, the same bytes as {same}; remove one of them")
    return problems


def in_two_files(sources: Sequence[SourceFile], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A message for each file of a split whose jets another file of it has too, in other bytes.

    Parameters
    ----------
    sources : the files, no two with the same bytes
    records : sketch of each
    """
    sketches = _sketches(sources, records)
    paths = {file.name: file.path for file in sources}
    return [
        f"{paths[later]}: has the same jets as {paths[earlier]}, or some of them, in another form, so they "
        "count twice; remove one of them, and the store"
        for earlier, later in shared(sketches, sketches)
    ]


def known_sketches(request: StoreRequest) -> Mapping[str, str]:
    """Sketches of the files that a store was made of, by name.

    Parameters
    ----------
    request : the store; where it is missing, damaged, or made by an earlier version, there are none
    """
    with suppress(JetDataError):
        return Store.read_manifest(request.path).sketches if request.path.exists() else {}
    return {}


def in_other_splits(
    request: StoreRequest, sources: Sequence[SourceFile], records: Sequence[Mapping[str, Any]]
) -> list[str]:
    """A message for each file whose jets are in the store of another split too.

    Stores are looked for beside that of `request`, with its inputs and selection.

    Parameters
    ----------
    request : store that the files are for
    sources : the files
    records : checksum and sketch of each
    """
    problems = []
    paths = {file.name: file.path for file in sources}
    for split in SPLITS:
        other = replace(request, split=split).path
        if split == request.split or not other.exists():
            continue
        with suppress(JetDataError):  # a store that cannot be read is the problem of who reads it
            problems += [
                f"{paths[name]}: has the same jets as {theirs}, of which {other} was made: a loss on jets "
                f"that are in {request.split} and in {split} means nothing; remove one of the two files, "
                "and its store"
                for name, theirs in _shared_with(Store.read_manifest(other), sources, records).items()
            ]
    return problems


def _shared_with(
    store: Store, sources: Sequence[SourceFile], records: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Names of files, and for each a source of the store that has the same bytes or jets."""
    theirs = {source[CHECKSUM]: source["name"] for source in store.definition["sources"]}
    found = dict(shared(_sketches(sources, records), store.sketches))
    for file, record in zip(sources, records, strict=True):
        if record[CHECKSUM] in theirs:
            found[file.name] = theirs[record[CHECKSUM]]
    return found


def _sketches(sources: Sequence[SourceFile], records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {file.name: record[SKETCH] for file, record in zip(sources, records, strict=True)}
