"""README.md: every code block runs as it stands, one after the other; only the sizes are made smaller here.

Commands are started as forks of the warm process, with words appended that make them small. What `make
quickstart` runs is taken from make itself. `make test` is what continuous integration runs, these tests
included.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.runs import quiet_environment
from tests.warm import WarmServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("readme")]

RUNS = (
    "pretrain.steps=8", "pretrain.batch_size=8", "pretrain.warmup=2",
    "finetune.steps=20", "finetune.batch_size=8", "finetune.warmup=2",
    "eval.every=5", "eval.jets=100", "checkpoint_every=10", "tracking.wandb=disabled",
)  # fmt: skip
JETS = {
    "jetclass": ("n_jets=400", "n_val=0", "n_test=200", "mpi=false"),
    "jetclass2": (
        "n_jets=490", "n_val=0", "n_test=0", "buckets.QCD=200", "buckets.Res2P=130", "buckets.Res34P=160",
        "mpi=false",
    ),
}  # fmt: skip
"""Those of `simulated_data`: a finished file is kept, and one of other settings would be refused."""
GRID = ("+experiment=bsm_all", "model.dim=8,32", "seed=0")
RUN = "multirun/quickstart/bsm_all/dim=32/seed=0"
FIT = ("uncertainty.replicates=20", "uncertainty.profile=false", "multiverse=false")


def blocks(page: str, language: str) -> list[str]:
    """Code blocks of a page, without the comments and with joined lines where they are commands."""
    found = re.findall(rf"```{language}\n(.*?)```", (REPO / page).read_text(), re.DOTALL)
    return [block.replace("\\\n", " ") for block in found]


def smaller(module: str, words: list[str]) -> list[str]:
    """Words to append to a command, so that it takes seconds."""
    if module == "jetscale.simulate":
        (dataset,) = (word.removeprefix("dataset=") for word in words if word.startswith("dataset="))
        return list(JETS[dataset])
    if module == "jetscale.train":
        sweep = any(word.startswith("+sweep=") for word in words)
        grid = GRID if sweep else ("seed=0,1",) if "-m" in words else ()
        return [*RUNS, *grid, *(["hydra.launcher.n_jobs=1"] if "hydra/launcher=joblib" in words else [])]
    if module == "jetscale.composition":
        return ["jets=40", "draws=2", "names=[qcd,bsm_all]"]
    if module == "jetscale.analysis":  # the joint fit of a whole study takes long
        return [*FIT, *(["joint=false"] if "source=table" in words else [])]
    return []


def run_commands(text: str, folder: Path, warm: WarmServer) -> list[str]:
    """Run each line that starts a module of jetscale; returns the modules. Other lines are refused."""
    started = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] == "echo":
            continue
        assert Path(words[0]).name == "python", line
        assert words[1] == "-m", line
        module, arguments = words[2], words[3:]
        process = warm.start(module, [*arguments, *smaller(module, arguments)], folder, quiet_environment())
        out, err = process.communicate(timeout=1_200)
        assert process.returncode == 0, f"{line}\n{out}\n{err}"
        started.append(module)
    return started


def recipe(goal: str, folder: Path) -> str:
    """What make would run for `goal` in a folder without an environment."""
    make = ["make", "-n", "-C", str(REPO), f"VENV={folder}/none", goal]
    done = subprocess.run(make, capture_output=True, text=True, env=quiet_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\\\n", " ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, simulated_data: Path, warm: WarmServer) -> Path:
    """Stands for the clone after `make quickstart`, with the jets of the other tests: none is made again."""
    clone = tmp_path_factory.mktemp("clone")
    (clone / "studies").symlink_to(REPO / "studies")
    (clone / "data").mkdir()
    for name in ("quickstart", "JetClass", "JetClassII"):
        (clone / "data" / name).symlink_to(simulated_data / name.replace("quickstart", ""))
    lines = [line for line in recipe("quickstart", clone).splitlines() if " -m jetscale." in line]
    modules = run_commands("\n".join(lines), clone, warm)
    assert " ".join(modules).replace("jetscale.", "") == "simulate simulate prepare train analysis"
    return clone


def test_make_quickstart_installs_only_what_it_runs(folder: Path) -> None:
    upgrade, pip = (line for line in recipe("quickstart", folder).splitlines() if "pip install" in line)
    assert shlex.split(upgrade)[-1] == "pip"
    assert shlex.split(pip)[-1] == ".[launchers]"
    assert (folder / "multirun/quickstart/analysis/report.html").is_file()


def test_make_test_is_what_continuous_integration_runs() -> None:
    commands = [line.partition("#")[0].strip() for line in blocks("README.md", "bash")[0].splitlines()]
    assert commands == ["make quickstart", "make test"]
    assert "make test" in (REPO / ".ci/run").read_text().splitlines()
    makefile = (REPO / "Makefile").read_text()  # `make -n test` would start what the recipe calls make for
    assert "$(BIN)/python -m pytest" in makefile.partition("\ntest: install")[2].partition("\n\n")[0]


def test_the_study(folder: Path, warm: WarmServer) -> None:
    *_, study = blocks("README.md", "bash")
    modules = run_commands(study, folder, warm)
    assert len(modules) == 10
    assert (folder / "multirun/laptop/analysis/report.html").is_file()
    assert (folder / "fit/report.html").is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (made_smaller,) = (
        folder / RUN
    ).iterdir()  # what differs from the quickstart is in the name of its folder
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(block.replace(RUN, f"{RUN}/{made_smaller.name}"), names)  # one after the other, as in a notebook
    assert "(20, 10)" in capsys.readouterr().out


def copied() -> list[str]:
    """Files and folders that the container copies from the repository."""
    lines = re.findall(r"^COPY (.+) \S+$", (REPO / "containers/Dockerfile").read_text(), re.MULTILINE)
    return [name for line in lines for name in line.split()]


def test_containers_install_the_same() -> None:
    docker, apptainer = ((REPO / f"containers/{name}").read_text() for name in ("Dockerfile", "jetscale.def"))
    files = apptainer.partition("%files\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in files.splitlines()] == copied()
    assert {f"!{name}" for name in copied()} <= set((REPO / ".dockerignore").read_text().splitlines())
    for pattern in (r"apt-get update.*", r"python -m pip install .*", r"python:3\.\d+-slim"):
        (ours,), (theirs,) = re.findall(pattern, docker), re.findall(pattern, apptainer)
        assert ours == theirs


def test_the_install_lines_in_a_new_environment(tmp_path: Path) -> None:
    """From the files that the containers copy, without a network: what is needed is found on PYTHONPATH."""
    for name in copied():
        copy = shutil.copytree if (REPO / name).is_dir() else shutil.copy
        copy(REPO / name, tmp_path / name)
    (lines,) = (block for block in blocks("README.md", "bash") if "pip install" in block)
    assert lines == blocks("docs/install.md", "bash")[0]
    environment = quiet_environment() | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say: do not isolate
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-ec", lines], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    show = [tmp_path / ".venv/bin/python", "-m", "jetscale.train", "+experiment=bsm_all", "--cfg", "job"]
    (tmp_path / "empty").mkdir()
    shown = subprocess.run(show, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "subset: bsm_all" in shown.stdout
