from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from jetscale.download.__main__ import main
from jetscale.jets.datasets.jetclass import JETCLASS_PREFIXES
from tests.download.hosts import Handler, Host, tar_of


def some_bytes(seed: int, size: int = 30_000) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def train_part(part: int) -> dict[str, bytes]:
    """Two files of every class: the tenth part of those that the tests publish."""
    return {
        f"{process}_{number:03d}.root": some_bytes(100 * number + column, 2_000)
        for column, process in enumerate(JETCLASS_PREFIXES.values())
        for number in range(10 * part, 10 * part + 2)
    }


@pytest.fixture
def host() -> Iterator[Host]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    host = Host(f"http://127.0.0.1:{server.server_port}")
    server.host = host
    for part in range(10):
        host.zenodo[f"JetClass_Pythia_train_100M_part{part}.tar"] = tar_of(train_part(part))
    test = {f"test_20M/{process}_100.root": some_bytes(7, 3_000) for process in JETCLASS_PREFIXES.values()}
    host.zenodo["JetClass_Pythia_test_20M.tar"] = tar_of(test)
    for seed, bucket in enumerate(("QCD", "Res2P", "Res34P")):
        host.hub |= {f"{bucket}_{number:04d}.parquet": some_bytes(10 * seed + number) for number in range(2)}
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield host
    server.shutdown()
    server.server_close()
    thread.join()


class Command:
    """`python -m jetscale.download` in this process, with the loopback server for the hosts."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder

    def __call__(self, dataset: str, *arguments: str, retries: int = 1, budget: str = "smoke") -> None:
        main(
            [
                f"dataset={dataset}",
                f"dir={self.folder}",
                f"host={self.host.url}",
                f"retries={retries}",
                f"budget={budget}",
                *arguments,
            ]
        )

    def files(self) -> dict[str, bytes]:
        """What the readers of jets see."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

    def hidden(self) -> set[str]:
        """What this command keeps for itself, without its receipt and its lock."""
        names = {path.name for path in self.folder.rglob(".*")}
        return names - {".download.json", ".download.lock"}


@pytest.fixture
def download(host: Host, tmp_path: Path) -> Command:
    return Command(host, tmp_path / "data")
