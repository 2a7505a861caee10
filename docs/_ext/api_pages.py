"""The API reference: one page for each room, made from the docstrings when the site is built.

``.. room:: jetscale.jets`` lists every module of the package, found by walking it, so that a new module is on
the page without being named anywhere. Docstrings of this project are plain text with numpy-style sections
whose entries read ``name : meaning``; `_as_numpy_sections` turns them into what napoleon reads, and escapes
characters that reStructuredText would take for markup, such as the stars of ``N*``.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

THIRD_PARTY = {
    *("awkward", "fastjet", "fsspec", "hydra", "joblib", "lightning", "matplotlib", "np", "numba", "numpy"),
    *(
        "omegaconf",
        "pa",
        "pandas",
        "pd",
        "psutil",
        "pyarrow",
        "pythia8",
        "pythia8mc",
        "rich",
        "scipy",
        "sklearn",
    ),
    *("submitit", "torch", "torchmetrics", "triton", "uproot", "wandb", "xxhash"),
}
"""Libraries whose classes may be named in a signature without a page of this site to link to."""
_SECTION = re.compile(
    r"^(?P<title>[A-Z][A-Za-z ]+)\n-{3,}\n(?P<body>.*?)(?=^[A-Z][A-Za-z ]+\n-{3,}\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_CODE = re.compile(r"(``.+?``|`[^`]+`)", re.S)


def modules_of(package: str) -> Iterator[str]:
    """Full names of a package and of all modules inside it, in alphabetical order."""
    yield package
    found = import_module(package)
    if hasattr(found, "__path__"):
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            yield module.name


class Room(SphinxDirective):
    """One section a module: its docstring, then its public classes and functions."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Sections of all modules of the package named by the argument."""
        self.env.note_dependency(__file__)
        found: list[nodes.Node] = []
        for name in modules_of(self.arguments[0]):
            text = f"{name}\n{'=' * len(name)}\n\n"
            if problem := _missing_library(name):
                text += f"{name} is not shown: it needs {problem}, which is not installed here.\n"
            else:
                text += f".. automodule:: {name}\n   :members:\n"
                if source := getattr(sys.modules[name], "__file__", None):
                    self.env.note_dependency(source)
            found += self.parse_text_to_nodes(text, allow_section_headings=True)
        return found


def _missing_library(name: str) -> str:
    """Name of an optional library that the module needs and that is not installed; empty if none."""
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "jetscale").startswith("jetscale"):
            raise
        return str(error.name)
    return ""


def _as_numpy_sections(
    app: Sphinx, what: str, name: str, subject: Any, options: Any, lines: list[str]
) -> None:
    """Rewrite a docstring in place, before napoleon reads it."""
    text = _SECTION.sub(_section, _escaped("\n".join(lines)))
    if what in ("attribute", "data", "property"):
        # napoleon takes the words before a colon in the first line for a type: give it an empty comment there
        text = f"..\n\n{text}"
    lines[:] = text.split("\n")


def _section(match: re.Match[str]) -> str:
    """One section as napoleon, or else reStructuredText, expects it."""
    title, body = match["title"], match["body"]
    entries, _, rest = body.partition("\n\n")
    if (
        title != "Returns" and rest.strip() and " : " not in rest
    ):  # a paragraph after the last entry: move it to the front
        return f"{rest.strip()}\n\n" + _section(_SECTION.match(f"{title}\n---\n{entries}\n\n"))
    if title == "Parameters":
        body = re.sub(r"^(\S[^\n]*?) : ", r"\1\n    ", body, flags=re.MULTILINE)
        return f"{title}\n{'-' * len(title)}\n{body}"
    if title == "Attributes":
        body = re.sub(r"^(\S[^\n]*?) : ", _as_item, body, flags=re.MULTILINE)
        body = re.sub(r"^ +", "  ", body, flags=re.MULTILINE)
    elif title not in ("Returns", "Yields"):
        return match[0]
    return f"\n:{title}:\n" + textwrap.indent(body.strip("\n"), "    ") + "\n\n"


def _as_item(match: re.Match[str]) -> str:
    name = match[1].replace("\\", "")
    return f"- ``{name}``: "


def _escaped(text: str) -> str:
    """Text outside of backticks with the stars, bars and trailing underscores of plain prose escaped."""
    parts = _CODE.split(text)
    for at in range(0, len(parts), 2):
        parts[at] = re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", parts[at])
    return "".join(parts)


def _short_signature(
    app: Sphinx, what: str, name: str, subject: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, str] | None:
    """Leave out the signature of settings: the limits of their keys are in the configuration reference."""
    return ("", "") if signature and "Annotated[" in signature else None


def _imported_name(app: Sphinx, env: Any, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """Link a class that a module imports for its annotations only, which autodoc knows by its short name."""
    module, name = node.get("py:module"), node.get("reftarget", "")
    home = _imports(module).get(name) if module else None
    if home is None or not home.startswith("jetscale."):
        return None
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "class", home, node, content)


def _needs_no_target(app: Sphinx, domain: Any, node: pending_xref) -> bool | None:
    """Accept what has no page here: other libraries' names, type variables, aliases, private classes."""
    name, module = str(node.get("reftarget", "")).lstrip("~"), str(node.get("py:module"))
    name = name.partition("[")[0]  # of an alias such as dict[str, int], Sphinx asks for the whole text
    home = _imports(module).get(name, name) if module in sys.modules else name
    root, last = home.partition(".")[0], home.rpartition(".")[2]
    if root in THIRD_PARTY or root in sys.stdlib_module_names or hasattr(builtins, root) or last[:1] == "_":
        return True
    defined_in = sys.modules.get(home.rpartition(".")[0] or module)
    return None if isinstance(getattr(defined_in, last, int), type) else True


@cache
def _imports(module: str) -> dict[str, str]:
    """Full name of everything that a module imports from elsewhere, by the name it has there."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the hooks."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.add_directive("room", Room)
    app.connect("autodoc-process-docstring", _as_numpy_sections, priority=400)  # napoleon has 500
    app.connect("autodoc-process-signature", _short_signature)
    app.connect("missing-reference", _imported_name)
    app.connect("warn-missing-reference", _needs_no_target)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
