"""Files on disk: parts while a file is being made, the file and its manifest when it is whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from jetscale.cli import UsageError
from jetscale.files import atomic_path, fingerprint, sha256_file, write_json
from jetscale.jets.schemas import JetFile
from jetscale.simulate.chunk import CHUNK_JETS, JETS_PER_POINT, Chunk, chunks
from jetscale.simulate.seeds import generator
from jetscale.simulate.writers import write_jets

PHYSICS = 1
"""Number of the simulation's physics: raise it whenever the same seed gives other jets."""
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
        """Where the file goes."""
        return self.out / self.file.path

    @property
    def manifest_path(self) -> Path:
        """JSON beside the file that says how it was made."""
        return self.path.with_suffix(".json")

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
            "mpi": self.mpi,
            "physics": PHYSICS,
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
    if not target.path.exists():
        return False
    if not target.manifest_path.exists():
        raise UsageError(
            f"{target.path} was not made by this simulator (no {target.manifest_path.name} beside it): "
            "real and simulated jets must not mix; choose another out="
        )
    found = json.loads(target.manifest_path.read_text())["settings"]
    wanted = target.settings
    if found != wanted:
        names = [name for name in wanted if found.get(name) != wanted[name]]
        detail = ", ".join(f"{name}: {found.get(name)} there, {wanted[name]} asked for" for name in names)
        raise UsageError(
            f"{target.path} was made with other settings ({detail}); choose another out=, or delete it"
        )
    return True


def write_part(path: Path, jets: pa.Table) -> None:
    """Save the jets of a chunk, whole or not at all."""
    with (
        atomic_path(path) as aside,
        pa.OSFile(str(aside), "wb") as sink,
        pa.ipc.new_file(sink, jets.schema) as writer,
    ):
        writer.write_table(jets)


def assemble(target: Target) -> None:
    """Join the chunks of a file in a random but fixed order, write it and its manifest, drop the parts.

    The manifest is written first: a file without one would be taken for somebody else's.
    """
    paths = [target.part(chunk) for chunk in target.chunks()]
    jets = pa.concat_tables([pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths])
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
        write_json(target.manifest_path, manifest)
    shutil.rmtree(target.parts)
