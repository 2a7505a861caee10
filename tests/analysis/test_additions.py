"""An approach and a source of the user's own module, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jetscale.analysis.fitting.surface import Surfaces
from tests.warm import WarmServer

MODULE = '''
from __future__ import annotations

import numpy as np
import pandas as pd

from jetscale.analysis.fitting.approach import APPROACHES, Approach
from jetscale.analysis.tables.loading import SOURCES, Source
from jetscale.analysis.tables.loss_table import LossTable


@APPROACHES.register("approach4")
class Quadratic(Approach):
    """ln L = a quadratic polynomial of ln N and ln C: the optimum at a budget is a line."""

    label = "approach 4"
    title = "one quadratic"
    grid_bias = "quadratic_bias"

    def draws(self, task, log_L_RP, weight_RP):
        x, c = (v - v.mean() for v in (task.curves.log_N, task.curves.log_C))
        design = np.stack([np.ones_like(x), x, c, x**2, x * c, c**2], axis=1)
        log_L_RP, weight_RP = np.broadcast_arrays(log_L_RP, weight_RP)
        normal = np.einsum("rp,pi,pj->rij", weight_RP, design, design)
        moments = np.einsum("rp,pi->ri", weight_RP * log_L_RP, design)
        found = np.linalg.solve(normal, moments[:, :, None])[:, :, 0]
        a = -found[:, 4] / (2 * found[:, 3])
        return {"a": a, "b": 1 - a}


@SOURCES.register("npz")
class Npz(Source):
    """Arrays N, D and loss of a numpy file."""

    def read(self, request):
        arrays = np.load(request.path)
        N, D, loss = (arrays[name] for name in ("N", "D", "loss"))
        frame = pd.DataFrame({"n_params": N, "jets": D, "loss": loss, "flops": 6 * N * D, "step": D})
        frame = frame.assign(
            run=[f"run {i}" for i in range(len(N))], subset=np.where(np.arange(len(N)) % 2, "odd", "even"),
            seed="0", dim=np.nan, constituents=np.nan, split="test", weights="raw",
        )
        return LossTable(frame, request.path, 6.0)
'''


def run(warm: WarmServer, folder: Path, *words: str) -> tuple[int, str, str]:
    """Exit status of the command, and what it printed on standard output and error."""
    done = warm.run("jetscale.analysis", words, folder)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that a user works in: her module, and losses in her format."""
    (tmp_path / "lab.py").write_text(MODULE)
    N, D = (g.ravel() for g in np.meshgrid(np.geomspace(1e7, 1e9, 9), np.geomspace(1e9, 1e11, 10)))
    law = Surfaces.single(E=1.8, A=400.0, B=400.0, alpha=0.34, beta=0.34)
    noise = 0.002 * np.random.default_rng(1).standard_normal(len(N))
    np.savez(tmp_path / "losses.npz", N=N, D=D, loss=np.exp(law.log_loss(np.log(N), np.log(D))[0] + noise))
    return tmp_path


def test_an_approach_and_a_source_take_part_in_everything(warm: WarmServer, folder: Path) -> None:
    status, printed, errors = run(
        warm, folder, "--trust", "lab", "source=npz", "path=losses.npz", "out=fit",
        "uncertainty.replicates=60", "where=n_params < 9e8",
    )  # fmt: skip
    assert status == 0, errors
    assert "\n  approach 4  a = 0." in printed
    results = json.loads((folder / "fit/results.json").read_text())
    entry = results["subsets"]["odd"]
    assert results["subsets"]["even"]["sizes"] == 8  # of 9: the query reached the source's rows
    # a quadratic over two decades is far off, and the surface predicts by how much on this grid
    value, bias = entry["approach4"]["a"]["value"], entry["approach4"]["quadratic_bias_a"]
    low, high = entry["approach4"]["a"]["ci95"]
    assert value < 0.3
    assert abs(value - bias - 0.5) < 0.05
    assert low < 0.5 < high
    assert "approach4.a" in results["differences"]["odd - even"]
    choices = {row["choice"]: row["approach4.a"] for row in results["multiverse"]["odd"]}
    assert choices["rows: 3 largest losses left out"] != choices["as set"] == entry["approach4"]["a"]["value"]
    report = (folder / "fit/report.html").read_text()
    assert "Approach 4: one quadratic" in report
    assert "a, approach 4" in report


def test_an_unknown_source_is_refused_before_anything_is_read(warm: WarmServer, folder: Path) -> None:
    status, _, errors = run(warm, folder, "source=npz", "path=losses.npz", "out=fit")
    assert (status, errors.count("\n")) == (2, 1)
    assert "'npz' is no source that is known here; sources: local, table, wandb, wandb-offline" in errors
    assert not (folder / "fit").exists()
    refused = run(
        warm, folder, "--trust", "lab", "source=npz", "path=losses.npz", "out=fit", "best_of_cell=true"
    )
    assert "best_of_cell is for source=table, not for source=npz" in refused[2]
