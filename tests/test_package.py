"""The wheel, and how fast the commands answer."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.runs import quiet_environment

REPO = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_folder(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(REPO)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("jetscale-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {path.relative_to(REPO / "conf").as_posix() for path in (REPO / "conf").rglob("*.yaml")}
    assert {f"jetscale/conf/{name}" for name in shipped} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "multirun"))]
    # a wheel is a zip that Python can put on its path once unpacked; dependencies come from this environment
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    done = subprocess.run(
        [sys.executable, "-m", "jetscale.train", "+experiment=bsm_all", "--cfg", "job"],
        cwd=empty, env={**quiet_environment(), "PYTHONPATH": str(site)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "subset: bsm_all" in done.stdout
    assert not list(empty.iterdir())


@pytest.mark.parametrize("module", ["simulate", "download", "prepare", "analysis", "train"])
def test_help_needs_no_heavy_import(module):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"jetscale.{module}", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "jetscale" in imported
    assert not imported & {"torch", "lightning", "scipy", "matplotlib", "pythia8mc", "pandas"}
