"""A loopback server that speaks what the real W&B client asks of it, and the client's process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote, unquote

FAILING = ("Runs", "SampledHistoryPage", "RunFiles")

LOAD = """
import json, logging, sys
from pathlib import Path
from jetscale.analysis import load_losses
from jetscale.analysis.settings import WandbSettings
from jetscale.analysis.tables.sources import patience
from jetscale.common.usage import UsageError
patience.FIRST_PAUSE = 0.01
try:
    wanted = WandbSettings(**json.loads(sys.argv[1]))
    losses = load_losses("ent/proj", "wandb", wandb=wanted, cache=Path(sys.argv[2]))
    blocks = losses.blocks and {
        "keys": losses.blocks.keys,
        "loss_sum": losses.blocks.loss_sum_EB.tolist(),
        "jets": losses.blocks.jets_EB.tolist(),
    }
    rows = losses.frame.to_dict("list")
    origins = {run: origin.to_json() for run, origin in losses.origins.items()}
    answer = {"rows": rows, "warnings": losses.warnings, "blocks": blocks, "origins": origins}
    print(json.dumps(answer))
except UsageError as error:
    print(json.dumps({"error": str(error)}))
"""


def connection(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """A page of GraphQL, the only one."""
    return {
        "totalCount": len(nodes),
        "edges": [{"node": node, "cursor": str(number)} for number, node in enumerate(nodes)],
        "pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False},
    }


class Server:
    """The calls that the client makes, answered on loopback.

    Attributes
    ----------
    histories : rows of each run.
    files : content of each run's files, by run and name.
    configs, summaries : of a run, in place of the usual ones.
    running : runs that have not ended.
    fail : statuses of the next answers to `FAILING`.
    malformed : GraphQL call that gets nonsense.
    file_status : status of the next downloads of files.
    cut : how many of the next downloads break off half-way.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.running: set[str] = set()
        self.file_status: list[int] = []
        self.cut = 0
        self.histories: dict[str, list[dict[str, Any]]] = {}
        self.fail: list[int] = []
        self.malformed = ""
        self.calls: list[str] = []
        self.filters: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, answer = 404, b"{}"
                if self.path == "/graphql":
                    status, answer = server.answer(json.loads(content))
                self.reply(status, answer)

            def do_GET(self) -> None:
                status, answer, cut = server.download(self.path)
                self.reply(status, answer, cut)

            def reply(self, status: int, answer: bytes, cut: bool = False) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer[: len(answer) // 2] if cut else answer)
                self.close_connection = self.close_connection or cut

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request: dict[str, Any]) -> tuple[int, bytes]:
        found = re.search(r"query (\w+)", request["query"])
        call = found[1] if found else ""
        self.calls.append(call)
        if call in FAILING and self.fail:
            return self.fail.pop(0), b'{"errors": [{"message": "busy"}]}'
        if call == self.malformed:
            return 200, b'{"data": {"project": {"runs": 3, "run": {"sampledHistory": 7}}}}'
        return 200, json.dumps({"data": self.data(call, request.get("variables") or {})}).encode()

    def data(self, call: str, variables: dict[str, Any]) -> dict[str, Any]:
        if call in ("Viewer", "GetDefaultEntity"):
            return {
                "viewer": {"id": "v", "entity": "ent", "username": "u", "flags": "{}", "teams": {"edges": []}}
            }
        if call == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if call == "Runs":
            self.filters.append(variables["filters"])
            runs = connection([self.run(name) for name in self.histories])
            count = len(self.histories)
            return {"project": {"internalId": "1", "runCount": count, "readOnly": False, "runs": runs}}
        name = variables.get("name") or variables.get("runName") or variables.get("run") or ""
        if call == "RunHistoryKeys":
            return {
                "project": {"run": {"historyKeys": {"lastStep": len(self.histories[name]) - 1, "keys": {}}}}
            }
        if call == "RunParquetHistory":
            return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}}
        if call == "SampledHistoryPage":
            spec = json.loads(variables["spec"])
            rows = self.histories[name][spec["minStep"] : spec["maxStep"] + 1]
            return {
                "project": {"run": {"sampledHistory": [[r for r in rows if set(spec["keys"]) <= set(r)]]}}
            }
        if call == "RunFiles":
            wanted = [file for file in variables["fileNames"] if file in self.files.get(name, {})]
            files = connection([self.node(name, file) for file in wanted])
            return {"project": {"internalId": "1", "run": {"fileCount": len(wanted), "files": files}}}
        return {"project": {"run": self.run(name)}}

    def node(self, run: str, file: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.http.server_port}/{quote(run)}/{file}"
        return {
            "id": file, "name": file, "url": url, "directUrl": url, "mimetype": "", "updatedAt": None,
            "sizeBytes": str(len(self.files[run][file])), "md5": "",
        }  # fmt: skip

    def download(self, path: str) -> tuple[int, bytes, bool]:
        """Status, content, and whether to break off, of a file."""
        _, run, file = (unquote(part) for part in path.split("/", 2))
        content = self.files.get(run, {}).get(file)
        if content is None:
            return 404, b"", False
        if self.file_status:
            return self.file_status.pop(0), b"", False
        cut, self.cut = self.cut > 0, max(0, self.cut - 1)
        return 200, content, cut

    def run(self, name: str) -> dict[str, Any]:
        usual = {
            "subset": "scratch",
            "seed": int(name[-1], 16),
            "model": {"dim": 16},
            "finetune": {"warmup": 0},
        }
        config = self.configs.get(name, usual)
        summary = self.summaries.get(name, {"n_params": 11002})
        wrapped = {key: {"value": value} for key, value in config.items()}
        return {
            "id": name, "name": name, "displayName": f"shown {name}", "tags": [],
            "state": "running" if name in self.running else "finished",
            "config": json.dumps(wrapped), "summaryMetrics": json.dumps(summary),
            "systemMetrics": "{}", "projectId": "1", "project": {"internalId": "1"}, "sweepName": None,
            "createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00", "group": None,
            "historyLineCount": 1, "jobType": None, "commit": None, "readOnly": False, "description": "",
            "notes": "", "user": {"name": "u", "username": "u"},
            "historyKeys": {"lastStep": len(self.histories[name]) - 1},
        }  # fmt: skip

    def add(self, name: str, steps: range) -> None:
        rows: list[dict[str, Any]] = []
        for step in steps:
            axes = {"step": step, "jets": 32 * step, "flops": 240.0 * 11002 * 32 * step}
            rows.append(axes | {"finetune/test_loss": 2.0 - 1e-3 * step})
            rows.append(axes | {"finetune/test_loss_ema": 1.9 - 1e-3 * step})
        self.histories[name] = [{"_step": number} | row for number, row in enumerate(rows)]


def ask(server: Server, folder: Path, **settings: Any) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.http.server_port}", "WANDB_API_KEY": "x" * 40,
        "WANDB_SILENT": "true", "WANDB_DIR": str(folder), "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_ERROR_REPORTING": "false",
    }  # fmt: skip
    arguments = [json.dumps(settings), str(folder / "kept.parquet")]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        check=True,
        env=environment,
        timeout=300,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
