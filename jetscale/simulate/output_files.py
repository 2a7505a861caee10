"""Files on disk: chunks while a file is being made, then the complete file and its manifest."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from jetscale.common.files import DamagedFile, atomic_path, fingerprint, sha256_file, write_sealed
from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import DATASETS, JetFile
from jetscale.jets.reading.locations import files_below
from jetscale.jets.reading.manifests import (
    MPI_KEY,
    OLD_VERSION_KEY,
    VERSION_KEY,
    manifest_content,
    manifest_path,
)
from jetscale.simulate import SIMULATOR_VERSION
from jetscale.simulate.chunk import CHUNK_JETS, JETS_PER_POINT, Chunk, chunks
from jetscale.simulate.parts import read_part
from jetscale.simulate.random_streams import generator
from jetscale.simulate.writers import write_jets

PARTS = ".simulate"


@dataclass(frozen=True)
class Target:
    """A file to make.

    Attributes
    ----------
    out : data directory
    file : its published place
    jets, seed, mpi : what determines its content, with the versions of the programs
    """

    out: Path
    file: JetFile
    jets: int
    seed: int
    mpi: bool

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.out / self.file.path

    @property
    def manifest_path(self) -> Path:
        """JSON beside the file that says how it was made."""
        return manifest_path(self.path)

    @property
    def settings(self) -> dict[str, Any]:
        """All that determines the file's bytes."""
        programs = ("pythia8mc", "fastjet", "numpy", "awkward", "pyarrow", "uproot")
        return {
            "dataset": self.file.dataset,
            "process": self.file.process,
            "number": self.file.number,
            "jets": self.jets,
            "seed": self.seed,
            MPI_KEY: self.mpi,
            VERSION_KEY: SIMULATOR_VERSION,
            "chunk_jets": CHUNK_JETS[self.file.dataset],
            "jets_per_point": JETS_PER_POINT,
            "versions": {name: version(name) for name in programs},
        }

    @property
    def parts(self) -> Path:
        """Hidden folder of its chunks; another setting has another folder."""
        return self.out / PARTS / f"{self.path.stem}-{fingerprint(self.settings)[:16]}"

    @property
    def mpi_table(self) -> Path | None:
        """Saved state of Pythia's multiparton interactions, shared by all files; None when they are off."""
        return self.out / PARTS / f"mpi-{version('pythia8mc')}.txt" if self.mpi else None

    def part(self, chunk: Chunk) -> Path:
        """File of a finished chunk."""
        return self.parts / f"{chunk.index:05d}.arrow"

    def chunks(self) -> list[Chunk]:
        """Its chunks, in order."""
        file = self.file
        return chunks(file.dataset, file.process, file.number, self.jets, self.seed)


def is_finished(target: Target) -> bool:
    """Whether the file is there and was made with these very settings.

    Raises
    ------
    UsageError
        There is a file of that name which these settings would not make.
    """
    if not (target.path.exists() and _is_simulated(target.path)):
        return False
    found, wanted = read_manifest(target.manifest_path)["settings"], target.settings
    if found != wanted:
        names = [name for name in wanted if found.get(name) != wanted[name]]
        raise _other_settings(target.path, {name: (found.get(name), wanted[name]) for name in names})
    return True


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a file's manifest, the simulator's version under its present name whatever version wrote it."""
    manifest = manifest_content(path)
    settings = manifest["settings"]
    if OLD_VERSION_KEY in settings:
        settings[VERSION_KEY] = settings.pop(OLD_VERSION_KEY)
    return manifest


def manifests(out: Path, dataset: str) -> dict[Path, dict[str, Any]]:
    """Manifests of all files of a dataset.

    Parameters
    ----------
    out : data directory
    dataset : ``jetclass`` or ``jetclass2``

    Returns
    -------
    Manifest by path of the file, sorted.

    Raises
    ------
    UsageError
        A jet file has no manifest: it is not simulated, or its manifest is lost. Folders cannot be listed
        (`jetscale.jets.reading.locations.files_below`).
    """
    kind = DATASETS[dataset]
    found = files_below(out / kind.folder, kind.suffixes).files
    paths = sorted(Path(str(item.file)) for item in found)
    return {path: read_manifest(manifest_path(path)) for path in paths if _is_simulated(path)}


def refuse_other_physics(target: Target) -> None:
    """Raise if files of other physics are in the data directory: all files there are read as one dataset.

    Classes simulated with and without multiparton interactions would differ in the number of constituents,
    and a network would tell them apart by that.

    Parameters
    ----------
    target : a file that is to be made

    Raises
    ------
    UsageError
        There is a file of another version of the simulator, one made with or without multiparton interactions
        where this one is not, or one that was not simulated.
    """
    for path, manifest in manifests(target.out, target.file.dataset).items():
        found = manifest["settings"]
        differences = {
            name: (found.get(name), target.settings[name])
            for name in (VERSION_KEY, MPI_KEY)
            if found.get(name) != target.settings[name]
        }
        if differences:
            raise _other_settings(path, differences)


def _is_simulated(path: Path) -> bool:
    """True if a file has a manifest; an error if not, since real and simulated jets must not mix."""
    if not manifest_path(path).exists():
        raise UsageError(
            f"{path} was not made by this simulator (no {path.with_suffix('.json').name} beside it): "
            "real and simulated jets must not mix; choose another out="
        )
    return True


def _other_settings(path: Path, differences: dict[str, tuple[Any, Any]]) -> UsageError:
    """Error for an existing file; `differences` are by setting: the value there, and the value asked for."""
    detail = ", ".join(
        f"{name}: {there} there, {asked} asked for" for name, (there, asked) in differences.items()
    )
    return UsageError(f"{path} was made with other settings ({detail}); choose another out=, or delete it")


def assemble(target: Target) -> None:
    """Join the chunks of a file in a random but fixed order, write it and its manifest, remove the chunks.

    The manifest is written first: a file without a manifest would be taken for that of another program.
    """
    try:
        jets = pa.concat_tables([read_part(target.part(chunk)) for chunk in target.chunks()])
    except DamagedFile as error:
        raise UsageError(f"{error}; run the same command again, its jets are made again") from error
    if jets.num_rows != target.jets:
        raise RuntimeError(
            f"{target.parts} holds {jets.num_rows} jets, {target.jets} wanted; delete the folder"
        )
    file = target.file
    order = generator(target.seed, file.dataset, file.process, file.number, "order").permutation(
        jets.num_rows
    )
    with atomic_path(target.path) as aside:
        write_jets(aside, jets.take(order).combine_chunks())
        manifest = {
            "file": target.path.name,
            "split": file.split,
            "jets": target.jets,
            "bytes": aside.stat().st_size,
            "sha256": sha256_file(aside),
            "settings": target.settings,
            "made_by": f"jetscale {version('jetscale')}",
        }
        write_sealed(target.manifest_path, manifest)
    shutil.rmtree(target.parts)
