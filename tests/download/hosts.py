"""A loopback server with Zenodo's record API, Hugging Face's tree API and redirects, and faults."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

RECORD = 6619768
REPOSITORY = "jet-universe/jetclass2"
COMMIT = "6cd532b0" * 5
PAGE = 3
"""Files on a page of the tree: less than there are, so that the client has to turn pages."""


@dataclass
class Asked:
    """One request for the bytes of a file."""

    name: str
    range: str | None
    sent: int = 0


@dataclass
class Host:
    """What the server publishes, does wrong, and was asked.

    Attributes
    ----------
    zenodo, hub : content by name
    faults : by file name, what goes wrong with its next requests, one after another
    published : checksums that are published instead of the true ones
    asked : requests for bytes
    headers : of all requests
    before_bytes : by file name, called before the file's bytes are sent
    stalled : set when half of a file was sent, and nothing more comes
    """

    url: str = ""
    zenodo: dict[str, bytes] = field(default_factory=dict)
    hub: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    published: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    before_bytes: dict[str, Callable[[], object]] = field(default_factory=dict)
    stalled: threading.Event = field(default_factory=threading.Event)

    def record(self) -> dict[str, object]:
        """JSON of the record, in the form of Zenodo's API."""
        files = [
            {
                "id": f"id-{name}",
                "key": name,
                "size": len(content),
                "checksum": self.published.get(name, f"md5:{hashlib.md5(content).hexdigest()}"),
                "links": {"self": f"{self.url}/api/records/{RECORD}/files/{name}/content"},
            }
            for name, content in self.zenodo.items()
        ]
        return {
            "id": RECORD,
            "doi": f"10.5281/zenodo.{RECORD}",
            "metadata": {"title": "JetClass"},
            "files": files,
        }

    def tree(self) -> list[dict[str, object]]:
        """JSON of the tree, in the form of the hub's API."""
        files = []
        for name, content in self.hub.items():
            sha = self.published.get(name, hashlib.sha256(content).hexdigest())
            lfs = {"oid": sha, "size": len(content), "pointerSize": 134}
            files.append(
                {"type": "file", "oid": "0" * 40, "size": len(content), "path": f"data/{name}", "lfs": lfs}
            )
        readme = {"type": "file", "oid": "1" * 40, "size": 12, "path": "README.md"}
        return [{"type": "directory", "oid": "2" * 40, "size": 0, "path": "data"}, readme, *files]


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar archive, as the published ones are: not compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in sorted({str(Path(name).parent) for name in files} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o755
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host: Host = self.server.host
        host.headers.append(str(self.headers))
        url = urlsplit(self.path)
        if url.path == f"/api/records/{RECORD}":
            if fault := _next(host, "record"):
                self._fail(fault)
            else:
                self._json(host.record())
        elif found := re.fullmatch(rf"/api/records/{RECORD}/files/([^/]+)/content", url.path):
            self._file(found[1], host.zenodo[found[1]])
        elif url.path == f"/api/datasets/{REPOSITORY}":
            if fault := _next(host, "info"):
                self._fail(fault)
            else:
                self._json({"_id": "6", "id": REPOSITORY, "sha": COMMIT, "tags": [], "private": False})
        elif url.path == f"/api/datasets/{REPOSITORY}/tree/{COMMIT}":
            self._tree(int(parse_qs(url.query).get("cursor", ["0"])[0]))
        elif found := re.fullmatch(rf"/datasets/{REPOSITORY}/resolve/{COMMIT}/data/([^/]+)", url.path):
            self.send_response(302)
            self.send_header("Location", f"{host.url}/cdn/{found[1]}?Signature=x")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif found := re.fullmatch(r"/cdn/([^/]+)", url.path):
            self._file(found[1], host.hub[found[1]])
        else:
            self._fail("404")

    def _tree(self, start: int) -> None:
        host: Host = self.server.host
        entries = host.tree()
        following = start + PAGE
        link = {}
        if following < len(entries):
            link = {
                "Link": f'<{host.url}/api/datasets/{REPOSITORY}/tree/{COMMIT}?cursor={following}>; rel="next"'
            }
        self._json(entries[start:following], link)

    def _json(self, content: object, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str], announced: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, fault: str) -> None:
        """``429 1``: a status, and the seconds of Retry-After; ``html``: a page in the place of the file."""
        if fault == "html":
            return self._send(200, b"<html><title>Log in</title></html>", {"Content-Type": "text/html"})
        status, _, after = fault.partition(" ")
        return self._send(int(status), b"{}", {"Retry-After": after} if after else {})

    def _file(self, name: str, content: bytes) -> None:
        host: Host = self.server.host
        asked = Asked(name, self.headers.get("Range"))
        host.asked.append(asked)
        host.before_bytes.get(name, lambda: None)()
        fault = _next(host, name)
        found = re.fullmatch(r"bytes=(\d+)-", asked.range or "")
        ignored = fault is not None and fault.startswith("no range")
        start = int(found[1]) if found and not ignored else 0
        headers = {"Content-Type": "application/octet-stream"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body, whole = content[start:], len(content) - start
        if fault == "wrong range":
            headers["Content-Range"] = f"bytes 0-{len(content) - 1}/{len(content)}"
        if fault == "html" or (fault and fault[0] in "45"):
            return self._fail(fault)
        if fault == "short":
            body = body[: whole // 2]
            return self._send(206 if start else 200, body, headers)
        if fault in ("cut", "stall", "no range, cut"):
            body = body[: whole // 2]
        if fault == "flipped":
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault == "longer":
            self.send_response(200)  # without a length, until the connection ends
            self.end_headers()
            self.wfile.write(content + b"more")
        else:
            self._send(206 if start else 200, body, headers, whole)
        asked.sent = len(body)
        if fault == "stall":
            self.wfile.flush()
            host.stalled.set()
            time.sleep(30)
        if fault in ("cut", "stall", "longer", "no range, cut"):
            self.close_connection = True
        return None

    def log_message(self, *_: object) -> None:
        pass


def _next(host: Host, name: str) -> str | None:
    return host.faults[name].pop(0) if host.faults[name] else None
