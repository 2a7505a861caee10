"""Real faults while a store is made: the message, and that a start after the repair loses nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest

from jetscale.jets.datasets.base import jet_file
from jetscale.jets.errors import JetDataError
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.request import StoreRequest
from tests.jets.stores import PART_BYTES, content, fork_build, group_members, request, start_build
from tests.warm import WarmServer


def undisturbed(directory: Path, store_dir: Path, dataset: str) -> dict[str, str]:
    wanted = request(directory, store_dir, dataset)
    return content(ensure_store(wanted, workers=1, part_bytes=PART_BYTES).path)


def build(wanted: StoreRequest) -> dict[str, str]:
    return content(ensure_store(wanted, workers=1, part_bytes=PART_BYTES).path)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A separate file system of one megabyte."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.parametrize("room", [0.03, 0.6, 1.5], ids=["at once", "while reading", "while mixing"])
def test_disk_full(jetclass2_dir: Path, tmpfs: Path, tmp_path: Path, room: float) -> None:
    whole = undisturbed(jetclass2_dir, tmp_path / "elsewhere", "jetclass2")
    n_bytes = sum(file.stat().st_size for file in (tmp_path / "elsewhere").rglob("*.*"))
    remount(tmpfs, f"size={int(room * n_bytes)}")
    wanted = request(jetclass2_dir, tmpfs / "store", "jetclass2")
    with pytest.raises(JetDataError, match=r"No space left.*twice its own size: free some space") as error:
        build(wanted)
    assert str(wanted.path) in str(error.value)
    assert not wanted.path.exists()
    assert not list(wanted.store_dir.rglob(".*.part*")), "what did not fit is removed"
    kept = wanted.store_dir / f".{wanted.path.name}.building"
    assert bool(list(kept.glob("spill/*.arrow"))) == (room > 0.1), "what was whole is kept"
    assert bool(list(kept.glob("part_*.arrow"))) == (room > 1)
    remount(tmpfs, "size=50m")
    assert build(wanted) == whole


def test_read_only_folder(jetclass_dir: Path, tmpfs: Path, tmp_path: Path) -> None:
    remount(tmpfs, "ro")
    wanted = request(jetclass_dir, tmpfs / "store", "jetclass")
    with pytest.raises(JetDataError, match=r"cannot be written below .*make the folder writable") as error:
        build(wanted)
    assert str(wanted.path) in str(error.value)
    remount(tmpfs, "rw,size=50m")
    assert build(wanted) == undisturbed(jetclass_dir, tmp_path / "elsewhere", "jetclass")


def test_every_damaged_source_is_named_and_the_others_are_kept(fill: SimpleNamespace, tmp_path: Path) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    bad = [tmp_path / jet_file("jetclass", name, 0).path for name in ("HToBB", "HToCC", "HToGG")]
    good = [path.read_bytes() for path in bad]
    bad[0].write_bytes(good[0][: len(good[0]) // 2])
    bad[1].write_text("<html>404</html>" * 100)
    bad[2].write_bytes(good[2][:-50])
    wanted = request(tmp_path, tmp_path / "store", "jetclass")
    with pytest.raises(JetDataError, match="3 of 10 files cannot be used, the others are kept") as error:
        build(wanted)
    assert f"{bad[0]}: truncated, {len(good[0]) // 2} of {len(good[0])} bytes" in str(error.value)
    assert f"{bad[1]}: cannot be read, it is an HTML page ('<html>404" in str(error.value)
    assert f"{bad[2]}: truncated, {len(good[2]) - 50} of {len(good[2])} bytes" in str(error.value)
    spills = wanted.store_dir / f".{wanted.path.name}.building" / "spill"
    assert len(list(spills.iterdir())) == 7
    assert not wanted.path.exists()
    for path, whole in zip(bad, good, strict=True):
        path.write_bytes(whole)
    assert build(wanted) == undisturbed(tmp_path, tmp_path / "elsewhere", "jetclass")


def test_at_most_twenty_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "JetClass"
    folder.mkdir()
    for number in range(25):
        (folder / f"HToBB_{number:03d}.root").touch()
    (folder / "HToBB.root").touch()
    with pytest.raises(JetDataError, match=r"26 files cannot be used:") as error:
        build(request(tmp_path, tmp_path / "store", "jetclass"))
    lines = str(error.value).splitlines()
    assert len(lines) == 22
    assert lines[-1].strip() == "... and 6 more"
    assert "the file is empty (0 bytes)" in lines[-2]


def killed_at(warm: WarmServer, directory: Path, store_dir: Path, script: Path, pattern: str) -> Path:
    """Leave a build behind that was killed when the first file of this pattern was there."""
    wanted = request(directory, store_dir, "jetclass2")
    staging = wanted.store_dir / f".{wanted.path.name}.building"
    process = start_build(warm, script, directory, store_dir, workers=1)
    while not list(staging.glob(pattern)):
        assert process.poll() is None, "the build ended before it could be killed"
        time.sleep(0.001)
    process.kill()
    process.wait()
    return staging


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["spill/QCD*.arrow", "part_*.arrow"], ids=["reading", "mixing"])
def test_source_changed_between_two_starts(
    fill: SimpleNamespace, write: SimpleNamespace, warm: WarmServer, tmp_path: Path, pattern: str
) -> None:
    """Same name and number of bytes, other jets: what was made of the old ones must not enter the store."""
    fill.jetclass2(tmp_path)
    source = tmp_path / jet_file("jetclass2", "QCD", 0).path
    staging = killed_at(warm, tmp_path, tmp_path / "store", tmp_path / "build.py", pattern)
    kept = {path: path.stat().st_mtime_ns for path in staging.glob("spill/[!.]*")}
    size = source.stat().st_size
    other = write.jetclass2(tmp_path / "other.parquet", [170] * 250, seed=77).read_bytes()
    source.write_bytes(padded_parquet(other, size))
    wanted = request(tmp_path, tmp_path / "store", "jetclass2")
    made = build(wanted)
    assert made == undisturbed(tmp_path, tmp_path / "elsewhere", "jetclass2")
    assert kept


def padded_parquet(content: bytes, size: int) -> bytes:
    """The same file, `size` bytes long: zeros between its last page and its footer are never read."""
    footer = 8 + int.from_bytes(content[-8:-4], "little")
    assert len(content) <= size
    return content[:-footer] + bytes(size - len(content)) + content[-footer:]


@pytest.mark.slow
def test_killed_at_random_times(jetclass2_dir: Path, tmp_path: Path) -> None:
    """Twelve kills spread over the work of a build; each goes on where the last one was killed."""
    rng = random.Random(7)
    whole = undisturbed(jetclass2_dir, tmp_path / "undisturbed", "jetclass2")
    duration = watch(fork_build(jetclass2_dir, tmp_path / "measured"), tmp_path / "measured", None)
    wanted = request(jetclass2_dir, tmp_path / "store", "jetclass2")
    interrupted = 0
    for number in range(12):
        if number % 3 == 0:
            shutil.rmtree(wanted.store_dir, ignore_errors=True)
        build = fork_build(jetclass2_dir, wanted.store_dir)
        watch(build, wanted.store_dir, duration * (number % 6 + rng.random()) / 6)
        interrupted += not wanted.path.exists()
        if wanted.path.exists():
            assert content(wanted.path) == whole
            shutil.rmtree(wanted.store_dir)
            duration /= 2  # the machine was busier when it was measured
    assert interrupted >= 6, f"only {interrupted} of 12 builds were killed before their end"
    ensure_store(wanted, workers=1, part_bytes=PART_BYTES)
    assert content(wanted.path) == whole


def watch(build: BaseProcess, store_dir: Path, kill_after: float | None) -> float:
    """Seconds from a build's first file to its end, killed after so many of them."""
    while build.is_alive() and not (store_dir.exists() and list(store_dir.iterdir())):
        time.sleep(0.0005)
    start = time.monotonic()
    build.join(kill_after)
    if build.is_alive():
        os.kill(build.pid or 0, signal.SIGKILL)
        build.join()
    assert build.exitcode in (0, -signal.SIGKILL)
    return time.monotonic() - start


@pytest.mark.slow
def test_one_worker_killed_while_mixing(jetclass2_dir: Path, warm: WarmServer, tmp_path: Path) -> None:
    wanted = request(jetclass2_dir, tmp_path / "store", "jetclass2")
    staging = wanted.store_dir / f".{wanted.path.name}.building"
    build = start_build(warm, tmp_path / "build.py", jetclass2_dir, wanted.store_dir, workers=2)
    while not list(staging.glob("part_*")):
        assert build.poll() is None, "the build ended before a worker could be killed"
        time.sleep(0.001)
    workers = [member for member in group_members(build.pid) if member != build.pid]
    os.kill(max(workers), signal.SIGKILL)
    build.wait()
    if build.returncode:
        assert not wanted.path.exists()
    store = ensure_store(wanted, workers=1, part_bytes=PART_BYTES)
    assert content(store.path) == undisturbed(jetclass2_dir, tmp_path / "elsewhere", "jetclass2")
