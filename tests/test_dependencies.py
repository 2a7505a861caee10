"""What jetscale imports is declared in pyproject.toml, and what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    """The distribution that a requirement names, as packaging spells it: fsspec of ``fsspec[http]>=1``."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def imported() -> dict[str, set[str]]:
    """Distributions that the packages import, each with the files that do."""
    providers = packages_distributions()
    found: dict[str, set[str]] = {}
    for path in [*REPO.glob("jetscale/**/*.py"), *REPO.glob("hydra_plugins/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in {name.partition(".")[0] for name in names}:
                if top in sys.stdlib_module_names or top in ("jetscale", "hydra_plugins"):
                    continue
                assert top in providers, f"{path} imports {top}, which is not installed"
                for distribution in providers[top]:
                    found.setdefault(name_of(distribution), set()).add(path.relative_to(REPO).as_posix())
    return found


def test_nothing_undeclared_is_imported() -> None:
    extras = (text for texts in PROJECT["optional-dependencies"].values() for text in texts)
    declared = {name_of(text) for text in (*PROJECT["dependencies"], *extras)}
    assert {name: files for name, files in imported().items() if name not in declared} == {}


def test_nothing_declared_is_unused() -> None:
    """Of what every user installs; an extra may hold plugins, which their host finds without an import."""
    assert {name_of(text) for text in PROJECT["dependencies"]} - imported().keys() == set()
