"""docs/tagger.md: its commands and its Python, run as they stand on the tests' own run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.comparison import RESULTS, table
from jetscale.tagger.__main__ import main
from tests.conftest import REPO

PAGE, _, BACKBONE = (REPO / "docs/tagger.md").read_text().partition("## A pretrained backbone")
RUN = "multirun/paper/bsm_all/dim=64/seed=0"


def blocks(language: str, run: Path) -> list[str]:
    """Blocks in a language, for `run`; those on backbones are run in test_backbone.py."""
    return [
        block.replace(RUN, str(run)) for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    ]


def test_its_python(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in blocks("python", run):
        exec(block, names)  # one after the other, as in a notebook
    assert "(20, 10)" in capsys.readouterr().out
    assert 0 < len(names["scores"]) < 20


def test_its_commands(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for block in blocks("bash", run) for line in block.replace("\\\n", " ").splitlines()]
    commands = [command for command in commands if f"run={run}" in command]
    assert len(commands) == 3
    for command in commands[:2]:  # the third is that of test_export.py
        start, words = shlex.split(command)[:3], shlex.split(command)[3:]
        assert start == ["python", "-m", "jetscale.tagger"]
        main(words)
    assert Path("scores.parquet").is_file()
    assert (run / "evaluation/evaluate.json").is_file()
    printed = capsys.readouterr().out
    assert "scores.parquet: 200 jets" in printed
    (example,) = re.findall(r"```text\n(multirun/quickstart.*?)```", PAGE, re.DOTALL)
    assert heads(example) == heads(printed) != []


def heads(printed: str) -> list[list[str]]:
    """Cells of the lines that name the columns of a printed table."""
    return [
        [cell.strip() for cell in line.split("┃")] for line in printed.splitlines() if line.startswith("┃")
    ]


def test_it_names_the_columns_that_the_papers_inputs_need(run: Path) -> None:
    import jetscale

    paragraph = PAGE.partition("They need the columns of")[2].partition("in GeV")[0]
    assert set(re.findall(r"`(part_\w+)`", paragraph)) == set(jetscale.load(run).inputs.columns)


def test_the_tables_are_those_of_the_benchmark() -> None:
    results = json.loads(RESULTS.read_text())
    assert table(results) in (REPO / "docs/comparison.md").read_text()
