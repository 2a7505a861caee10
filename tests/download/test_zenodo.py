"""JetClass from a server in the form of Zenodo."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from rich.filesize import decimal

from jetscale.common.usage import UsageError
from jetscale.download.published import DownloadError
from jetscale.jets.datasets.files import JetFileReader, find_sources
from jetscale.jets.datasets.jetclass import JETCLASS, JETCLASS_PREFIXES
from jetscale.jets.errors import JetDataError
from tests.download.conftest import Command, train_part
from tests.download.hosts import Host, tar_of
from tests.jets.conftest import fill_jetclass

PART0 = "JetClass_Pythia_train_100M_part0.tar"
TEST = "JetClass_Pythia_test_20M.tar"


def test_a_small_budget_takes_one_archive_of_each_split(host: Host, download: Command) -> None:
    download("jetclass")
    assert [asked.name for asked in host.asked] == [PART0, TEST]
    files = download.files()
    expected = {f"JetClass/Pythia/train_100M/{name}": content for name, content in train_part(0).items()}
    assert {name: content for name, content in files.items() if "train" in name} == expected
    assert sorted(name for name in files if "test" in name) == sorted(
        f"JetClass/Pythia/test_20M/{process}_100.root" for process in JETCLASS_PREFIXES.values()
    )
    assert not download.hidden(), "the archives are gone, and nothing unfinished is left"
    host.asked.clear()
    download("jetclass")
    assert not host.asked
    assert download.files() == files


def test_the_files_are_where_the_readers_look(host: Host, download: Command, tmp_path: Path) -> None:
    fill_jetclass(tmp_path / "made", n_jets=5, files=1)
    made = {path.name: path.read_bytes() for path in (tmp_path / "made").rglob("*_000.root")}
    host.zenodo = {PART0: tar_of(made)}
    download("jetclass", "split=train")
    sources = find_sources(download.folder, "jetclass", "train")
    assert [source.name for source in sources] == sorted(made)
    for source, original in zip(sources, find_sources(tmp_path / "made", "jetclass", "train"), strict=True):
        with JetFileReader(JETCLASS, source.path) as ours, JetFileReader(JETCLASS, original.path) as theirs:
            assert ours.n_jets == theirs.n_jets > 0


def test_as_many_archives_as_the_classes_take(host: Host, download: Command) -> None:
    """What an archive holds shows when it is here: these have too few files, so that all are fetched."""
    with pytest.raises(DownloadError, match=r"all 10 train archives .* are missing \(57 of ZJetsToNuNu, "):
        download("jetclass", "split=train", budget="paper")
    assert [asked.name for asked in host.asked] == [
        f"JetClass_Pythia_train_100M_part{part}.tar" for part in range(10)
    ]
    assert len(download.files()) == 200


def test_a_dry_run_shows_sizes_and_fetches_nothing(
    host: Host, download: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    download("jetclass", "--dry", budget="paper")
    printed = capsys.readouterr().err
    assert [line.partition(":")[0] for line in printed.splitlines()[:-1]] == [
        *(f"JetClass_Pythia_train_100M_part{part}.tar" for part in range(8)),
        TEST,
    ], "77 files of each class are eight of the ten archives"
    size = sum(len(content) for name, content in host.zenodo.items() if name[-5] not in "89")
    assert f": 9 files to fetch, {decimal(size)}; " in printed
    most = size + len(host.zenodo[PART0])  # the largest archive is there together with what comes out of it
    assert f"; {decimal(most)} are needed on the disk" in printed
    assert not host.asked
    assert not download.folder.exists()


def test_an_archive_of_the_users_is_used_and_kept(host: Host, download: Command) -> None:
    mine = download.folder / "JetClass" / PART0
    mine.parent.mkdir(parents=True)
    mine.write_bytes(host.zenodo[PART0][:-1])
    with pytest.raises(JetDataError, match=rf"{mine}: has [\d,]+ bytes, the record says .*\.{PART0}\.part"):
        download("jetclass", "split=train")
    mine.rename(mine.with_name(f".{PART0}.part"))
    download("jetclass", "split=train")
    assert host.asked.pop().range == f"bytes={len(host.zenodo[PART0]) - 1}-"
    files = download.files()
    shutil.rmtree(download.folder)
    mine.parent.mkdir(parents=True)
    mine.write_bytes(host.zenodo[PART0])
    download("jetclass", "split=train")
    assert not host.asked
    assert download.files() == {**files, f"JetClass/{PART0}": host.zenodo[PART0]}


def test_a_damaged_archive_of_the_users_is_not_removed(host: Host, download: Command) -> None:
    mine = download.folder / "JetClass" / PART0
    mine.parent.mkdir(parents=True)
    damaged = bytes([host.zenodo[PART0][0] ^ 1]) + host.zenodo[PART0][1:]
    mine.write_bytes(damaged)
    found = hashlib.md5(damaged).hexdigest()
    with pytest.raises(DownloadError, match=rf"{mine} has checksum md5:{found}, the host publishes .*move"):
        download("jetclass", "split=train")
    assert list(download.files().values()) == [damaged]


def test_files_that_are_here_stay_and_are_compared(host: Host, download: Command) -> None:
    download("jetclass", "split=train")
    one = download.folder / "JetClass/Pythia/train_100M/HToBB_000.root"
    moved = one.parents[2] / "mine" / one.name  # sub-folders do not matter to the readers
    moved.parent.mkdir()
    one.rename(moved)
    (download.folder / "JetClass/.download.json").unlink()
    (download.folder / "JetClass/Pythia/train_100M/HToBB_001.root").unlink()
    (download.folder / "JetClass/Pythia/train_100M/HToCC_000.root").unlink()
    (download.folder / "JetClass/Pythia/train_100M/HToCC_001.root").unlink()
    download("jetclass", "split=train")
    assert sorted(Path(name).name for name in download.files()) == sorted(train_part(0)), (
        "none is there twice"
    )
    moved.write_bytes(b"other jets")
    (download.folder / "JetClass/.download.json").unlink()
    (download.folder / "JetClass/Pythia/train_100M/HToCC_000.root").unlink()
    (download.folder / "JetClass/Pythia/train_100M/HToCC_001.root").unlink()
    before = download.files()
    with pytest.raises(DownloadError, match=rf"{moved}: checksum xxh3_128:.* instead of .*move it away"):
        download("jetclass", "split=train")
    assert download.files() == before, "the other files of the archive are not put beside it either"


def test_files_of_unknown_origin_are_named(
    host: Host, download: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for process in JETCLASS_PREFIXES.values():
        path = download.folder / f"JetClass/mine/{process}_000.root"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"jets")
    download("jetclass", "split=train")
    assert not host.asked
    assert "10 of the files here were not fetched by this command" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["jetclass", "jetclass2"])
def test_simulated_files_are_not_mixed_with_public_ones(host: Host, download: Command, dataset: str) -> None:
    folder = {
        "jetclass": "JetClass/Pythia/train_100M/HToBB_000.root",
        "jetclass2": "JetClassII/QCD_0000.parquet",
    }
    path = download.folder / folder[dataset]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"jets")
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(DownloadError, match=rf"{path}: made by jetscale's simulator"):
        download(dataset)
    assert not host.asked


def test_check_names_what_changed(host: Host, download: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DownloadError, match="has fetched no file of JetClass here"):
        download("jetclass", "--check")
    download("jetclass", "split=train")
    download("jetclass", "--check")
    assert "20 files, checksums good" in capsys.readouterr().err
    folder = download.folder / "JetClass/Pythia/train_100M"
    changed, removed = folder / "HToBB_000.root", folder / "HToCC_000.root"
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    removed.unlink()
    with pytest.raises(JetDataError) as caught:
        download("jetclass", "--check")
    assert f"{changed}: changed since it was fetched, checksum xxh3_128:" in str(caught.value)
    assert f"{removed}: was fetched and is not here any more" in str(caught.value)
    with pytest.raises(DownloadError, match=f"{changed}: changed since it was fetched"):
        download("jetclass", "split=train")
    assert len(host.asked) == 1
    receipt = download.folder / "JetClass/.download.json"
    receipt.write_text(receipt.read_text().replace("md5:", "md6:", 1))
    with pytest.raises(DownloadError, match=rf"{receipt} is damaged.*remove it"):
        download("jetclass", "split=train")


def test_a_touched_file_is_read_again_and_found_good(host: Host, download: Command) -> None:
    download("jetclass", "split=train")
    (download.folder / "JetClass/Pythia/train_100M/HToBB_000.root").touch()
    download("jetclass", "split=train")
    assert len(host.asked) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checksum": "crc32:1"}, r"lacks a checksum"),
        ({"size": None}, r"lacks a checksum \(md5:...\), a size or an address"),
        ({"links": {"self": "file:///etc/passwd"}}, r".*a size or an address"),
    ],
)
def test_a_record_of_another_form(
    host: Host, download: Command, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str
) -> None:
    record = json.loads(json.dumps(host.record()))
    record["files"][0] |= change
    monkeypatch.setattr(host, "record", lambda: record)
    with pytest.raises(DownloadError, match=rf"{host.url}/\S+: the entry of {PART0} {message}"):
        download("jetclass")
    monkeypatch.setattr(host, "record", lambda: {"message": "moved"})
    with pytest.raises(DownloadError, match="has no list `files`"):
        download("jetclass")
    monkeypatch.setattr(host, "record", lambda: {"files": []})
    with pytest.raises(DownloadError, match="no archive of the train split; there are none of JetClass"):
        download("jetclass")


def test_settings_that_cannot_be_used(download: Command, tmp_path: Path) -> None:
    from jetscale.download.__main__ import main

    with pytest.raises(UsageError, match="dataset= is needed: one of jetclass, jetclass2"):
        main([])
    with pytest.raises(UsageError, match=r"dir=https://x: files are fetched to a local folder"):
        main(["dataset=jetclass", "dir=https://x"])
    with pytest.raises(UsageError, match="budget=smoke reads no val files of jetclass; budget=all split=val"):
        download("jetclass", "split=val")
    with pytest.raises(UsageError, match=r"^host=.* without a user name"):
        main(["dataset=jetclass", "host=https://me:secret@mirror"])
