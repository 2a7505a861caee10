"""`key=value` command lines for the programs that are not sweeps.

A program's settings are one dataclass. Its fields are the keys, its types check the values, its docstring's
``Attributes`` section is the help. Keys are those of Hydra (``approach3.delta=0.001``), and none of
Hydra's start-up time is paid. ``--check`` is short for ``check=true``.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import yaml
from omegaconf import OmegaConf

from jetscale.common import fields
from jetscale.common.fields import (
    entry_type,
    is_optional,
    keys_of,
    limit_of,
    nearest,
    plain_type,
    problems,
    take,
)
from jetscale.common.trust import take_trust
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    from rich.console import Console

Settings = TypeVar("Settings")

_TRUST = """\
--trust MODULE imports a Python module of yours (from this folder, or installed) before anything else, so that
the command knows what the module registers; several: MODULE,MODULE (docs/extending.md)."""


def parse(
    settings: type[Settings], argv: Sequence[str], program: str, positional: str | None = None
) -> Settings:
    """Turn ``key=value`` arguments, or ``--key`` where it is boolean, into an instance of `settings`.

    A text is taken as it stands, lists and mappings are YAML. A mapping replaces the default one;
    ``key.NAME=value`` sets one entry of it.

    Parameters
    ----------
    settings : the dataclass
    argv : the arguments, without the program
    program : how the program is called, for messages
    positional : the key that an argument which is not ``key=value`` gives, as ``multirun/paper``

    Returns
    -------
    The settings; keys that `argv` does not give have their defaults.

    Raises
    ------
    UsageError
        A key that does not exist (the nearest ones are named), or a value of the wrong type or out of range.
    SystemExit
        After ``--help``, with status 0.
    """
    if any(argument in ("-h", "--help") for argument in argv):
        sys.stdout.write(
            usage(settings, program if positional is None else f"{program} {positional.upper()}")
        )
        raise SystemExit(0)
    known = keys_of(settings)
    parsed = settings()
    for argument in argv:
        word = _expand(argument, known) if argument.startswith("-") else argument
        key, equals, text = word.partition("=")
        if positional is not None and not argument.startswith("-") and (not equals or "/" in key):
            key, equals, text = positional, "=", word
        if not equals:
            raise UsageError(f"{argument!r} is not key=value; see `{program} --help`")
        _set(parsed, key, text, known)
    return parsed


def check(settings: Any) -> None:
    """Raise where a settings object, made in Python, holds a value out of its limits.

    Raises
    ------
    UsageError
        One line with the key, the value and what is needed.
    """
    if problem := next(problems(type(settings), asdict(settings)), None):
        raise UsageError(problem)


def home(text: str) -> str:
    """`text`, a leading ``~/`` replaced: shells leave it as it is behind ``key=``."""
    return str(Path(text).expanduser()) if text.startswith("~/") else text


def _set(parsed: Any, key: str, text: str, known: dict[str, Any]) -> None:
    """Give `parsed` the value that `text` says for `key`, or for one entry of a mapping (``key.NAME``)."""
    mappings = [name for name, kind in known.items() if entry_type(kind) is not None]
    owner = next((name for name in mappings if key.startswith(f"{name}.")), None)
    if key not in known and owner is None:
        inside = [name for name in known if name.startswith(f"{key}.")]
        raise UsageError(
            f"{key} is a group of keys: {', '.join(inside)}" if inside else fields.unknown(key, known, "key")
        )
    kind = known[key] if owner is None else entry_type(known[owner])
    try:
        value = take(key, kind, _read(kind, text))
    except yaml.YAMLError as error:
        why = getattr(error, "problem", None) or "no YAML"
        raise UsageError(f"{key}={text}: cannot be read ({why}); quote the texts in it") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    *groups, name = (owner or key).split(".")
    for group in groups:
        parsed = getattr(parsed, group)
    if owner is not None:
        value = {**getattr(parsed, name), key.removeprefix(f"{owner}."): value}
    setattr(parsed, name, value)


def _read(kind: Any, text: str) -> Any:
    """What was typed, as YAML where the type has a structure."""
    plain = plain_type(kind)
    if is_optional(kind) and (text == "null" or (text == "" and plain is not str)):
        return None
    if plain is str:
        quoted = len(text) > 1 and text[0] == text[-1] in "'\"" and text[0] not in text[1:-1]
        return text[1:-1] if quoted else home(text)
    if plain in (int, float, bool):
        return text
    if text.startswith("{") and not {"'", '"'} & set(text):
        text = re.sub(r":(?![\s/])", ": ", text)  # {QCD:1}, as Hydra reads it
    read = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    assert isinstance(read, dict)
    return read["value"]


def _expand(argument: str, known: dict[str, Any]) -> str:
    """``key=true`` of ``--key``."""
    key = argument.removeprefix("--").replace("-", "_")
    if key in known and plain_type(known[key]) is not bool:
        raise UsageError(f"{argument} needs a value: {key}=VALUE")
    if key not in known:
        name, equals, value = key.partition("=")
        if equals and (near := difflib.get_close_matches(name, known, n=1, cutoff=0.8)):
            raise UsageError(f"unknown flag {argument!r}; did you mean {near[0]}={value}?")
        flags = [_flag(name) for name, kind in known.items() if plain_type(kind) is bool]
        raise UsageError(f"unknown flag {argument!r}; {nearest(argument, flags, 'flags')}")
    return f"{key}=true"


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def run(main: Any, program: str) -> int:
    """Call ``main(sys.argv[1:])``; an error that explains itself becomes one line and exit status 2.

    Parameters
    ----------
    main : the command; may return an exit status
    program : how the program is called, for messages

    Returns
    -------
    The exit status.
    """
    try:
        status = main(take_trust(sys.argv[1:]))
    except Exception as error:
        if not explains_itself(error):
            raise
        sys.stderr.write(f"{program}: {told(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted\n")
        return 130
    return status if isinstance(status, int) else 0


def explains_itself(error: BaseException) -> bool:
    """Whether the message of `error` is all that a user needs.

    So it is with our own errors and with those of files (no permission, a folder for a file, a full disk);
    any other is a fault of the program, whose traceback is needed to repair it.
    """
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "jetscale"


def told(error: BaseException) -> str:
    """The message of an error that explains itself; with its name where it is none of the settings."""
    if isinstance(error, RuntimeError):
        return f"{type(error).__name__}: {error}"
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.filename is not None:
        no_folder = isinstance(error, (FileExistsError, NotADirectoryError))
        hint = "; move away the file, or the link that leads nowhere, which has the name of a folder"
        return f"{error.filename}: {error.strerror}{hint if no_folder else ''}"  # without its number
    return str(error)


def console(width: int, stream: TextIO | None = None) -> Console:
    """Console for tables on `stream` (stdout); where that is no terminal, which has a width, of `width`.

    It prints names as they are: rich would take ``[red]`` in a path for a colour and ``:v:`` for a picture.
    """
    from rich.console import Console

    stream = sys.stdout if stream is None else stream
    return Console(file=stream, width=None if stream.isatty() else width, markup=False, emoji=False)


def usage(settings: type[Any], program: str) -> str:
    """Help text: the dataclass's docstring, then every key with its default and its limits."""
    known = _keys(settings)
    flags = "".join(f" [{_flag(key)}]" for key, kind in known if plain_type(kind) is bool)
    lines = [
        f"usage: {program} [key=value ...]{flags} [--trust MODULE]",
        "",
        inspect.cleandoc(settings.__doc__ or ""),
        "",
        "defaults:",
    ]
    defaults = OmegaConf.structured(settings)
    for key, kind in known:
        limit = limit_of(kind)
        lines.append(f"  {key}={OmegaConf.select(defaults, key)}" + (f"  ({limit})" if limit else ""))
    lines += ["", _TRUST]
    return "\n".join(lines) + "\n"


def _keys(settings: type[Any]) -> list[tuple[str, Any]]:
    return list(keys_of(settings).items())
