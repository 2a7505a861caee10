"""Tar archives that no honest host would publish."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from jetscale.common.files import WriteError
from jetscale.download.archives import extract
from jetscale.download.published import DownloadError
from jetscale.jets.datasets.jetclass import JETCLASS
from tests.disks import Disk
from tests.download.hosts import tar_of


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    """An archive of one good file and this entry."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for one, content in (("HToBB_000.root", b"jets"), (name, b"evil")):
            info = tarfile.TarInfo(one)
            if one == name:
                info.type, info.linkname = kind, target
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            entry("../../HToCC_000.root"),
            r"entry '../../HToCC_000.root' is refused \(.*outside",
        ),
        (entry("/tmp/HToCC_000.root", tarfile.SYMTYPE, "/etc/passwd"), r"is refused \("),
        (entry("HToCC_000.root", tarfile.SYMTYPE, "HToBB_000.root"), r"entry 'HToCC_000.root' is no file"),
        (entry("HToCC_000.root", tarfile.LNKTYPE, "HToBB_000.root"), r"entry 'HToCC_000.root' is no file"),
        (entry("HToCC_000.root", tarfile.CHRTYPE), r"entry 'HToCC_000.root' is refused \("),
        (entry("again/HToBB_000.root"), r"holds HToBB_000.root twice"),
        (b"no tar at all" * 100, r"no readable tar archive"),
        (tar_of({"README.txt": b"nothing"}), r"holds no file of JetClass"),
    ],
)
def test_a_bad_archive_leaves_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    folder = tmp_path / "data" / "JetClass"
    folder.mkdir(parents=True)
    archive = folder / ".one.tar.part"
    archive.write_bytes(content)
    with pytest.raises(DownloadError, match=message):
        extract(archive, folder, JETCLASS, {})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_a_disk_that_gets_full_while_unpacking(tmp_path: Path) -> None:
    archive = tmp_path / ".one.tar.part"
    archive.write_bytes(tar_of({f"HToBB_00{number}.root": bytes(30_000) for number in range(3)}))
    disk = Disk(tmp_path / "data", kib=80)
    try:
        with pytest.raises(
            WriteError, match=r"HToBB_00[12]\.root cannot be written \(No space left on device\)"
        ):
            extract(archive, disk.path / "JetClass", JETCLASS, {})
        assert not [path for path in disk.path.rglob("*") if path.is_file()]
        disk.resize(400)
        assert len(extract(archive, disk.path / "JetClass", JETCLASS, {})) == 3
    finally:
        disk.close()


def test_entries_that_are_no_jets_stay_packed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive = tmp_path / ".one.tar.part"
    archive.write_bytes(entry("./._HToCC_000.root"))
    placed = extract(archive, tmp_path / "JetClass", JETCLASS, {})
    assert [path.name for path in placed] == ["HToBB_000.root"]
    assert "entry './._HToCC_000.root' is no file of JetClass and stays packed" in caplog.text
