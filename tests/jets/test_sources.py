"""Which files are found: through links, never twice, and none that looks like jets passed over in silence."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
from pathlib import Path

import pytest

from jetscale.jets.datasets.files import find_sources, missing_message
from jetscale.jets.errors import JetDataError
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.request import StoreRequest
from jetscale.prepare.__main__ import main
from tests.jets.stores import request
from tests.jets.variants import BY_ROOT, columns_of, write_root


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Two different train files outside the data folder."""
    folder = tmp_path / "scratch" / "train_100M"
    write_root(folder / "HToBB_000.root", {name: values[:15] for name, values in columns_of().items()})
    write_root(folder / "HToBB_001.root", {name: values[15:20] for name, values in columns_of().items()})
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with one train file."""
    folder = tmp_path / "data"
    (folder / "JetClass" / "Pythia").mkdir(parents=True)
    write_root(folder / "JetClass/Pythia/HToBB_002.root", {k: v[20:] for k, v in columns_of().items()})
    return folder


def names(folder: Path, dataset: str = "jetclass", split: str = "train") -> list[str]:
    return [source.name for source in find_sources(folder, dataset, split)]


def wanted(folder: Path) -> StoreRequest:
    return request(folder, folder / "store", "jetclass")


def test_linked_folders_and_files_are_entered(data: Path, elsewhere: Path) -> None:
    (data / "JetClass/Pythia/train_100M").symlink_to(elsewhere)
    assert names(data) == ["HToBB_000.root", "HToBB_001.root", "HToBB_002.root"]
    assert ensure_store(wanted(data), workers=1).n_jets == 30


def test_a_linked_dataset_and_a_linked_data_folder(tmp_path: Path, elsewhere: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "JetClass").symlink_to(elsewhere.parent)
    (tmp_path / "link").symlink_to(data)
    assert names(tmp_path / "link") == ["HToBB_000.root", "HToBB_001.root"]


def test_linked_files(data: Path, elsewhere: Path) -> None:
    (data / "JetClass/HToBB_000.root").symlink_to(
        os.path.relpath(elsewhere / "HToBB_000.root", data / "JetClass")
    )
    assert names(data) == ["HToBB_000.root", "HToBB_002.root"]


@pytest.mark.parametrize(
    "link",
    ["JetClass/Pythia/train_100M", "JetClass/Pythia/HToBB_007.root", "JetClass/Pythia/notes.txt"],
    ids=["folder", "file", "any file"],
)
def test_a_dangling_link_is_named(data: Path, link: str) -> None:
    (data / link).symlink_to("/gone/with/the/disk")
    with pytest.raises(
        JetDataError, match=f"{data / link}: a link to /gone/with/the/disk, which leads nowhere"
    ):
        names(data)


@pytest.mark.parametrize("link", ["JetClass", "."])
def test_a_dangling_link_above(tmp_path: Path, link: str) -> None:
    place = tmp_path / "data" / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path / "gone")
    with pytest.raises(
        JetDataError, match=f"{place}: a link to {tmp_path}/gone, which leads nowhere; repair"
    ):
        names(tmp_path / "data")


def test_a_link_to_itself(data: Path) -> None:
    (data / "JetClass/a.root").symlink_to("b.root")
    (data / "JetClass/b.root").symlink_to("a.root")
    with pytest.raises(JetDataError, match=r"a.root: a link to b.root, which leads nowhere"):
        names(data)


@pytest.mark.parametrize("target", [".", "..", "Pythia"])
def test_link_cycles_end(data: Path, target: str) -> None:
    link = data / "JetClass/Pythia/loop"
    link.symlink_to(data / "JetClass" / target)
    with pytest.raises(JetDataError, match=f"{link}.*: a link to {data}.*, a folder that it lies in itself"):
        names(data)


def test_a_file_through_two_paths(data: Path, elsewhere: Path) -> None:
    (data / "JetClass/one").symlink_to(elsewhere)
    (data / "JetClass/two").symlink_to(elsewhere)
    with pytest.raises(JetDataError, match=r"2 files cannot be used") as error:
        names(data)
    assert (
        f"{data}/JetClass/two/HToBB_000.root: duplicated file, the same file as "
        f"{data}/JetClass/one/HToBB_000.root; remove one of them" in str(error.value)
    )


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_train_file_as_test_file(data: Path, link: object) -> None:
    """The same jets in two splits: what is trained on would be tested on."""
    link(data / "JetClass/Pythia/HToBB_002.root", data / "JetClass/Pythia/HToBB_100.root")
    for split in ("train", "test"):
        with pytest.raises(
            JetDataError, match=r"HToBB_100.root: duplicated file, the same file as .*HToBB_002"
        ):
            names(data, split=split)


def test_one_file_under_two_names_of_a_split(data: Path) -> None:
    shutil.copy(data / "JetClass/Pythia/HToBB_002.root", data / "JetClass/HToBB_003.root")
    with pytest.raises(JetDataError, match=r"HToBB_003.root: duplicated file, the same bytes as .*HToBB_002"):
        ensure_store(wanted(data), workers=1)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("train_100M/HToBB_104.root", "a test file by its number, in a folder called like the train split"),
        ("Test/mine/HToBB_000.root", "a train file by its number, in a folder called like the test split"),
        ("validation-5/HToBB_099.root", "a train file by its number, in a folder called like the val split"),
        ("test/train_100M/HToBB_000.root", None),
        ("trains/vals/latest/HToBB_000.root", None),
        ("Pythia/HToBB_104.root", None),
    ],
)
def test_a_folder_called_like_another_split(
    tmp_path: Path, place: str, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "test/data/JetClass" / place
    path.parent.mkdir(parents=True)
    shutil.copy(BY_ROOT, path)
    split = "test" if "104" in place else "train"
    for _ in range(2):
        assert names(tmp_path / "test/data", split=split) == [path.name]
    assert [record.message for record in caplog.records] == (
        []
        if said is None
        else [f"{path}: {said}; the number decides: rename what is wrong (said once a folder)"]
    )


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "JetClass").write_text("a file")
    with pytest.raises(JetDataError, match=r"JetClass: the folder cannot be listed \(Not a directory\)"):
        names(tmp_path)


def test_neither_file_nor_folder(data: Path) -> None:
    os.mkfifo(data / "JetClass/HToBB_009.root")
    with pytest.raises(JetDataError, match=r"HToBB_009.root: neither a file nor a folder; move it out of"):
        names(data)


def test_a_folder_that_must_not_be_listed(data: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root lists every folder")
    (data / "JetClass/Pythia").chmod(0)
    with pytest.raises(JetDataError, match=r"Pythia: the folder cannot be listed \(Permission denied\)"):
        names(data)
    (data / "JetClass/Pythia").chmod(0o700)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("HToBB_000.parquet", "JetClass is read as ROOT files .*; convert it"),
        ("HToBB_000.ROOT", "rename it to end in .root"),
        ("HToBB_000.root.gz", "unpack it"),
        ("HToBB_000.tar", "unpack it"),
        ("HToBB_000.root.part", "finish its download"),
        ("HToBB_000.root.1", "finish its download"),
        ("HToBB_000.h5", r"convert it \(docs"),
        ("HToBB_000.hdf", "finish its download or convert it, so that its name ends in .root"),
        ("ttbarlep_000.npz", "or convert it"),
    ],
)
def test_what_looks_like_jets_is_not_passed_over(data: Path, name: str, way_out: str) -> None:
    (data / "JetClass" / name).write_bytes(gzip.compress(b"jets"))
    with pytest.raises(JetDataError, match=f"JetClass/{name}: looks like jets but is not read: .*{way_out}"):
        names(data)


def test_what_people_put_beside_their_jets(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("HToBB_002.json", "HToBB_002.root.md5", "README.md", "index.html", "DATACARD.md", "get.sh"):
        (data / "JetClass" / name).write_text("no jets")
    (data / "JetClass/.HToBB_000.root.part").write_text("half")
    (data / "JetClass/.snapshot").symlink_to("/gone")
    assert names(data) == ["HToBB_002.root"]
    assert not caplog.records
    (data / "JetClass/JetClass_Pythia_train_100M_part0.tar").write_bytes(b"packed")
    assert names(data) == ["HToBB_002.root"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.endswith("part0.tar: an archive is not read; unpack it, if its jets are wanted")


def test_jetclass2_as_root(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "JetClassII/Pythia/Res2P_0000.root"
    path.parent.mkdir(parents=True)
    shutil.copy(BY_ROOT, path)
    message = f"{path}: looks like jets but is not read: JetClass-II is read as parquet files"
    with pytest.raises(JetDataError, match=message):
        names(data, "jetclass2")
    with pytest.raises(JetDataError, match=message):  # every dataset, which is the default
        main([f"dir={data}", f"store={data}/store"])
    shutil.copy(BY_ROOT, path.with_name("QCD_0000.parquet"))
    with pytest.raises(JetDataError, match=message):
        names(data, "jetclass2")


def test_jets_put_elsewhere(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(data / "JetClass", data / "jetclass_old")
    shutil.copy(BY_ROOT, data / "TTBar_000.root")
    (data / "store").mkdir()
    assert names(data) == ["HToBB_002.root"]
    assert names(data) == ["HToBB_002.root"]
    said = sorted(record.message.partition(";")[0] for record in caplog.records)
    assert said == [
        f"{data}/{name}: looks like jets but is not read" for name in ("TTBar_000.root", "jetclass_old")
    ]


def test_a_linked_dataset_is_not_called_misplaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "jetclass_v2/JetClass").mkdir(parents=True)
    shutil.copy(BY_ROOT, tmp_path / "jetclass_v2/JetClass/HToBB_000.root")
    (tmp_path / "JetClass").symlink_to("jetclass_v2/JetClass")
    assert names(tmp_path) == ["HToBB_000.root"]
    assert not caplog.records


def test_what_was_seen_where_nothing_was_found(tmp_path: Path) -> None:
    place = tmp_path / "my_jets" / "Pythia" / "train_100M"
    place.mkdir(parents=True)
    for number in range(5):
        shutil.copy(BY_ROOT, place / f"HToBB_{number:03d}.root")
    message = missing_message(tmp_path, "jetclass", "train", tmp_path / "store")
    assert f"not read, for their place, are {place}/HToBB_000.root, " in message
    assert "HToBB_002.root and 2 more." in message
    (tmp_path / "my_jets").rename(tmp_path / "JetClass")
    with pytest.raises(
        JetDataError, match="the 5 files there belong to other splits than val by their names"
    ):
        ensure_store(request(tmp_path, tmp_path / "store", "jetclass", split="val"))
    assert "files there" not in missing_message(tmp_path, "jetclass", "train", tmp_path / "store")
    shutil.copy(BY_ROOT, tmp_path / "JetClass/HToBB_120.root")
    message = missing_message(tmp_path, "jetclass", "train", tmp_path / "store")
    assert "the 1 files there belong to other splits than train" in message
