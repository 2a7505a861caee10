"""The notebooks: executed from the top, and committed without what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runs import quiet_environment

nbformat: Any = pytest.importorskip("nbformat", reason="the extra `notebooks` is not installed")

REPO = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
SHARED_JETS = pytest.mark.xdist_group("notebooks")  # simulated once for all
MARKS = {name: [SHARED_JETS] for name in ("01_quickstart", "03_compositions", "05_wandb")}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for the repository: notebooks write into it."""
    root = tmp_path_factory.mktemp("repository")
    (root / "notebooks").mkdir()
    for name in ("docs", "studies"):
        (root / name).symlink_to(REPO / name)
    return root


@pytest.fixture
def this_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the kernel `python3` the running interpreter, whatever the user has installed."""
    kernelspec: Any = pytest.importorskip(
        "ipykernel.kernelspec", reason="the extra `notebooks` is not installed"
    )
    kernelspec.write_kernel_spec(str(tmp_path / "jupyter/kernels/python3"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


def test_the_five_are_there() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    listed = (REPO / "notebooks/README.md").read_text()
    assert not [path.name for path in NOTEBOOKS if path.name not in listed]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_committed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not [cell.source for cell in code if cell.outputs or cell.execution_count is not None]
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.slow
@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem, marks=MARKS.get(p.stem, [])) for p in NOTEBOOKS])
def test_it_runs_from_the_top(path: Path, folder: Path, this_interpreter: None) -> None:
    """An error in any cell is raised here, with the cell and its traceback."""
    nbclient: Any = pytest.importorskip("nbclient", reason="the extra `notebooks` is not installed")
    notebook = nbformat.read(path, as_version=4)
    environment = {**quiet_environment(), "PYTHONPATH": str(REPO)}
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder / "notebooks")}}
    )
    client.execute(env=environment)
    shown = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert any("image/png" in output.get("data", {}) for cell in shown for output in cell.outputs)
    warned = [output.text for cell in shown for output in cell.outputs if output.get("name") == "stderr"]
    assert not warned
