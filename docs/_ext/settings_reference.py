"""The configuration reference, read from the code at build time.

``{settings} module.Class`` is a table of every key of a settings dataclass: type and default from its fields,
meaning from the ``Attributes`` of its docstring. ``{choices} group`` shows the files of ``conf/group``.
A key without a meaning is an error of the build.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from docutils import nodes
from omegaconf import OmegaConf
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from jetscale.common.fields import is_optional, limit_of, plain_type

REPO = Path(__file__).resolve().parents[2]
HEADINGS = ("key", "type and limits", "default", "meaning")
WIDTHS = (24, 20, 14, 42)


@dataclass(frozen=True)
class Key:
    """One key as a user types it; `group` is empty at the top."""

    group: str
    name: str
    kind: str
    default: str
    meaning: str


def keys_of(settings: type[Any]) -> Iterator[Key]:
    """Every key of a settings dataclass, group by group in the order of its fields, its own first.

    Raises
    ------
    ExtensionError
        A key without a meaning, or a meaning of a key that does not exist.
    """
    defaults = OmegaConf.structured(settings)
    groups = []
    said = _meanings(settings)
    names = {field.name for field in fields(settings)}
    if unknown := set(said) - names:
        raise ExtensionError(
            f"{settings.__module__}.{settings.__name__}: no key {', '.join(sorted(unknown))}"
        )
    hints = get_type_hints(settings, include_extras=True)
    for field in fields(settings):
        kind = hints[field.name]
        if isinstance(kind, type) and is_dataclass(kind):
            groups.append((field.name, kind))
            continue
        if field.name not in said:
            raise ExtensionError(
                f"{settings.__module__}.{settings.__name__}: the key {field.name!r} has no meaning; "
                "give it a line `name : meaning` under Attributes of the docstring"
            )
        yield Key("", field.name, _kind(kind), _shown(defaults[field.name]), said[field.name])
    for name, kind in groups:
        for key in keys_of(kind):
            group = f"{name}.{key.group}".rstrip(".")
            yield Key(group, f"{name}.{key.name}", key.kind, key.default, key.meaning)


def _kind(kind: Any) -> str:
    """Type and limits of a field: ``int, from 1 to 8192, or null``."""
    plain = plain_type(kind)
    name = plain.__name__ if plain in (int, float, bool, str) else str(plain).partition("[")[0]
    name = name.removeprefix("typing.")
    parts = [name, limit_of(kind), "or null" if is_optional(kind) else ""]
    return ", ".join(part for part in parts if part)


def _meanings(settings: type[Any]) -> dict[str, str]:
    """Meaning of each field, those of base classes included; ``a, b : text`` names two."""
    found: dict[str, str] = {}
    for one in reversed(settings.__mro__):
        if not is_dataclass(one):
            continue
        _, _, section = inspect.cleandoc(one.__doc__ or "").partition("Attributes\n----------\n")
        entries = re.split(r"\n(?=\S)", section.partition("\n\n")[0]) if section else []
        for entry in entries:
            names, _, text = entry.partition(" : ")
            found |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(text.split()))
    return found


def _shown(value: Any) -> str:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) or "{}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else '""'


def _with_code(text: str) -> list[nodes.Node]:
    """Text in which backticks mark code."""
    parts = re.split(r"`+([^`]+)`+", text)
    return [nodes.literal(text=part) if at % 2 else nodes.Text(part) for at, part in enumerate(parts) if part]


def _row(cells: list[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


class SettingsTable(SphinxDirective):
    """One table a group of keys."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Tables of the dataclass named by the argument."""
        module, _, name = self.arguments[0].rpartition(".")
        settings = getattr(import_module(module), name)
        for one in settings.__mro__:
            if is_dataclass(one):
                self.env.note_dependency(str(inspect.getsourcefile(one)))
        self.env.note_dependency(__file__)
        by_group: dict[str, list[Key]] = {}
        for key in keys_of(settings):
            by_group.setdefault(key.group, []).append(key)
        found: list[nodes.Node] = []
        for group, keys in by_group.items():
            if group:
                found.append(nodes.rubric("", "", nodes.literal(text=f"{group}.")))
            found.append(_table(keys))
        return found


def _table(keys: list[Key]) -> nodes.table:
    head = _row([[nodes.Text(heading)] for heading in HEADINGS])
    body = [
        _row(
            [[nodes.literal(text=part)] for part in (key.name, key.kind, key.default)]
            + [_with_code(key.meaning)]
        )
        for key in keys
    ]
    columns = [nodes.colspec(colwidth=width) for width in WIDTHS]
    group = nodes.tgroup("", *columns, nodes.thead("", head), nodes.tbody("", *body), cols=len(HEADINGS))
    return nodes.table("", group, classes=["settings", "colwidths-given"])


class Choices(SphinxDirective):
    """The configuration files of one group, as they are."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Name and content of each file."""
        files = sorted((REPO / "conf" / self.arguments[0]).glob("*.yaml"))
        if not files:
            raise ExtensionError(f"conf/{self.arguments[0]}: no such group of choices")
        found: list[nodes.Node] = []
        for path in files:
            self.env.note_dependency(str(path))
            content = re.sub(r"# @package _global_\n", "", path.read_text()).rstrip()
            block = nodes.literal_block(content, content, language="yaml")
            caption = nodes.caption("", "", nodes.literal(text=path.relative_to(REPO).as_posix()))
            found.append(
                nodes.container("", caption, block, literal_block=True, classes=["literal-block-wrapper"])
            )
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("settings", SettingsTable)
    app.add_directive("choices", Choices)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
