"""Jet files opened, and builds of stores that tests start, look into and kill."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from jetscale.common.files import sha256_file
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.datasets.files import JetFileReader
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.packed_store import Store, write_manifest
from jetscale.jets.stores.passes import describe_part
from jetscale.jets.stores.request import StoreRequest

if TYPE_CHECKING:  # the builds of `fork_build` import this module, and need no torch
    from tests.warm import WarmProcess, WarmServer

PART_BYTES = 400_000
"""Source bytes per part: small, so that the test files make several."""

BUILD = """
import sys
from pathlib import Path
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.passes import describe_part
from jetscale.jets.stores.request import StoreRequest
from jetscale.jets.stores.packed_store import Store, write_manifest
if __name__ == "__main__":
    wanted = StoreRequest(Path(sys.argv[1]), Path(sys.argv[2]), "jetclass2", "train", "paper", "none")
    ensure_store(wanted, workers=int(sys.argv[3]), part_bytes=400_000)
"""


def request(directory: Path, store_dir: Path, dataset: str = "jetclass2", **changes: str) -> StoreRequest:
    return replace(StoreRequest(directory, store_dir, dataset, "train", "paper", "none"), **changes)


def open_jets(path: Path) -> JetFileReader:
    """A JetClass or JetClass-II file, by its suffix."""
    return JetFileReader(DATASETS["jetclass" if path.suffix == ".root" else "jetclass2"], path)


def content(path: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in sorted(path.iterdir())}


def reseal(path: Path) -> None:
    """Make the manifest of the store in this folder say what its parts hold now."""
    store = Store.read_manifest(path)
    n_labels = store.definition["n_labels"]
    entries = [describe_part(path / entry["file"], n_labels) for entry in store.entries]
    write_manifest(path, store.definition, entries)


def start_build(
    warm: WarmServer, script: Path, directory: Path, store_dir: Path, workers: int
) -> WarmProcess:
    """A build in processes of their own group."""
    script.write_text(BUILD)
    words = [str(directory), str(store_dir), str(workers)]
    return warm.start(str(script), words, script.parent, session=True)


def fork_build(directory: Path, store_dir: Path) -> BaseProcess:
    """A build in one process that is forked from a small server, and so starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jetscale.jets.stores.building"])
    process = context.Process(target=_build, args=(directory, store_dir))
    process.start()
    return process


def _build(directory: Path, store_dir: Path) -> None:
    ensure_store(request(directory, store_dir), workers=1, part_bytes=PART_BYTES)


def group_members(group: int) -> list[int]:
    """Processes of a process group that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, pgid = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgid) == group and state != "Z":
            found.append(int(entry.name))
    return found
