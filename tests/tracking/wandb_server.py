"""A loopback server that takes runs and views from the real W&B client, and misbehaves on demand."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

KEY = "0123456789abcdef0123456789abcdef01234567"


class WandbServer:
    """Answers what the client asks while it makes a run, or saves a view.

    Attributes
    ----------
    fault : ``hang`` (never answers), ``slow`` (answers after `slow_seconds`), ``drop`` (closes the
        connection), a status of HTTP, or empty
    projects : those it knows; None for all
    calls : path or GraphQL call of every request
    views : what was saved
    runs : settings of the runs that were made, by id, as they were sent last
    history : lines of each run's history, each placed where the client said it belongs
    summary : of each run, as it was sent last
    files : content of each run's uploaded files
    """

    def __init__(self) -> None:
        self.fault = ""
        self.slow_seconds = 0.0
        self.projects: set[str] | None = None
        self.calls: list[str] = []
        self.bodies: list[str] = []
        self.views: list[dict[str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summary: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = content.decode("latin1")
                if self.path.startswith("/up/"):
                    _, _, run, file = unquote(self.path).split("/", 3)
                    server.files.setdefault(run, {})[file] = content
                    body = ""
                call = re.search(r"(?:query|mutation) (\w+)", body)
                server.calls.append(call[1] if call else self.path.rpartition("/")[2])
                server.bodies.append(body)
                fault = server.fault
                if fault in ("hang", "slow"):
                    server.closing.wait(600 if fault == "hang" else server.slow_seconds)
                if fault == "drop" or server.closing.is_set():
                    self.close_connection = True
                elif fault.isdigit():
                    self.reply(int(fault), {"errors": [{"message": "out of order"}]})
                else:
                    self.reply(200, server.answer(server.calls[-1], self.path, body))

            do_GET = do_PUT = do_POST

            def reply(self, status: int, content: dict[str, Any]) -> None:
                answer = json.dumps(content).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    self.close_connection = True  # the client has given up

            def handle(self) -> None:
                with suppress(OSError):  # the client was killed
                    super().handle()

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def answer(self, call: str, path: str, body: str) -> dict[str, Any]:
        if call == "file_stream":
            self.keep_history(path.split("/")[-2], json.loads(body).get("files", {}))
            return {"exitcode": None, "limits": {}}
        sent = json.loads(body) if body.startswith("{") else {}
        return {"data": self.data(call, sent.get("variables") or {})}

    def keep_history(self, run: str, files: dict[str, Any]) -> None:
        if (sent := files.get("wandb-summary.json")) is not None:
            self.summary[run] = json.loads(sent["content"][-1])
        if (sent := files.get("wandb-history.jsonl")) is not None:
            kept = self.history.setdefault(run, [])
            kept[sent["offset"] :] = [json.loads(line) for line in sent["content"]]

    def bucket(self, run: str) -> dict[str, Any]:
        """What the server tells of `run` to a client that goes on with it."""
        history = self.history.get(run, [])
        return {
            "id": "b", "name": run, "displayName": "shown", "sweepName": None, "config": "{}", "tags": [],
            "summaryMetrics": "{}", "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]",
            "historyLineCount": len(history), "historyTail": json.dumps(list(map(json.dumps, history[-1:]))),
            "wandbConfig": json.dumps({"t": 1}),  # without it the client takes the run for a new one
        }  # fmt: skip

    def data(self, call: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {
            "id": "p",
            "name": variables.get("project") or "proj",
            "entity": {"id": "e", "name": "ent"},
        }
        if call in ("Viewer", "GetDefaultEntity"):
            return {
                "viewer": {"id": "v", "entity": "ent", "username": "u", "flags": "{}", "teams": {"edges": []}}
            }
        if call == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if call == "RunResumeStatus":
            run = variables["name"]
            return {"model": {**project, "bucket": self.bucket(run) if run in self.runs else None}}
        if call == "UpsertBucket":
            bucket = {
                "id": "b", "name": variables.get("name"), "displayName": "shown", "description": "",
                "config": "{}", "sweepName": None, "project": project, "historyLineCount": 0,
            }  # fmt: skip
            known = self.runs.setdefault(variables["name"], {})
            known |= {key: value for key, value in variables.items() if value is not None}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if call == "CreateRunFiles":
            up = f"http://{self.host}/up/{variables['run']}"
            files = [{"name": name, "uploadUrl": f"{up}/{quote(name)}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if call == "Runs":
            if self.projects is not None and variables.get("project") not in self.projects:
                return {"project": None}
            page = {"endCursor": None, "hasNextPage": False}
            runs = {"totalCount": 0, "edges": [], "pageInfo": page}
            return {"project": {"internalId": "1", "runCount": 0, "readOnly": False, "runs": runs}}
        if call == "UpsertView2":
            self.views.append(variables)
            return {"upsertView": {"view": {"id": "1", "name": variables["name"]}, "inserted": True}}
        return {}


@contextmanager
def served() -> Iterator[WandbServer]:
    """A server while the body runs."""
    server = WandbServer()
    try:
        yield server
    finally:
        server.close()
