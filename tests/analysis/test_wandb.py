"""W&B sources against files and answers made by the real client."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import load_losses
from jetscale.cli import UsageError

LOG = """
import sys, wandb
directory, run_id, first, last, seed = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
config = {"subset": "scratch", "seed": seed, "model": {"dim": 16}, "finetune": {"warmup": 10, "steps": 200}}
run = wandb.init(id=run_id, mode="offline", dir=directory, project="p", config=config,
                 settings=wandb.Settings(silent=True, x_disable_stats=True))
for step in range(first, last, 10):
    jets = 32 * step
    axes = {"step": step, "jets": jets, "flops": 240.0 * 11002 * jets, "finetune/step": step}
    run.log(axes | {"finetune/train_loss": 9.0})
    run.log(axes | {"finetune/test_loss": 2.0 + first * 1e-4 - 1e-3 * step})
    run.log(axes | {"finetune/test_loss_ema": 1.9 + first * 1e-4 - 1e-3 * step})
run.summary["n_params"] = 11002
run.finish()
"""


def log_offline(folder: Path, run_id: str, first: int, last: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    arguments = [str(folder), run_id, str(first), str(last), str(seed)]
    subprocess.run([sys.executable, "-c", LOG, *arguments], check=True, env=environment, timeout=120)


def test_offline_folders_and_resumed_fragments(tmp_path: Path) -> None:
    log_offline(tmp_path / "a", "run0", 10, 120, 0)
    log_offline(tmp_path / "b", "run0", 100, 210, 0)  # went on from step 100 after a kill
    log_offline(tmp_path / "c", "run1", 10, 210, 1)
    losses = load_losses(tmp_path, "wandb-offline")
    frame = losses.frame
    assert sorted(frame["seed"].unique()) == ["0", "1"]
    for seed in ("0", "1"):
        for weights, level in (("raw", 2.0), ("ema", 1.9)):
            curve = frame[(frame["seed"] == seed) & (frame["weights"] == weights)].sort_values("step")
            assert curve["step"].tolist() == list(range(10, 210, 10))
            resumed = 100 if seed == "0" else 1000
            begin = np.where(curve["step"] < resumed, 10, 100)
            np.testing.assert_allclose(curve["loss"], level + begin * 1e-4 - 1e-3 * curve["step"])
    assert set(frame["n_params"]) == {11002.0}
    assert set(frame["dim"]) == {16.0}
    assert any("2 pieces merged" in text for text in losses.warnings)


def test_torn_offline_log_keeps_its_whole_records(tmp_path: Path) -> None:
    log_offline(tmp_path, "run0", 10, 1000, 0)
    whole = len(load_losses(tmp_path, "wandb-offline").frame)
    (file,) = {path.resolve() for path in tmp_path.rglob("*.wandb")}
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    torn = load_losses(tmp_path, "wandb-offline")
    assert 0 < len(torn.frame) < whole
    assert any("not finished" in text for text in torn.warnings)
    file.write_bytes(b"something else entirely")
    with pytest.raises(UsageError, match="not a W&B log"):
        load_losses(tmp_path, "wandb-offline")


def test_no_offline_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.wandb"):
        load_losses(tmp_path, "wandb-offline")


LOAD = """
import json, logging, sys
from pathlib import Path
from jetscale.analysis import load_losses
from jetscale.analysis.settings import WandbSettings
from jetscale.analysis.sources import wandb_api
from jetscale.cli import UsageError
wandb_api.FIRST_PAUSE = 0.01
try:
    wanted = WandbSettings(**json.loads(sys.argv[1]))
    losses = load_losses("ent/proj", "wandb", wandb=wanted, cache=Path(sys.argv[2]))
    print(json.dumps({"rows": losses.frame.to_dict("list"), "warnings": losses.warnings}))
except UsageError as error:
    print(json.dumps({"error": str(error)}))
"""


class Server:
    """The GraphQL calls that the client makes, answered on loopback; `fail` breaks the next answers."""

    def __init__(self) -> None:
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
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request: dict[str, Any]) -> tuple[int, bytes]:
        found = re.search(r"query (\w+)", request["query"])
        call = found[1] if found else ""
        self.calls.append(call)
        if call in ("Runs", "SampledHistoryPage") and self.fail:
            return self.fail.pop(0), b'{"errors": [{"message": "busy"}]}'
        if call == self.malformed:
            return 200, b'{"data": {"project": {"runs": 3, "run": {"sampledHistory": 7}}}}'
        return 200, json.dumps({"data": self.data(call, request.get("variables") or {})}).encode()

    def data(self, call: str, variables: dict[str, Any]) -> dict[str, Any]:
        if call in ("Viewer", "GetDefaultEntity"):
            return {
                "viewer": {"id": "v", "entity": "ent", "username": "u", "flags": "{}", "teams": {"edges": []}}
            }
        if call == "Runs":
            self.filters.append(variables["filters"])
            edges = [{"node": self.run(name), "cursor": name} for name in self.histories]
            runs = {
                "totalCount": len(edges),
                "edges": edges,
                "pageInfo": {"endCursor": None, "hasNextPage": False},
            }
            return {"project": {"internalId": "1", "runCount": len(edges), "readOnly": False, "runs": runs}}
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
        return {"project": {"run": self.run(name)}}

    def run(self, name: str) -> dict[str, Any]:
        config = {"subset": "scratch", "seed": int(name[-1]), "model": {"dim": 16}, "finetune": {"warmup": 0}}
        wrapped = {key: {"value": value} for key, value in config.items()}
        return {
            "id": name, "name": name, "displayName": f"shown {name}", "tags": [], "state": "finished",
            "config": json.dumps(wrapped), "summaryMetrics": json.dumps({"n_params": 11002}),
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


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


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


def test_api_gives_exact_curves_and_is_cached(server: Server, tmp_path: Path) -> None:
    server.add("run0", range(10, 1610, 1))  # more rows than one page of the client
    server.add("run1", range(10, 210, 10))
    answer = ask(server, tmp_path, group="g", filters='{"config.subset": "scratch"}')
    frame = pd.DataFrame(answer["rows"])
    assert json.loads(server.filters[0]) == {"config.subset": "scratch", "group": "g"}
    for seed, steps in (("0", range(10, 1610)), ("1", range(10, 210, 10))):
        for weights, level in (("raw", 2.0), ("ema", 1.9)):
            curve = frame[(frame["seed"] == seed) & (frame["weights"] == weights)].sort_values("step")
            assert curve["step"].tolist() == list(steps)
            np.testing.assert_allclose(curve["loss"], level - 1e-3 * curve["step"])
    assert set(frame["n_params"]) == {11002.0}
    server.add("run2", range(10, 50, 10))
    made = len(server.calls)
    again = ask(server, tmp_path, group="g", filters='{"config.subset": "scratch"}')
    assert len(server.calls) == made  # from the cache, without the server
    assert pd.DataFrame(again["rows"])["seed"].nunique() == 2
    anew = ask(server, tmp_path, group="g", filters='{"config.subset": "scratch"}', refresh=True)
    assert pd.DataFrame(anew["rows"])["seed"].nunique() == 3
    assert "refresh=true" in ask(server, tmp_path)["error"]  # the cache holds another question's answer


def test_api_waits_for_a_busy_server(server: Server, tmp_path: Path) -> None:
    server.add("run0", range(10, 210, 10))
    server.fail = [429, 503]
    assert len(ask(server, tmp_path)["rows"]["loss"]) == 40
    assert not server.fail


@pytest.mark.parametrize("call", ["Runs", "SampledHistoryPage"])
def test_api_malformed_answers_are_named(server: Server, tmp_path: Path, call: str) -> None:
    server.add("run0", range(10, 210, 10))
    server.malformed = call
    assert "error" in ask(server, tmp_path)
    assert not (tmp_path / "kept.parquet").exists()


def test_api_rows_that_are_not_numbers(server: Server, tmp_path: Path) -> None:
    server.add("run0", range(10, 50, 10))
    server.histories["run0"][2]["finetune/test_loss"] = "NaN?"
    assert "run0" in ask(server, tmp_path)["error"]
    server.histories = {}
    assert "no run" in ask(server, tmp_path)["error"]
