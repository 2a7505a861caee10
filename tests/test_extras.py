"""A command that finds an optional package missing names the extra that brings it, in one line."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException

from benchmarks.loader_peers import weaver_rate
from hydra_plugins.jetscale import SlurmLauncher
from jetscale.analysis import load_losses
from jetscale.common.config_safety import CONF
from jetscale.common.usage import UsageError
from jetscale.download.__main__ import main as download
from jetscale.jets.datasets.files import JetFileReader
from jetscale.jets.datasets.top_tagging import TOP_TAGGING
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import RemoteFolder, files_below
from jetscale.launch.command_line import explanation
from jetscale.launch.hydra_setup import register
from jetscale.tagger.__main__ import main as tagger
from jetscale.tracking.dashboard import main as dashboard

REPO = Path(__file__).resolve().parents[1]
WITHOUT_COMMAND = {"dev", "docs", "notebooks", "tensorboard"}
"""Tools for developers, and what only a logger of the user's configuration needs: Lightning names it."""

Provoked = Callable[[Path], object]


def read_hdf5(folder: Path) -> None:
    (folder / "test.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    JetFileReader(TOP_TAGGING, folder / "test.h5")


def read_excel(folder: Path) -> None:
    (folder / "losses.xlsx").write_bytes(b"PK")
    load_losses(folder / "losses.xlsx")


def launch_on_slurm(folder: Path) -> None:
    SlurmLauncher().setup(hydra_context=None, task_function=None, config=None)  # type: ignore[arg-type]  # refused before it is read


CASES: dict[tuple[str, str], Provoked] = {
    ("dashboard", "wandb_workspaces"): lambda _: dashboard(["entity/project", "dry_run=true"]),
    ("download", "huggingface_hub"): lambda folder: download(["dataset=jetclass2", f"dir={folder}"]),
    ("launchers", "submitit"): launch_on_slurm,
    ("excel", "openpyxl"): read_excel,
    ("export", "onnx"): lambda _: tagger(["export", "run=r"]),
    ("export", "onnxruntime"): lambda _: tagger(["export", "run=r"]),
    ("export", "onnxscript"): lambda _: tagger(["export", "run=r"]),
    ("export", "safetensors"): lambda _: tagger(["export", "run=r"]),
    ("hdf5", "tables"): read_hdf5,
    ("remote", "s3fs"): lambda _: files_below(RemoteFolder("s3://bucket/jets"), ".root"),
    ("remote", "fsspec_xrootd"): lambda _: files_below(RemoteFolder("root://host//jets"), ".root"),
}


@pytest.mark.parametrize(("extra", "package"), CASES)
def test_the_message_names_the_extra(
    extra: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises((UsageError, JetDataError)) as refused:
        CASES[extra, package](tmp_path)
    message = str(refused.value)
    assert f"pip install '.[{extra}]'" in message
    assert "\n" not in message


LAUNCHERS = {
    "joblib": "launchers",
    "submitit_local": "launchers",
    "submitit_slurm": "launchers",
    "ray": "ray",
    "ray_aws": "ray",
}


@pytest.mark.parametrize(("launcher", "extra"), LAUNCHERS.items())
def test_the_message_of_a_launcher_names_its_extra(
    launcher: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    Plugins.instance()  # fills the store with what is installed
    groups = ConfigStore.instance().repo["hydra"]
    monkeypatch.setitem(groups, "launcher", {"basic.yaml": groups["launcher"]["basic.yaml"]})
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(MissingConfigException) as error:
        compose("train", overrides=[f"hydra/launcher={launcher}"], return_hydra_config=True)
    message = explanation(error.value)
    assert message is not None
    assert message.startswith(f"hydra/launcher={launcher}: ")
    assert f"pip install '.[{extra}]'" in message


def test_the_message_of_the_benchmark_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weaver.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert weaver_rate([]) is None
    assert "pip install -e '.[bench]'" in capsys.readouterr().err


def test_every_extra_is_asked_for_by_name() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    asked = {extra for extra, _ in CASES} | set(LAUNCHERS.values()) | {"bench"}
    assert set(project["optional-dependencies"]) == asked | WITHOUT_COMMAND
