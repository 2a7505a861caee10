"""`key=value` command lines for the programs that are not sweeps.

A program's settings are one dataclass. Its fields are the keys, its types check the values, its docstring's
``Attributes`` section is the help. Keys are those of Hydra (``approach3.delta=0.001``), values are
YAML, and none of Hydra's start-up time is paid. ``--check`` is short for ``check=true``.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

if TYPE_CHECKING:
    from rich.console import Console

Settings = TypeVar("Settings")


class UsageError(Exception):
    """The command line, or a file or value it names, cannot be used; the message says how to mend it."""


def parse(settings: type[Settings], argv: Sequence[str], program: str) -> Settings:
    """Turn ``key=value`` arguments, or ``--key`` where it is boolean, into an instance of `settings`.

    Raises
    ------
    UsageError
        A key that does not exist (the nearest ones are named), or a value of the wrong type.
    SystemExit
        After ``--help``, with status 0.
    """
    if any(argument in ("-h", "--help") for argument in argv):
        sys.stdout.write(usage(settings, program))
        raise SystemExit(0)
    base = OmegaConf.structured(settings)
    known = dict(_keys(settings))
    arguments = [_expand(argument, known) if argument.startswith("-") else argument for argument in argv]
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals:
            raise UsageError(f"{argument!r} is not key=value; see `{program} --help`")
        if key not in known and not any(
            key.startswith(f"{name}.") for name in known if _is_mapping(known[name])
        ):
            raise UsageError(f"unknown key {key!r}; {_nearest(key, list(known), 'keys')}")
    try:
        merged = OmegaConf.merge(base, OmegaConf.from_dotlist([_literal(a, known) for a in arguments]))
        parsed = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UsageError(str(error).splitlines()[0]) from error
    assert isinstance(parsed, settings)
    return parsed


def _literal(argument: str, known: dict[str, Any]) -> str:
    """Quote the value of a text key: YAML would make ``off`` false, and trip on a backtick."""
    key, _, value = argument.partition("=")
    if known.get(key) not in (str, str | None):
        return argument
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"" and value[0] not in value[1:-1]:
        value = value[1:-1]  # quoted already
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _expand(argument: str, known: dict[str, Any]) -> str:
    """``key=true`` of ``--key``."""
    key = argument.removeprefix("--").replace("-", "_")
    if key in known and known[key] is not bool:
        raise UsageError(f"{argument} needs a value: {key}=VALUE")
    if key not in known:
        flags = [_flag(name) for name, kind in known.items() if kind is bool]
        raise UsageError(f"unknown flag {argument!r}; {_nearest(argument, flags, 'flags')}")
    return f"{key}=true"


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _nearest(word: str, known: list[str], what: str) -> str:
    near = difflib.get_close_matches(word, known, n=3)
    return f"did you mean {', '.join(near)}?" if near else f"{what}: {', '.join(known) or 'none'}"


def run(main: Any, program: str) -> int:
    """Call ``main(sys.argv[1:])``; a `UsageError` becomes one line on stderr and exit status 2."""
    try:
        main(sys.argv[1:])
    except UsageError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted\n")
        return 130
    return 0


def console(width: int, stream: TextIO | None = None) -> Console:
    """Console for tables on `stream` (stdout); where that is no terminal, which has a width, of `width`."""
    from rich.console import Console

    stream = sys.stdout if stream is None else stream
    return Console(file=stream, width=None if stream.isatty() else width)


def usage(settings: type[Any], program: str) -> str:
    """Help text: the dataclass's docstring, then every key with its default."""
    flags = "".join(f" [{_flag(key)}]" for key, kind in _keys(settings) if kind is bool)
    lines = [
        f"usage: {program} [key=value ...]{flags}",
        "",
        inspect.cleandoc(settings.__doc__ or ""),
        "",
        "defaults:",
    ]
    defaults = OmegaConf.structured(settings)
    lines += [f"  {key}={OmegaConf.select(defaults, key)}" for key, _ in _keys(settings)]
    return "\n".join(lines) + "\n"


def _keys(settings: type[Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    hints = get_type_hints(settings)
    for field in fields(settings):
        kind = hints[field.name]
        if is_dataclass(kind) and isinstance(kind, type):
            found += _keys(kind, f"{prefix}{field.name}.")
        else:
            found.append((f"{prefix}{field.name}", kind))
    return found


def _is_mapping(kind: Any) -> bool:
    return bool(re.search(r"\b(dict|Mapping|Any)\b", str(kind)))
