"""The W&B dashboard: what it draws, and how it is saved by the real client on a loopback server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from jetscale.runs.metrics import MetricsLine
from jetscale.tracking.wandb_run import values_of
from tests.runs import quiet_environment
from tests.tracking.wandb_server import KEY, served


@pytest.fixture
def dashboard(tmp_path):
    def call(
        *arguments: str, program: tuple[str, ...] = ("-m", "jetscale.tracking.dashboard"), **environment: str
    ):
        kept = {**quiet_environment(), "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            [sys.executable, *program, *arguments], capture_output=True, text=True, timeout=120,
            cwd=tmp_path, env={**kept, "WANDB_ERROR_REPORTING": "false", **environment},
        )  # fmt: skip

    return call


def logged_keys() -> set[str]:
    """Every key that runs send."""
    found = {"error"}
    for phase in ("pretrain", "finetune"):
        for split, weights, accuracy in (("train", "raw", None), ("test", "raw", 0.5), ("test", "ema", 0.5)):
            line = MetricsLine(phase, 1, 1, 1, 1.0, split, weights, 1.0, accuracy, 1.0, 1.0)
            found |= set(values_of(line, 1.0))
    return found


def drawn_keys(panel: dict[str, Any]) -> set[str]:
    config = panel["config"]
    keys = {
        *config.get("metrics", []),
        *(config[axis] for axis in ("xAxis", "yAxis", "zAxis") if axis in config),
    }
    return {key.removeprefix("summary:") for key in keys if not key.startswith("config:")}


@pytest.mark.slow
def test_it_draws_what_runs_send(dashboard):
    done = dashboard("ent/proj", "--dry-run", "study=paper", "dim=8")
    assert done.returncode == 0, done.stderr
    view, failures = json.loads(done.stdout)
    assert (view["entityName"], view["projectName"]) == ("ent", "proj")
    assert [view["displayName"], failures["displayName"]] == ["jetscale paper 8", "jetscale paper 8 failures"]
    sections = {
        section["name"]: section["panels"]
        for section in view["spec"]["section"]["panelBankConfig"]["sections"]
    }
    assert list(sections) == ["Scaling", "Throughput", "Fine-tuning", "Pretraining"]
    sections["Failures"] = failures["spec"]["section"]["panelBankConfig"]["sections"][0]["panels"]
    panels = [panel for panels in sections.values() for panel in panels]
    assert set().union(*map(drawn_keys, panels)) <= logged_keys()
    assert {"finetune/test_loss", "finetune/test_loss_ema", "finetune/jets_per_second"} <= set().union(
        *map(drawn_keys, panels)
    )
    (by_width,) = (
        panel["config"]
        for panel in panels
        if "by width" in panel["config"].get("chartTitle", "") and "compute" in panel["config"]["chartTitle"]
    )
    assert by_width["xLogScale"]
    assert by_width["yLogScale"]
    assert (by_width["xAxis"], by_width["metrics"], by_width["groupBy"]) == (
        "flops",
        ["finetune/test_loss"],
        "dim.value",
    )
    (runs,) = view["spec"]["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == [
        "study.value",
        "subset.value",
        "dim.value",
        "variant.value",
    ]
    assert [(entry["key"]["name"], entry["value"]) for entry in runs["filters"]["filters"]] == [
        ("study", "paper"),
        ("dim", 8),
    ]
    (bad,) = failures["spec"]["section"]["runSets"]
    assert bad["filters"]["filters"][-1]["value"] == ["failed", "crashed", "killed"]
    assert "summary:error" in bad["runFeed"]["columnOrder"]


@pytest.mark.slow
def test_it_is_saved_and_its_address_printed(dashboard):
    with served() as server:
        online = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"http://{server.host}"}
        done = dashboard("ent/proj", **online)
        assert done.returncode == 0, done.stderr
        assert [view["displayName"] for view in server.views] == ["jetscale", "jetscale failures"]
        spec = json.loads(server.views[0]["spec"])
        assert spec["section"]["panelBankConfig"]["sections"][0]["name"] == "Scaling"
        assert [line.startswith("http") for line in done.stdout.splitlines()] == [True, True]
        server.projects = {"proj"}
        wrong = dashboard("ent/porj", **online)
        server.fault = "401"
        refused = dashboard("ent/proj", **online)
    for failed in (wrong, refused):
        assert failed.returncode == 2
        (line,) = (
            line
            for line in failed.stderr.splitlines()
            if line.startswith("python -m jetscale.tracking.dashboard")
        )
        assert "check ENTITY/PROJECT" in line
        assert KEY not in failed.stderr
    assert len(server.views) == 2


WITHOUT = """
import sys
sys.modules["wandb_workspaces"] = None  # as where it is not installed
from jetscale.common.cli import run
from jetscale.tracking.dashboard import PROGRAM, main
sys.exit(run(main, PROGRAM))
"""


@pytest.mark.slow
def test_errors_say_what_to_do(dashboard):
    for done, message in (
        (dashboard("proj"), "path=proj: must be ENTITY/PROJECT"),
        (dashboard("ent/proj"), "no W&B key: set WANDB_API_KEY"),
        (dashboard("ent/proj", program=("-c", WITHOUT)), "pip install '.[dashboard]'"),
    ):
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
