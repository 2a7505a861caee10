from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock

from tests.runs import quiet_environment
from tests.warm import WarmServer

if not torch.cuda.is_available():  # before anything imports Triton, which looks at it once
    os.environ.setdefault("TRITON_INTERPRET", "1")

gc.disable()  # until all is collected: an import leaves no garbage, and looking takes a quarter of its time

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Reference files of the developers; absent elsewhere."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is missing: reference data of the developers, not part of the repository")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests first, so that the test processes end at about the same time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let Python collect its garbage again; stop where tests of one group would run in several processes."""
    gc.freeze()  # what is imported stays: to look at it again and again took 2.5% of a test process's time
    gc.enable()
    if session.config.getoption("loadgroup", False):  # in a test process; pytest-xdist marks the names so
        lost = [
            one for one in session.items if one.get_closest_marker("xdist_group") and "@" not in one.nodeid
        ]
        if lost:
            text = (
                f"pytest {pytest.__version__} and this pytest-xdist lose the groups of {len(lost)} tests,"
                " so what a group shares would be made several times: pip install 'pytest<9.2'"
            )
            # pytest-xdist shows no message of an error here, only where it was raised
            with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
                print(text, file=sys.stderr, flush=True)
            raise pytest.UsageError(text)


def pytest_sessionfinish() -> None:
    """Let Python free at its end what was imported: Triton would print all of it as leaked."""
    gc.unfreeze()


Made = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all test processes of this session have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def made_once(shared_folder: Path) -> Made:
    """Return the folder ``name``; the first test process that asks for it fills it, the others wait."""

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        out = shared_folder / name
        with FileLock(shared_folder / f"{name}.lock"):
            if not out.exists():
                fill(shared_folder / f"{name}.part")
                (shared_folder / f"{name}.part").rename(out)
        return out

    return made


@pytest.fixture(scope="session")
def simulated_data(made_once: Made, warm: WarmServer) -> Path:
    """Data directory with a few hundred really simulated jets in both published formats."""

    def fill(out: Path) -> None:
        commands = {
            "JetClass": ("dataset=jetclass", "n_jets=400", "n_val=0", "n_test=200"),
            "JetClassII": (
                "dataset=jetclass2", "n_jets=490", "n_val=0", "n_test=0",
                "buckets.QCD=200", "buckets.Res2P=130", "buckets.Res34P=160",
            ),
        }  # fmt: skip
        common = ("mpi=false", "workers=1")  # without MPI: fewer constituents, three times faster
        out.mkdir()
        processes = [
            warm.start("jetscale.simulate", [*words, *common, f"out={name}"], out, quiet_environment())
            for name, words in commands.items()
        ]  # each in a folder of its own, so both at once
        for name, process in zip(commands, processes, strict=True):
            _, errors = process.communicate()
            assert process.returncode == 0, errors
            (out / name / name).rename(out / "made")
            shutil.rmtree(out / name)
            (out / "made").rename(out / name)

    return made_once("simulated", fill)


@pytest.fixture(scope="session")
def warm(shared_folder: Path) -> Iterator[WarmServer]:
    """Starts jetscale's commands without the seconds of their imports."""
    server = WarmServer(shared_folder / "warm.socket")
    yield server
    server.close()


@pytest.fixture
def train(
    simulated_data: Path, tmp_path: Path, warm: WarmServer
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m jetscale.train`` in an empty folder on the simulated jets."""

    def call(*arguments: str, launch: tuple[str, ...] = (), check: bool = True) -> Any:
        words = [f"data.dir={simulated_data}", *arguments]
        if launch:
            done = subprocess.run(
                [*launch, "jetscale.train", *words], cwd=tmp_path, capture_output=True, text=True,
                env=quiet_environment(), timeout=300,
            )  # fmt: skip
        else:
            done = warm.run("jetscale.train", words, tmp_path)
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A real Slurm of one node; `environment` is what its clients need."""
    if shutil.which("slurmctld") is None or shutil.which("munged") is None or os.geteuid() != 0:
        pytest.skip("needs root and Debian's slurm-wlm and munge (CI installs them)")
    folder = tmp_path_factory.mktemp("slurm")
    script = REPO / "tests" / "slurm" / "cluster.sh"
    port = 16817 + 2 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])  # a cluster a process
    started = subprocess.run([script, "start", folder, str(port)], capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    yield SimpleNamespace(environment={"SLURM_CONF": str(folder / "slurm.conf")}, folder=folder)
    subprocess.run([script, "stop", folder], check=True)
