"""Simulated jet files, and what an interrupted simulation left."""

from __future__ import annotations

from pathlib import Path

from benchmarks.faults.digests import digest
from benchmarks.faults.flips import FilesKind
from jetscale.common.files import sha256_file
from jetscale.jets.datasets.base import DATASETS, jet_file
from jetscale.jets.datasets.files import JetFileReader
from jetscale.jets.features import FEATURE_SETS
from jetscale.simulate.output_files import Target
from jetscale.simulate.production import make_chunk, simulate
from jetscale.simulate.pythia import mpi_settings, save_mpi_table

JETS = 20


def _targets(folder: Path) -> list[Target]:
    files = (jet_file("jetclass", "WToQQ", 0), jet_file("jetclass2", "QCD", 0))
    return [Target(folder, file, JETS, seed=0, mpi=False) for file in files]


def _make(folder: Path) -> None:
    simulate(_targets(folder), 1, folder)


def _files(folder: Path) -> list[Path]:
    return [path for target in _targets(folder) for path in (target.path, target.manifest_path)]


def _read(folder: Path) -> str:
    found = []
    for target in _targets(folder):
        with JetFileReader(DATASETS[target.file.dataset], target.path) as reader:
            for raw in reader.jets(FEATURE_SETS["paper"].reads):
                found += [raw.offsets, dict(raw.constituents), dict(raw.jets), raw.labels]
    return digest(found)


def _interrupt(folder: Path) -> None:
    target = _targets(folder)[0]
    make_chunk(target, target.chunks()[0])


def _chunk(folder: Path) -> list[Path]:
    target = _targets(folder)[0]
    return [target.part(target.chunks()[0])]


def _go_on(folder: Path) -> str:
    target = _targets(folder)[0]
    simulate([target], 1, folder)
    return digest(sha256_file(target.path), sha256_file(target.manifest_path))


def _table(folder: Path) -> Path:
    return folder / "mpi.txt"


def _give_to_pythia(folder: Path) -> str:
    table = _table(folder)
    settings = mpi_settings(table)
    return digest(settings, table.read_bytes())


KINDS = (
    FilesKind("simulated jet files and their manifests", 150, _make, _files, _read),
    FilesKind("what an interrupted simulation left", 30, _interrupt, _chunk, _go_on, changes=True),
    FilesKind(
        "saved multiparton interactions",
        30,
        lambda folder: save_mpi_table(_table(folder)),
        lambda folder: [_table(folder)],
        _give_to_pythia,
    ),
)
