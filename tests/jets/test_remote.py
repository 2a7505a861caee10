"""Jet files behind URLs: real servers on this machine, whole and faulty."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from jetscale.jets.datasets.base import jet_file
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import RemoteFolder, files_below, folder_of
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.request import StoreRequest, store_request
from jetscale.prepare.__main__ import main
from tests.jets.stores import content

FILE = "HToBB_000.root"


class Handler(SimpleHTTPRequestHandler):
    """Python's file server (no range requests), with one fault on `FILE` where its server asks for one."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        fault = self.server.fault if self.path.endswith(FILE) else None
        if fault == "404":
            self.send_error(404)
        elif fault in ("dies", "short"):
            content = Path(self.translate_path(self.path)).read_bytes()
            half = content[: len(content) // 2]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content if fault == "dies" else half)))
            self.end_headers()
            self.wfile.write(half)
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def files(fill: SimpleNamespace, tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    fill.jetclass(folder, n_jets=5, files=1)
    fill.jetclass2(folder, n_jets=20, files=1)
    return folder


@pytest.fixture
def server(files: Path) -> Iterator[SimpleNamespace]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(files)))
    http.fault, http.asked = None, []
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(http=http, url=f"http://127.0.0.1:{http.server_port}")
    http.shutdown()
    http.server_close()
    thread.join()


def remote(url: str, store: Path, dataset: str = "jetclass") -> StoreRequest:
    return store_request(DataSettings(dir=url, store=str(store)), dataset, "train")


def local(files: Path, store: Path, dataset: str = "jetclass") -> dict[str, str]:
    settings = DataSettings(dir=str(files), store=str(store))
    return content(ensure_store(store_request(settings, dataset, "train"), workers=1).path)


@pytest.mark.parametrize("dataset", ["jetclass", "jetclass2"])
def test_same_store_as_from_a_folder(
    server: SimpleNamespace, files: Path, tmp_path: Path, dataset: str
) -> None:
    wanted = remote(server.url, tmp_path / "store", dataset)
    store = ensure_store(wanted, workers=1)
    assert content(store.path) == local(files, tmp_path / "local", dataset)
    fetched = [path for path, _ in server.http.asked if path.endswith((".root", ".parquet"))]
    assert len(fetched) == len(set(fetched)) == len(wanted.sources()), "every file passes once, whole"
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name], "no copy is left"


@pytest.mark.slow
def test_prepare_and_check_with_workers(
    server: SimpleNamespace, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"dir={server.url}", f"store={tmp_path}/store", "dataset=jetclass", "split=train"]
    main([*arguments, "workers=2"])
    assert content(tmp_path / "store/jetclass_train_paper") == local(files, tmp_path / "local")
    main([*arguments, "--check"])
    assert capsys.readouterr().err.count("checksums good") == 1
    changed = files / jet_file("jetclass", "HToBB", 0).path
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    with pytest.raises(JetDataError, match="1 damaged files"):
        main([*arguments, "--check"])
    assert re.search(rf"{server.url}/\S+{FILE}: damaged, checksum", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("404", "cannot be fetched (FileNotFoundError"),
        ("dies", "cannot be fetched (ClientPayloadError"),
        ("short", "truncated, "),
    ],
)
def test_faulty_server(
    server: SimpleNamespace, files: Path, tmp_path: Path, fault: str, message: str
) -> None:
    server.http.fault = fault
    wanted = remote(server.url, tmp_path / "store")
    url = f"{server.url}/{jet_file('jetclass', 'HToBB', 0).path}"
    with pytest.raises(JetDataError, match=re.escape(f"{url}: {message}")):
        ensure_store(wanted, workers=1)
    assert not wanted.path.exists()
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]
    server.http.fault, server.http.asked = None, []
    assert content(ensure_store(wanted, workers=1).path) == local(files, tmp_path / "local")
    fetched = [path for path, _ in server.http.asked if path.endswith(".root")]
    assert len(fetched) == 1, "the nine others were kept"


def test_no_server_and_no_files(server: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(JetDataError, match=f"no train jets of jetclass.*below {server.url}/none/JetClass"):
        ensure_store(remote(f"{server.url}/none", tmp_path / "store"))
    url = "http://127.0.0.1:9"  # the discard port: nobody listens
    with pytest.raises(JetDataError, match=rf"{url}/JetClass: cannot be fetched \(ClientConnectorError"):
        ensure_store(remote(url, tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_truncated_file_is_named_by_its_url(server: SimpleNamespace, files: Path, tmp_path: Path) -> None:
    path = files / jet_file("jetclass", "HToCC", 0).path
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(JetDataError, match=rf"{server.url}/\S+HToCC_000.root: truncated, \d+ of \d+ bytes"):
        ensure_store(remote(server.url, tmp_path / "store"), workers=1)


def test_a_store_of_remote_files_needs_no_server(server: SimpleNamespace, tmp_path: Path) -> None:
    wanted = remote(server.url, tmp_path / "store")
    made = ensure_store(wanted, workers=1)
    server.http.shutdown()
    server.http.server_close()
    assert ensure_store(wanted).fingerprint == made.fingerprint


def test_memory_and_file_urls(files: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(files / "JetClass"), "/jets/JetClass", recursive=True)
    try:
        store = ensure_store(remote("memory://jets", tmp_path / "store"), workers=1)
        assert content(store.path) == local(files, tmp_path / "local")
    finally:
        memory.rm("/jets", recursive=True)
    assert folder_of(f"file://{files}") == files
    assert DataSettings(dir=f"file://{files}").store_dir == files / "store"


def test_the_store_is_local() -> None:
    for settings in (
        DataSettings(dir="https://example.org/jets"),
        DataSettings(dir="data", store="s3://bucket/store"),
    ):
        with pytest.raises(JetDataError, match=r"must be on a local disk; name a local folder.*data.store="):
            store_request(settings, "jetclass", "train")


def test_unknown_protocol_and_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JetDataError, match=r"gopher://jets: cannot be fetched \(ValueError: Protocol not"):
        files_below(RemoteFolder("gopher://jets"), ".root")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(JetDataError, match=r"s3://bucket: .*pip install '\.\[remote\]'"):
        files_below(RemoteFolder("s3://bucket"), ".root")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Endpoint of a real S3 server, moto's."""
    pytest.importorskip("s3fs", reason="s3fs comes with the extra `remote`")
    pytest.importorskip("moto.server", reason="no S3 server: pip install 'moto[s3]' flask flask-cors")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    log_line = re.compile(rb"Running on (http://127\.0\.0\.1:\d+)")
    command = [sys.executable, "-u", "-m", "moto.server", "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := log_line.search(line):
                break
        else:
            pytest.fail("the S3 server did not start")
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        url = found[1].decode()
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield url
        process.terminate()
        process.wait()
        drain.join()


@pytest.mark.slow
def test_s3(s3: str, files: Path, tmp_path: Path) -> None:
    system = fsspec.filesystem("s3")
    system.mkdir("jets")
    system.put(str(files / "JetClass"), "jets/data/JetClass", recursive=True)
    wanted = remote("s3://jets/data", tmp_path / "store")
    bad = "jets/data/JetClass/Pythia/train_100M/HToBB_000.root"
    system.pipe(bad, b"<html>404</html>")
    with pytest.raises(JetDataError, match=rf"s3://{bad}: cannot be read, it is an HTML page"):
        ensure_store(wanted, workers=1)
    system.put(str(files / jet_file("jetclass", "HToBB", 0).path), bad)
    assert content(ensure_store(wanted, workers=1).path) == local(files, tmp_path / "local")
