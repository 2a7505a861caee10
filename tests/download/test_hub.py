"""JetClass-II from a server in the form of Hugging Face."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from jetscale.download.published import DownloadError
from jetscale.jets.datasets.files import JetFileReader, SourceFile, find_sources
from jetscale.jets.datasets.jetclass2 import JETCLASS2
from jetscale.jets.errors import JetDataError
from tests.download.conftest import Command
from tests.download.hosts import Host
from tests.jets.conftest import fill_jetclass2
from tests.runs import quiet_environment

FILES = ("QCD_0000.parquet", "Res2P_0000.parquet", "Res34P_0000.parquet")


def test_one_file_of_each_bucket(host: Host, download: Command) -> None:
    download("jetclass2")
    assert download.files() == {f"JetClassII/Pythia/{name}": host.hub[name] for name in FILES}
    assert not download.hidden()
    host.asked.clear()
    download("jetclass2")
    assert not host.asked


def test_the_files_are_where_the_readers_look(host: Host, download: Command, tmp_path: Path) -> None:
    fill_jetclass2(tmp_path / "made", n_jets=20, files=1)
    host.hub = {path.name: path.read_bytes() for path in (tmp_path / "made").rglob("*.parquet")}
    download("jetclass2")
    sources = find_sources(download.folder, "jetclass2", "train")
    assert tuple(source.name for source in sources) == FILES
    assert _jets(sources) == _jets(find_sources(tmp_path / "made", "jetclass2", "train"))


def _jets(sources: list[SourceFile]) -> list[int]:
    counts = []
    for source in sources:
        with JetFileReader(JETCLASS2, source.path) as reader:
            counts.append(reader.n_jets)
    return counts


def test_files_at_another_place_are_compared(host: Host, download: Command) -> None:
    """Those that the hub's own command has put into ``data/`` are not fetched again."""
    here = download.folder / "JetClassII/data/QCD_0000.parquet"
    here.parent.mkdir(parents=True)
    here.write_bytes(host.hub[here.name])
    download("jetclass2")
    assert sorted(asked.name for asked in host.asked) == ["Res2P_0000.parquet", "Res34P_0000.parquet"]
    download("jetclass2", "--check")


def test_other_files_of_a_published_name_are_never_replaced(host: Host, download: Command) -> None:
    download("jetclass2")
    host.asked.clear()
    first, second = (download.folder / "JetClassII/Pythia" / name for name in FILES[:2])
    (download.folder / "JetClassII/.download.json").unlink()
    first.write_bytes(first.read_bytes()[:-1])
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    before = download.files()
    with pytest.raises(JetDataError) as caught:
        download("jetclass2")
    message = str(caught.value)
    assert f"{first}: has 29,999 bytes, {host.url}/datasets/" in message
    assert (
        f"{second}: checksum sha256:{hashlib.sha256(second.read_bytes()).hexdigest()}, {host.url}" in message
    )
    assert download.files() == before
    assert not host.asked


def test_a_file_that_appears_meanwhile_stays(host: Host, download: Command) -> None:
    path = download.folder / "JetClassII/Pythia" / FILES[0]
    host.before_bytes[path.name] = lambda: path.write_bytes(b"somebody's")
    with pytest.raises(DownloadError, match=f"{path}: appeared during the download; move it away"):
        download("jetclass2")
    assert path.read_bytes() == b"somebody's"
    path.unlink()
    host.before_bytes.clear()
    host.asked.clear()
    download("jetclass2")
    assert path.name not in [asked.name for asked in host.asked], "what had come was kept"
    assert path.read_bytes() == host.hub[path.name]


def test_a_dry_run_knows_what_is_here(
    host: Host, download: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    host.faults["QCD_0000.parquet"] = ["cut", "404"]
    with pytest.raises(DownloadError, match="HTTP 404"):
        download("jetclass2")
    capsys.readouterr()
    host.asked.clear()
    download("jetclass2", "--dry")
    printed = capsys.readouterr().err.splitlines()
    assert "QCD_0000.parquet: 30.0 kB, 15.0 kB of it are here" in printed
    assert ": 1 files to fetch, 15.0 kB; 15.0 kB are needed on the disk, " in printed[-1]
    assert not host.asked


def test_the_host_lacks_a_file(host: Host, download: Command) -> None:
    with pytest.raises(JetDataError, match=r"609 files are not published:\n.*no file Res2P_0002\.parquet"):
        download("jetclass2", budget="paper")
    assert not host.asked


def test_the_environment_names_the_host(host: Host, download: Command) -> None:
    words = ["dataset=jetclass2", f"dir={download.folder}", "budget=smoke", "retries=0"]
    done = subprocess.run(
        [sys.executable, "-m", "jetscale.download", *words],
        env={**quiet_environment(), "HF_ENDPOINT": host.url}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(download.files()) == 3


def test_without_the_client(download: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"jetclass2 needs huggingface_hub, .*'\.\[download\]\'"):
        download("jetclass2")


def test_no_credentials_are_sent(host: Host, download: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download("jetclass2")
    assert not [line for line in host.headers if "hf_secret" in line]
    assert host.headers
