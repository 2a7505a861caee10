"""docs/faq.md, word for word: every command in it is run, and what it prints is what the page says.

A block of the page holds commands (``$ ...``), each followed by what it prints on stderr; ``...`` stands for
anything, and where a line breaks does not matter. What has to be there before the command is in `PREPARE`, by
the heading above the block.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPO, Made
from tests.runs import quiet_environment
from tests.warm import WarmServer

PAGE = REPO / "docs" / "faq.md"
_ANYTHING = re.escape("...")


@dataclass(frozen=True)
class Entry:
    """One command of the page, under its heading, and what it prints."""

    heading: str
    command: str
    printed: str

    @property
    def words(self) -> list[str]:
        """The command as a shell reads it, without its comment."""
        return shlex.split(self.command, comments=True)


def entries() -> Iterator[Entry]:
    """All commands of the page."""
    heading = ""
    for part in re.split(r"^(?=### )", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        heading = part.splitlines()[0].removeprefix("### ")
        for block in re.findall(r"```text\n(.*?)```", part, flags=re.DOTALL):
            for one in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, printed = one.partition("\n")
                yield Entry(heading, command, printed)


ENTRIES = list(entries())


def pattern(printed: str) -> str:
    """Regular expression of a text in which ``...`` is anything and any white space is as good as another."""
    words = [re.escape(word).replace(_ANYTHING, r"[\s\S]*?") for word in printed.split()]
    return r"\s+".join(words)


def _damaged(warm: WarmServer, folder: Path, data: Path) -> None:
    source = next((data / "JetClass").rglob("HToBB_000.root"))
    (folder / "data/JetClass").mkdir(parents=True)
    content = source.read_bytes()
    (folder / "data/JetClass/HToBB_000.root").write_bytes(content[: len(content) - 2_000])


def _misnamed(warm: WarmServer, folder: Path, data: Path) -> None:
    (folder / "data/JetClass").mkdir(parents=True)
    shutil.copy(next((data / "JetClass").rglob("HToBB_000.root")), folder / "data/JetClass/ttbar.root")


def _jets(warm: WarmServer, folder: Path, data: Path) -> None:
    (folder / "data").symlink_to(data)


def _copied(warm: WarmServer, folder: Path, data: Path) -> None:
    shutil.copytree(data, folder / "data")


def _replaced_file(warm: WarmServer, folder: Path, data: Path) -> None:
    shutil.copytree(data, folder / "data")
    next((folder / "data/JetClass").rglob("HToGG_000.root")).unlink()


def _run_with_other_settings(warm: WarmServer, folder: Path, data: Path) -> None:
    _jets(warm, folder, data)
    (folder / "mine/budget").mkdir(parents=True)
    text = (REPO / "conf/budget/smoke.yaml").read_text()
    (folder / "mine/budget/mine.yaml").write_text(text.replace("study: smoke", "study: mine"))
    words = (
        "python -m jetscale.train --config-dir mine budget=mine model.dim=8 seed=5 tracking.wandb=disabled"
    )
    status, printed = run(warm, words.split(), folder)
    assert status == 0, printed
    edited = (folder / "mine/budget/mine.yaml").read_text().replace("steps: 10", "steps: 12")
    (folder / "mine/budget/mine.yaml").write_text(edited)


def _stranger(warm: WarmServer, folder: Path, data: Path) -> None:
    (folder / "mine/budget").mkdir(parents=True)
    (folder / "mine/budget/evil.yaml").write_text("# @package _global_\nstudy: ${oc.env:SECRET}\n")


def _shadowing(warm: WarmServer, folder: Path, data: Path) -> None:
    package = "# @package _global_\n"
    for name, text in {
        "same/budget/smoke.yaml": package,
        "ending/experiment/mine.yml": package,
        "bare/experiment/mine.yaml": "subset: mine\n",
    }.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)


def _earlier_name(warm: WarmServer, folder: Path, data: Path) -> None:
    _jets(warm, folder, data)
    words = "python -m jetscale.train budget=smoke model.dim=8 finetune.lr=3e-3 tracking.wandb=disabled"
    status, printed = run(warm, words.split(), folder)
    assert status == 0, printed
    made = next((folder / "multirun").rglob("finetune.lr=0.003"))
    made.rename(made.with_name("finetune.lr=3e-3"))


def _table(text: str) -> Callable[[WarmServer, Path, Path], None]:
    def write(warm: WarmServer, folder: Path, data: Path) -> None:
        (folder / "losses.csv").write_text(text)

    return write


def _finished(warm: WarmServer, folder: Path, data: Path) -> None:
    shutil.copytree(data.parent / "multirun", folder / "multirun")


def _damaged_metrics(warm: WarmServer, folder: Path, data: Path) -> None:
    _finished(warm, folder, data)
    metrics = next(folder.rglob("scratch/dim=8/seed=0/metrics.jsonl"))
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"".join([lines[0], lines[1][:20] + b"\n", *lines[2:]]))


PREPARE: dict[str, Callable[[WarmServer, Path, Path], None]] = {
    "A file is damaged": _damaged,
    "A file has another name": _misnamed,
    "The store is not of these files": _replaced_file,
    "The jets run out": _jets,
    "Too few test jets": _jets,
    "Files of another simulation are there": _copied,
    "A configuration file reads the environment": _stranger,
    "A directory has other settings": _run_with_other_settings,
    "A file of yours is not read": _shadowing,
    "A run has the name of an earlier version": _earlier_name,
    "A callback ends the phase": _jets,
    "A callback needs a logger": _jets,
    "The loss is not a number": _jets,
    "A line of the metrics is damaged": _damaged_metrics,
    "A column is missing": _table("size,tokens,val_loss\n1e6,1e8,3.0\n"),
    "A value cannot be fitted": _table("params,tokens,loss\n1e6,1e8,nan\n2e6,2e8,3.0\n"),
    "The data do not allow the errors asked for": _finished,
}


def _quiet() -> dict[str, str]:
    kept = {name: value for name, value in quiet_environment().items() if not name.startswith("SLURM")}
    programs = str(Path(sys.executable).parent)  # no Slurm, which some machines have
    return {**kept, "COLUMNS": "200", "HOME": "/nowhere", "PATH": programs}


def run(warm: WarmServer, words: list[str], folder: Path) -> tuple[int, str]:
    """Exit status of a command in `folder`, and what it printed on stderr."""
    assert words[:2] == ["python", "-m"]
    process = warm.start(words[2], words[3:], folder, _quiet())
    return process.wait(120), process.printed("stderr")


@pytest.fixture(scope="session")
def prepared_data(simulated_data: Path, warm: WarmServer, made_once: Made) -> Path:
    """The simulated jets with their packed stores, and beside them the folder of a finished run."""

    def fill(folder: Path) -> None:
        shutil.copytree(simulated_data, folder / "data")
        for words in (
            "python -m jetscale.prepare dataset=jetclass",
            "python -m jetscale.train budget=smoke model.dim=8 tracking.wandb=disabled",
        ):
            status, printed = run(warm, words.split(), folder)
            assert status == 0, printed

    return made_once("faq", fill) / "data"


@pytest.mark.parametrize("entry", ENTRIES, ids=[f"{one.heading}-{at}" for at, one in enumerate(ENTRIES)])
def test_an_entry_is_what_its_command_prints(
    entry: Entry, prepared_data: Path, warm: WarmServer, tmp_path: Path
) -> None:
    PREPARE.get(entry.heading, lambda warm, folder, data: None)(warm, tmp_path, prepared_data)
    single = entry.words[2] == "jetscale.train" and "-m" not in entry.words[3:]
    # W&B's record of a run that fails takes ten seconds
    status, printed = run(warm, [*entry.words, *["tracking.wandb=disabled"][: int(single)]], tmp_path)
    assert status in (1, 2), printed
    assert "Traceback" not in printed
    assert re.fullmatch(pattern(entry.printed), printed.strip()), (
        f"{entry.printed}\n--- is now ---\n{printed}"
    )


def test_every_preparation_is_of_an_entry() -> None:
    assert set(PREPARE) <= {entry.heading for entry in ENTRIES}
