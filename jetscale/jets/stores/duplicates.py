"""Find jets that would be counted twice: in two files of a split, or in files of two splits.

The second is worse than the first: a loss on jets that were trained on looks good and means nothing. Two
files of a split with the same bytes are a mistake, and an error. Jets in other bytes, and a test on the jets
of the training, may be wanted in a trial, so each start of a run warns of them.

Files of a split are compared when their store is made, which has to be made again without one of them. Stores
of two splits are compared each time one of them is opened, because each may be made again without the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jetscale.common.files import CHECKSUM
from jetscale.jets.datasets.base import SPLITS
from jetscale.jets.datasets.files import SourceFile
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import File, stamp
from jetscale.jets.stores.packed_store import MANIFEST, Store
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


def was_of_other_splits(message: str) -> bool:
    """Whether a warning is of the kind that earlier versions kept in the store: it stands for good there.

    `in_other_splits` says what is true now.
    """
    return " was made: a loss on jets that are in " in message


def in_other_splits(store: Store, request: StoreRequest) -> list[str]:
    """A message for each file whose jets are in the store of another split too, as both stores are now.

    Stores are looked for beside this one, with its inputs and selection. Two stores are compared by the
    checksums and sketches in their manifests; no jet and no source file is read. Whichever of the two is
    asked about, the messages are the same.

    Parameters
    ----------
    store : the store
    request : what it was opened by
    """
    messages = []
    for split in SPLITS:
        other = replace(request, split=split).path
        if split == request.split or not other.exists():
            continue
        with suppress(JetDataError, OSError):  # a store that cannot be read is the problem of who reads it
            made_of = {
                request.split: _Sources.of(store),
                split: _sources_there(other, stamp(other / MANIFEST, 0)),
            }
            earlier, later = sorted(made_of, key=SPLITS.index)
            messages += [
                f"{made_of[later].path}: made of {name}, which has the same jets as {theirs} of "
                f"{made_of[earlier].path}, or some of them: a loss on jets that are in {earlier} and in "
                f"{later} means nothing; remove one of the two files, and the store that was made of it"
                for name, theirs in _in_both(made_of[later], made_of[earlier]).items()
            ]
    return messages


@dataclass(frozen=True)
class _Sources:
    """What is compared of a store: checksums and sketches of its source files, by name."""

    path: Path
    checksums: dict[str, str]
    sketches: dict[str, str]

    @classmethod
    def of(cls, store: Store) -> _Sources:
        checksums = {source["name"]: source[CHECKSUM] for source in store.definition["sources"]}
        return cls(store.path, checksums, store.sketches)


@lru_cache
def _sources_there(path: Path, made: str) -> _Sources:
    """Of the store in a folder, read once a process: the manifest of 100M jets has 10 MB and takes a second.

    Parameters
    ----------
    path : the folder
    made : stamp of the manifest, another one for another store
    """
    del made
    return _Sources.of(Store.read_manifest(path))


def _in_both(one: _Sources, other: _Sources) -> dict[str, str]:
    """Source files of one, and for each a source file of the other that has the same bytes or jets."""
    found = dict(shared(one.sketches, other.sketches))
    theirs = {checksum: name for name, checksum in other.checksums.items()}
    return found | {name: theirs[sum_] for name, sum_ in one.checksums.items() if sum_ in theirs}


def _sketches(sources: Sequence[SourceFile], records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {file.name: record[SKETCH] for file, record in zip(sources, records, strict=True)}
