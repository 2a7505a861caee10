"""What jetscale knows of Hydra's inside: the table of flags is right, and one module imports from there."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

from jetscale.common.hydra_flags import NEEDING_A_VALUE, flags_parser

REPO = Path(__file__).resolve().parents[2]
INTERNAL = {
    "jetscale/launch/composing.py": {"hydra._internal.hydra", "hydra._internal.config_loader_impl"},
}
"""All imports from ``hydra._internal``, by module: Hydra has no public way to change how it composes."""


def described(parser: argparse.ArgumentParser) -> dict[tuple[str, ...], tuple[object, ...]]:
    return {
        tuple(action.option_strings): (
            action.dest,
            action.nargs,
            action.const,
            action.default,
            tuple(action.choices or ()),
        )
        for action in parser._actions
    }


def test_the_flags_are_those_of_hydra() -> None:
    hydras = described(get_args_parser())
    assert described(flags_parser()) == hydras
    assert set(NEEDING_A_VALUE) == {
        name for names, (_, nargs, *_) in hydras.items() for name in names
        if nargs is None and names != ("--version",)
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    ["-m seed=0,1", "seed=0 --cfg job --resolve", "--config-dir a -cn b x=1 y=2", "-i plugins", "x=1 --info"],
)
def test_a_line_is_read_as_hydra_reads_it(line) -> None:
    assert vars(flags_parser().parse_args(line.split())) == vars(get_args_parser().parse_args(line.split()))


def test_one_module_imports_from_the_inside_of_hydra() -> None:
    found: dict[str, set[str]] = {}
    for path in [*REPO.glob("jetscale/**/*.py"), *REPO.glob("hydra_plugins/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            inside = {name for name in names if name.startswith("hydra._internal")}
            if inside:
                found.setdefault(path.relative_to(REPO).as_posix(), set()).update(inside)
    assert found == INTERNAL
