"""A form of the surface of the user's own module: fitted with errors, reported, planned, refitted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.runs import quiet_environment
from tests.warm import WarmServer

HERE = Path(__file__).parent
ALPHA, BETA = 0.076, 0.103  # as published
TRUST = ("--trust", "toy_lab.form")


pytestmark = pytest.mark.xdist_group("kaplan")  # they share a fit
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def command(warm: WarmServer) -> Command:
    """Run a command as a user does, in the folder that holds toy_lab."""

    def run(module: str, *words: str, status: int = 0, cwd: Path = HERE) -> subprocess.CompletedProcess[str]:
        environment = quiet_environment()
        environment.pop("JETSCALE_TRUST", None)
        done = warm.run(module, words, cwd, environment)
        assert done.returncode == status, done.stderr
        return done

    return run


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.fixture(scope="module")
def fitted(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit of a table that follows the form, with 0.2% of noise."""
    folder = tmp_path_factory.mktemp("kaplan")
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e5, 1e9, 7), np.geomspace(1e7, 1e11, 7)))
    noise = np.exp(0.002 * np.random.default_rng(5).standard_normal(N.size))
    loss = ((8.8e13 / N) ** (ALPHA / BETA) + 5.4e13 / D) ** BETA * noise
    pd.DataFrame({"N": N, "D": D, "loss": loss}).to_csv(folder / "losses.csv", index=False)
    command(
        "jetscale.analysis", *TRUST, "approach3.form=kaplan", "source=table", f"path={folder / 'losses.csv'}",
        f"out={folder / 'fit'}", "uncertainty.replicates=100", "multiverse=false",
    )  # fmt: skip
    return folder / "fit"


def test_it_finds_the_exponents_with_errors(fitted: Path) -> None:
    entry = results(fitted)["subsets"]["all"]
    three = entry["approach3"]
    for name, truth in (("a", BETA / (ALPHA + BETA)), ("alpha", ALPHA), ("beta", BETA)):
        assert three[name]["value"] == pytest.approx(truth, rel=0.01)
        low, high = three[name]["ci95"]
        assert low < truth < high
        assert 0 < high - low < 0.02 * truth
    assert three["certificate"]["agreeing"] >= 6
    assert three["certificate"]["floor_share"] is None
    assert "L_inf" not in three
    profiled = entry["errors"]["profile"]["approach3.alpha"]["ci95"]
    assert profiled == pytest.approx(three["alpha"]["ci95"], rel=0.01)
    assert entry["lack_of_fit"]["p_value"] > 0.01
    rms = {name: entry["windows"][0][name] for name in ("rms_error", "rms_error_tied")}
    assert rms["rms_error"] < 0.004 < rms["rms_error_tied"]
    report = (fitted / "report.html").read_text()
    assert "((A / N^alpha)^(1/beta) + (B / D^beta)^(1/beta))^beta" in report


def test_it_is_planned_and_refitted(command: Command, fitted: Path, tmp_path: Path) -> None:
    command(
        "jetscale.analysis.plan", *TRUST, f"results={fitted}", "budget=1e19", f"out={tmp_path / 'plan.json'}"
    )
    found = json.loads((tmp_path / "plan.json").read_text())["allocations"]["all"]
    N = np.geomspace(1e7, 1e10, 20_001)
    loss = ((8.8e13 / N) ** (ALPHA / BETA) + 5.4e13 * 6 * N / 1e19) ** BETA
    assert found["loss"]["value"] == pytest.approx(loss.min(), rel=0.002)
    assert found["N"]["value"] == pytest.approx(N[loss.argmin()], rel=0.1)
    again = command(
        "jetscale.analysis", *TRUST, "approach3.form=kaplan", "source=table",
        f"path={fitted / 'losses.parquet'}", f"out={tmp_path / 'again'}", "uncertainty.method=none",
        "multiverse=false", "report=false",
    )  # fmt: skip
    assert "approach 3  alpha" in again.stdout
    first, second = (results(path)["subsets"]["all"]["approach3"] for path in (fitted, tmp_path / "again"))
    assert second["surface"] == first["surface"]


def test_without_trust_it_is_unknown(command: Command, fitted: Path, tmp_path: Path) -> None:
    refused = command(
        "jetscale.analysis", "approach3.form=kaplan", "source=table", f"path={fitted / 'losses.parquet'}",
        f"out={tmp_path}", status=2,
    )  # fmt: skip
    assert refused.stderr.count("\n") == 1
    assert "'kaplan' is no form that is known here; forms: separate, tied, coupled" in refused.stderr
    assert "--trust MODULE" in refused.stderr


def test_a_wrong_derivative_is_refused(command: Command, tmp_path: Path, fitted: Path) -> None:
    text = (HERE / "toy_lab/form.py").read_text()
    (tmp_path / "slip.py").write_text(
        text.replace("J_RQP = np.stack([t, s, -x_RP * t", "J_RQP = np.stack([t, s, x_RP * t")
    )
    done = command(
        "jetscale.analysis", "--trust", "slip", "approach3.form=kaplan", "source=table",
        f"path={fitted / 'losses.parquet'}", f"out={tmp_path}", status=2, cwd=tmp_path,
    )  # fmt: skip
    assert "form 'kaplan' (Kaplan): the first derivatives are not those of ln L" in done.stderr
