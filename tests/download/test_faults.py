"""What goes wrong on the way: a fault ends in the published bytes, or in one line that says what to do."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from jetscale.common import progress
from jetscale.common.files import WriteError
from jetscale.download.command import shown
from jetscale.download.published import DownloadError, Published
from jetscale.download.sources import Fetch
from tests.disks import Disk
from tests.download.conftest import Command, train_part
from tests.download.hosts import Asked, Host
from tests.runs import quiet_environment

CASES = {
    "jetclass": ("JetClass_Pythia_train_100M_part0.tar", "JetClass"),
    "jetclass2": ("QCD_0000.parquet", "JetClassII/Pythia"),
}
"""The file of each dataset that faults befall, and the folder of its partial file."""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, host: Host, download: Command) -> Case:
    return Case(request.param, host, download)


class Case:
    """A dataset, and the file of it that faults befall."""

    def __init__(self, dataset: str, host: Host, download: Command) -> None:
        self.dataset, self.host, self.download = dataset, host, download
        self.name, folder = CASES[dataset]
        self.part = download.folder / folder / f".{self.name}.part"
        self.content = {**host.zenodo, **host.hub}[self.name]
        address = {
            "jetclass": f"{host.url}/api/records/6619768/files/{self.name}/content",
            "jetclass2": rf"{host.url}/datasets/jet-universe/jetclass2/resolve/\w+/data/{self.name}",
        }
        self.url = address[dataset]

    def run(self, *arguments: str, retries: int = 1) -> None:
        self.download(self.dataset, "split=train", *arguments, retries=retries)

    def fail(self, *faults: str, retries: int = 0) -> str:
        """The error after these faults."""
        self.host.faults[self.name] = list(faults)
        with pytest.raises(DownloadError) as caught:
            self.run(retries=retries)
        return str(caught.value)

    @property
    def asked(self) -> list[Asked]:
        """Requests for the file."""
        return [one for one in self.host.asked if one.name == self.name]

    def require_good(self) -> None:
        """Raise unless a last run ends with every byte as it was published."""
        self.host.faults.clear()
        self.run()
        found = {Path(name).name: content for name, content in self.download.files().items()}
        if self.dataset == "jetclass2":
            assert found == {name: self.host.hub[name] for name in found}
            assert sorted(found) == ["QCD_0000.parquet", "Res2P_0000.parquet", "Res34P_0000.parquet"]
        else:
            assert found == train_part(0)
        assert not self.download.hidden()


def test_a_cut_goes_on_where_it_was(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    case.host.faults[case.name] = ["cut", "cut", "cut"]
    case.run()  # with one retry: each attempt brings bytes, so that none of them counts
    half = len(case.content) // 2
    quarter = half + (len(case.content) - half) // 2
    assert [one.range for one in case.asked][:3] == [None, f"bytes={half}-", f"bytes={quarter}-"]
    assert sum(one.sent for one in case.asked) == len(case.content), "no byte came twice"
    assert "asked again in" in caplog.text
    case.require_good()


def test_the_command_ends_and_starts_again(case: Case) -> None:
    message = case.fail("cut", "503", retries=0)
    kept = f"{len(case.content) // 2:,} of {len(case.content):,} bytes of {case.name} are kept"
    assert message.endswith(f"{kept}: run the same command again and it goes on from there")
    assert case.part.read_bytes() == case.content[: len(case.content) // 2]
    case.host.asked.clear()
    case.require_good()
    assert case.asked[0].range == f"bytes={len(case.content) // 2}-"


def test_a_server_without_ranges(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    case.host.faults[case.name] = ["cut", "no range"]
    case.run()
    assert "the server sends no part of a file, so its first" in caplog.text
    case.require_good()


def test_a_server_without_ranges_that_always_cuts_is_given_up(case: Case) -> None:
    message = case.fail("cut", *["no range, cut"] * 3, retries=1)
    assert "2 attempts in a row" in message
    case.part.unlink()
    case.require_good()


def test_busy_servers_are_asked_again_when_they_say(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    case.host.faults[case.name] = ["429 1", "503"]
    began = time.monotonic()
    case.run(retries=2)
    assert time.monotonic() - began >= 1
    assert "HTTP 429 Too Many Requests; asked again in 1 s" in caplog.text
    case.require_good()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("404", "HTTP 404 Not Found; see that host= is right"),
        ("403", "HTTP 403 Forbidden; see that host= is right"),
        ("html", r"the server answers with a page \(text/html\) instead of NAME"),
        ("short", r"the server announces HALF bytes, SIZE are left of the SIZE published for NAME"),
        ("longer", r"the server sends more than the SIZE bytes published for NAME"),
        ("500", r"cannot be fetched \(HTTP 500 Internal Server Error\), 1 attempts in a row"),
    ],
)
def test_answers_that_are_not_the_file(case: Case, fault: str, message: str) -> None:
    size = len(case.content)
    for word, text in (("NAME", case.name), ("HALF", f"{size // 2:,}"), ("SIZE", f"{size:,}")):
        message = message.replace(word, text)
    case.host.faults[case.name] = [fault]
    with pytest.raises(DownloadError, match=rf"{case.url}: {message}"):
        case.run(retries=0)
    assert "\n" not in message
    case.require_good()


def test_another_part_than_was_asked(case: Case) -> None:
    half = len(case.content) // 2
    message = case.fail("cut", "wrong range", retries=1)
    assert f"bytes {half}-{len(case.content) - 1}/{len(case.content)} of {case.name} were asked" in message
    assert f"sends Content-Range bytes 0-{len(case.content) - 1}/" in message
    case.require_good()


def test_damage_on_the_way(case: Case) -> None:
    message = case.fail("flipped")
    algorithm = {"jetclass": "md5", "jetclass2": "sha256"}[case.dataset]
    expected = hashlib.new(algorithm, case.content).hexdigest()
    assert f"the host publishes {algorithm}:{expected}; what came is removed: run the same" in message
    assert not case.part.exists()
    assert not [name for name in case.download.files() if case.name in name]
    case.require_good()


def test_damage_in_the_partial_file(case: Case) -> None:
    case.fail("cut", "503")
    case.part.write_bytes(b"x" * 100)
    with pytest.raises(DownloadError, match="what came is removed"):
        case.run()
    case.part.write_bytes(case.content + b"more than published")
    case.require_good()


def test_nobody_answers(host: Host, download: Command) -> None:
    host.url = "http://127.0.0.1:9"  # the discard port: nobody listens
    with pytest.raises(
        DownloadError,
        match=r"http://127.0.0.1:9/api/records/6619768: cannot be fetched \(ConnectionRefusedError: ",
    ):
        download("jetclass", retries=1)
    with pytest.raises(DownloadError, match=rf"{host.url}: the files of jet-universe/jetclass2 cannot be"):
        download("jetclass2")
    assert not download.folder.exists(), "a start that brought nothing leaves nothing"
    (download.folder / "JetClass/mine").mkdir(parents=True)
    with pytest.raises(DownloadError):
        download("jetclass", retries=0)
    assert [path.name for path in (download.folder / "JetClass").iterdir()] == ["mine"]


def test_a_transfer_is_shown_as_all_work_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal: a line now and then, which counts what an earlier start has brought."""
    clock = [100.0]
    part = tmp_path / ".a.tar.part"
    part.write_bytes(bytes(2_000_000))
    task = Fetch(Published("a.tar", "https://host/a.tar", 10_000_000, "md5", ""), part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        with shown(task) as report:
            clock[0] += 31
            report(8_200_000)
            clock[0] += 9
            report(10_000_000)
    assert capsys.readouterr().err == "a.tar: 8 of 10 MB, 9 s left, 0.2 MB/s\n"


def test_the_lists_are_refused(host: Host, download: Command) -> None:
    host.faults["record"] = ["html"]
    with pytest.raises(DownloadError, match=r"6619768: the server answers with text/html instead of JSON"):
        download("jetclass")
    host.faults["record"] = ["429 1", "404"]
    with pytest.raises(DownloadError, match=r"6619768: HTTP 404 Not Found"):
        download("jetclass")
    host.faults["info"] = ["404"]
    with pytest.raises(DownloadError, match=r"cannot be listed \(HfHubHTTPError: Client error '404"):
        download("jetclass2")


def test_killed_and_started_again(case: Case) -> None:
    case.host.faults[case.name] = ["stall"]
    words = [f"dataset={case.dataset}", f"dir={case.download.folder}", f"host={case.host.url}"]
    command = [sys.executable, "-m", "jetscale.download", *words, "budget=smoke", "split=train"]
    half = len(case.content) // 2
    with subprocess.Popen(command, env=quiet_environment(), stderr=subprocess.PIPE) as process:
        try:
            assert case.host.stalled.wait(60)
            while not case.part.exists() or case.part.stat().st_size < half:
                assert process.poll() is None
                time.sleep(0.01)  # what came is in the file at once
            with pytest.raises(DownloadError, match="another download works here"):
                case.run()
        finally:
            process.kill()
    case.host.asked.clear()
    case.require_good()
    assert case.asked[0].range == f"bytes={half}-"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "data", kib=400)
    yield disk
    disk.close()


def test_a_disk_that_is_too_small(small_disk: Disk, case: Case) -> None:
    small_disk.resize(40)
    message = case.fail()
    assert "are needed on its disk" in message
    assert "kB are free; make room, choose another disk (dir=FOLDER) or a smaller budget" in message
    assert not case.asked
    small_disk.resize(400)
    case.require_good()


def test_a_disk_that_gets_full(small_disk: Disk, case: Case) -> None:
    case.host.before_bytes[case.name] = small_disk.fill  # the space was there when it was looked at
    with pytest.raises(WriteError, match=r"\.part cannot be written \(No space left on device\): free"):
        case.run()
    (small_disk.path / "filler").unlink()
    case.host.before_bytes.clear()
    case.require_good()


def test_a_split_on_another_disk(download: Command, tmp_path: Path) -> None:
    """A link is enough: files are written beside their places, so that they can be renamed."""
    elsewhere = Disk(tmp_path / "elsewhere", kib=400)
    try:
        folder = download.folder / "JetClass/Pythia/train_100M"
        folder.parent.mkdir(parents=True)
        folder.symlink_to(elsewhere.path)
        download("jetclass", "split=train")
        assert {path.name for path in elsewhere.path.iterdir()} == set(train_part(0))
    finally:
        elsewhere.close()


def test_killed_between_unpacking_and_the_receipt(host: Host, download: Command) -> None:
    """Every state that a kill can leave after the archive is whole: in each, the next start ends it."""
    name = CASES["jetclass"][0]
    download("jetclass", "split=train")
    files = download.files()
    folder = download.folder / "JetClass"
    host.asked.clear()
    (folder / ".download.json").unlink()
    (folder / f".{name}.part").write_bytes(host.zenodo[name])
    written = folder / "Pythia/train_100M/HToBB_000.root"
    written.unlink()
    written.with_name(f".{written.name}.part").write_bytes(b"half")
    download("jetclass", "split=train")
    assert not host.asked
    assert download.files() == files
    assert not download.hidden()
