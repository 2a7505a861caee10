"""Packed stores, whole and half made."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from benchmarks.faults.digests import digest
from benchmarks.faults.flips import FilesKind
from benchmarks.jet_files import write_file
from jetscale.common.files import sha256_file
from jetscale.jets.datamodule import JetDataModule
from jetscale.jets.errors import JetDataError
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.checking import check_store
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest

JETS = 300
"""Jets in each of two source files; with `PART_BYTES` they make three parts."""
PART_BYTES = 400_000
BATCH = 50


def _request(folder: Path) -> StoreRequest:
    return StoreRequest(folder / "data", folder / "store", "jetclass", "train", "paper", "none")


class _Silent:
    """Progress that nobody sees."""

    def __call__(self, what: str, done: int, total: int) -> None:
        pass


def _write_sources(folder: Path) -> None:
    for number, label in enumerate(("QCD", "Hbb")):
        write_file(folder / "data", label, number, JETS)


def _make(folder: Path) -> Store:
    _write_sources(folder)
    return ensure_store(_request(folder), workers=1, part_bytes=PART_BYTES)


def _files(folder: Path) -> list[Path]:
    return sorted(_request(folder).path.iterdir())


def _train(folder: Path) -> str:
    settings = DataSettings(dir=str(folder / "data"), store=str(folder / "store"))
    data = JetDataModule(settings, "jetclass", None, BATCH, 2 * JETS // BATCH, seed=0)
    data.setup()
    batches = [
        (batch.x_TF, batch.pid_T, batch.lengths_B, batch.labels_B) for batch in data.train_dataloader()
    ]
    return digest(data.fingerprint, batches)


def _check(folder: Path) -> str:
    store, problems = check_store(_request(folder), lambda *_: None, workers=1)
    if problems or store is None:
        raise JetDataError("; ".join(problems))
    return digest(store.fingerprint, store.n_jets, store.n_constituents, store.label_counts_PL)


def _interrupt(folder: Path) -> None:
    """Leave a build behind that ended with both passes done, but not the store."""

    def stop(what: str, done: int, total: int) -> None:
        if what == "mixing" and done == total:
            raise _Stopped

    _write_sources(folder)
    with suppress(_Stopped):
        ensure_store(_request(folder), workers=1, part_bytes=PART_BYTES, progress=stop)


class _Stopped(Exception):
    """The build is interrupted."""


def _files_of_build(folder: Path) -> list[Path]:
    left = next(_request(folder).store_dir.glob(".*.building"))
    return sorted(path for path in left.rglob("*") if path.is_file())


def _go_on(folder: Path) -> str:
    store = ensure_store(_request(folder), workers=1, part_bytes=PART_BYTES)
    return digest({path.name: sha256_file(path) for path in sorted(store.path.iterdir())})


KINDS = (
    FilesKind("packed store, an epoch of training", 200, _make, _files, _train),
    FilesKind("packed store, `prepare --check`", 100, _make, _files, _check),
    FilesKind("what an interrupted `prepare` left", 120, _interrupt, _files_of_build, _go_on, changes=True),
)
