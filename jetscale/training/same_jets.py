"""Which jet files a run was made on, and whether they are still the ones that its settings lead to.

A run is done only where its settings and its jets are the same. The jets are told by names, sizes and
checksums of the source files, which every packed store holds: nothing is packed, and no file is read whose
checksum a store knows already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from jetscale.common.files import CHECKSUM, checksum_file, fingerprint
from jetscale.common.masking import masked
from jetscale.jets.datasets.files import SourceFile
from jetscale.jets.reading.manifests import maker_of
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.packed_store import MANIFEST, Store
from jetscale.jets.stores.request import StoreRequest, store_request
from jetscale.runs.directory import RunDirectoryError
from jetscale.runs.record import JetsFrom, RunRecord
from jetscale.runs.search import to_remove
from jetscale.training.phase_settings import Phase
from jetscale.training.settings import TrainSettings

log = logging.getLogger(__name__)

_LARGE = 10**10
"""Bytes of jets without a store that takes seconds to hash."""

_Sources = list[tuple[str, int, str]]


def jets_from(settings: TrainSettings) -> dict[str, JetsFrom]:
    """What `same_jets` compares later: folder and fingerprint of the source files of every split in use.

    Raises
    ------
    JetDataError
        See `jetscale.jets.stores.building.ensure_store`.
    """
    return {
        name: JetsFrom(
            dir=masked(str(request.directory)),
            fingerprint=fingerprint(_of_store(ensure_store(request))),
            made_by=_made_by(request),
        )
        for name, request in _requests(settings)
    }


def same_jets(settings: TrainSettings) -> Callable[[Path, RunRecord], None]:
    """A check of finished runs for `RunDirectory`: their jets must be those of `settings`.

    Where the jets are not there any more, the run counts as done, and the log says so.
    """

    def check(path: Path, record: RunRecord) -> None:
        recorded = record.jets_from
        if recorded is None:
            log.info("%s is of an earlier version: its jets could not be compared", path)
            return
        for name, request in _requests(settings):
            then, now = recorded.get(name), _now(request)
            if now is None:
                log.info("%s: its %s jets are not in %s now, not compared", path, name, request.directory)
            elif then is None or fingerprint(now) != then.fingerprint:
                was = "not recorded" if then is None else f"those of {then.dir} ({then.fingerprint[:12]})"
                raise RunDirectoryError(
                    f"{path} was made on other {name} jets: {was}, and {masked(str(request.directory))} has "
                    f"{fingerprint(now)[:12]} now. Give this sweep another name (study=NAME), put the jets "
                    f"back, or remove {to_remove(path)} to run it anew."
                )

    return check


def _requests(settings: TrainSettings) -> Iterator[tuple[str, StoreRequest]]:
    phases = [(Phase.FINETUNE, "train"), (Phase.FINETUNE, "test")]
    if settings.pretrain.composition:
        phases.append((Phase.PRETRAIN, "train"))
    for phase, split in phases:
        yield f"{phase}/{split}", store_request(settings.data, settings.dataset_of(phase), split)


def _made_by(request: StoreRequest) -> str | None:
    """What made the files of a request, by the manifests beside them; None where there is no file to ask."""
    if not isinstance(request.directory, Path):
        return None
    files = [file.path for file in request.sources() if isinstance(file.path, Path)]
    return ", ".join(sorted({maker_of(file) for file in files})) or None


def _now(request: StoreRequest) -> _Sources | None:
    """Names, sizes and checksums of the source files; None where there is neither a file nor a store."""
    stored = _stored(request)
    files = request.sources() if isinstance(request.directory, Path) else []
    if not files:
        return stored
    if stored is not None and [entry[:2] for entry in stored] == [(file.name, file.size) for file in files]:
        return stored
    size = sum(file.size for file in files)
    if size > _LARGE:
        log.info("%s: comparing %.0f GB of jets with those of a finished run", request.directory, size / 1e9)
    return [(file.name, file.size, _checksum(file)) for file in files]


def _stored(request: StoreRequest) -> _Sources | None:
    manifest = request.path / MANIFEST
    if not manifest.is_file():
        return None
    facts = manifest.stat()
    return list(_read(request.path, (facts.st_ino, facts.st_size, facts.st_mtime_ns)))


@lru_cache(maxsize=16)
def _read(path: Path, stamp: tuple[int, int, int]) -> tuple[tuple[str, int, str], ...]:
    """Sources of the store in `path`, whose manifest has this inode, size and time."""
    del stamp
    return tuple(_of_store(Store.read_manifest(path)))


def _of_store(store: Store) -> _Sources:
    found = [(entry["name"], entry["size"], entry[CHECKSUM]) for entry in store.definition["sources"]]
    return sorted(found)


def _checksum(file: SourceFile) -> str:
    assert isinstance(file.path, Path)
    facts = file.path.stat()
    return _hashed(file.path, (facts.st_ino, facts.st_size, facts.st_mtime_ns))


@lru_cache(maxsize=10_000)
def _hashed(path: Path, stamp: tuple[int, int, int]) -> str:
    """Checksum of a file with this inode, size and time."""
    del stamp
    return checksum_file(path)
