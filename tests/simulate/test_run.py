"""The program as users run it: same bytes whatever the workers, restart after a kill, nothing overwritten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jetscale.common.files import sha256_file
from tests.warm import WarmServer

SMALL = [
    "dataset=jetclass",
    "classes=[QCD,Wqq]",
    "n_jets=240",
    "n_val=0",
    "n_test=60",
    "jets_per_file=60",
    "mpi=false",
]


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "jetscale.simulate", *SMALL, f"out={out}", *arguments]


pytestmark = pytest.mark.xdist_group("simulate")  # they share simulated jets
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(warm: WarmServer) -> Run:
    def simulate(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return warm.run("jetscale.simulate", command(out, *arguments)[3:], out.parent, timeout=120)

    return simulate


def checksums(out: Path) -> dict[str, str]:
    files = [path for path in out.rglob("*") if path.suffix in (".root", ".parquet", ".json")]
    return {str(path.relative_to(out)): sha256_file(path) for path in files}


@pytest.fixture(scope="module")
def reference(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by one worker, without interruption."""
    out = tmp_path_factory.mktemp("reference")
    done = run(out, "workers=1")
    assert done.returncode == 0, done.stderr
    assert "6 files, 300 jets" in done.stdout
    assert "(6 new, 0 kept)" in done.stdout
    return out


def test_quiet_log_reports_rate_and_share(run: Run, reference: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "workers=1", "n_jets=20", "n_test=0")
    assert "20 of 20 jets" in done.stderr
    assert "jets/s, 1 worker, " in done.stderr
    assert "\x1b" not in done.stderr


def test_two_workers_make_the_same_bytes(run: Run, reference: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "workers=2")
    assert done.returncode == 0, done.stderr
    assert len(checksums(reference)) == 12
    assert checksums(tmp_path) == checksums(reference)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the workers")
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(run: Run, reference: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "workers=2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not list((tmp_path / ".simulate").glob("*/*.arrow")):
        assert process.poll() is None, "finished before anything could be killed"
        time.sleep(0.005)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    until = time.monotonic() + 20
    while any(alive(worker) for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(worker) for worker in workers), "workers outlived their parent"

    unfinished = checksums(reference).keys() - checksums(tmp_path).keys()
    assert unfinished, "nothing was left to do"
    for name, checksum in checksums(tmp_path).items():
        assert checksum == checksums(reference)[name], f"{name} is not whole"
    done = run(tmp_path, "workers=2")
    assert done.returncode == 0, done.stderr
    assert checksums(tmp_path) == checksums(reference)


def test_ctrl_c_stops_cleanly_and_leaves_only_whole_files(reference: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "workers=2", "n_jets=9600"),  # more than it makes before a busy machine looks
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # started from a shell's background job, tests inherit an ignored SIGINT, and so would the child
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not list(tmp_path.rglob("*.arrow")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.decode().endswith("interrupted\n")
    made, whole = checksums(tmp_path), checksums(reference)
    assert {name: made[name] for name in made.keys() & whole.keys()}.items() <= whole.items()


def test_finished_files_are_kept(run: Run, reference: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in reference.rglob("*.root")}
    done = run(reference, "workers=1")
    assert "(0 new, 6 kept)" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in reference.rglob("*.root")}


def test_another_seed_in_the_same_place_is_refused(run: Run, reference: Path) -> None:
    before = checksums(reference)
    done = run(reference, "workers=1", "seed=1")
    assert done.returncode == 2
    assert "seed: 0 there, 1 asked for" in done.stderr
    assert "choose another out=, or delete it" in done.stderr
    assert checksums(reference) == before


def test_files_with_other_multiparton_interactions_are_refused(run: Run, reference: Path) -> None:
    """Also where no file is made again: classes would differ in their number of constituents."""
    before = checksums(reference)
    done = run(reference, "workers=1", "classes=[Hbb]", "mpi=true", "n_jets=60", "n_test=0")
    assert done.returncode == 2
    assert "was made with other settings (mpi: False there, True asked for); choose another" in done.stderr
    assert checksums(reference) == before


def test_files_that_were_not_asked_for_are_mentioned(run: Run, reference: Path) -> None:
    done = run(reference, "workers=1", "n_jets=120")
    assert "4 files, 180 jets" in done.stdout
    said = f"2 more files are there from before, 120 jets; whoever reads {reference}/JetClass reads them too"
    assert said in done.stdout.splitlines()
    assert "more files" not in run(reference, "workers=1").stdout


def test_another_seed_gives_other_jets(run: Run, reference: Path, tmp_path: Path) -> None:
    run(tmp_path, "workers=1", "seed=1", "n_test=0", "n_jets=120", "classes=[QCD]")
    other = checksums(tmp_path)
    assert other
    assert not set(other.values()) & set(checksums(reference).values())


def test_files_of_somebody_else_are_not_touched(run: Run, tmp_path: Path) -> None:
    public = tmp_path / "JetClass/Pythia/train_100M/WToQQ_000.root"
    public.parent.mkdir(parents=True)
    public.write_bytes(b"public")
    done = run(tmp_path, "workers=1")
    assert done.returncode == 2
    assert "real and simulated jets must not mix" in done.stderr
    assert public.read_bytes() == b"public"


def test_data_card_says_what_the_jets_are_not(reference: Path) -> None:
    card = (reference / "JetClass/DATACARD.md").read_text()
    for words in (
        "not the published JetClass dataset",
        "MadGraph",
        "Delphes",
        "pile-up",
        "| WToQQ | train | 2 | 120 |",
    ):
        assert words in card


def test_manifest_without_its_file_is_made_again(run: Run, reference: Path) -> None:
    path = min(reference.rglob("*.root"))
    wanted = sha256_file(path)
    path.unlink()
    assert json.loads(path.with_suffix(".json").read_text())["sha256"] == wanted
    assert "(1 new, 5 kept)" in run(reference, "workers=1").stdout
    assert sha256_file(path) == wanted
