"""Settings dataclasses: their keys, what each key may hold, and the line that refuses anything else.

A limit is written with the type of a field, ``dim: Annotated[int, Range(1, 8192)]``, and nowhere else: the
command lines, configuration files, ``--help`` and the reference of the documentation all read it there.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`; an end that `without` names does not belong to it."""

    low: float
    high: float = math.inf
    without: Literal["", "low", "high"] = ""

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of these numbers."""
        above = self.low < value if self.without == "low" else self.low <= value
        below = value < self.high if self.without == "high" else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        low = f"above {_number(self.low)}" if self.without == "low" else f"of at least {_number(self.low)}"
        if math.isinf(self.high):
            return low
        if not self.without:
            return f"from {_number(self.low)} to {_number(self.high)}"
        high = f"below {_number(self.high)}" if self.without == "high" else f"at most {_number(self.high)}"
        return f"{low} and {high}"


@dataclass(frozen=True, init=False)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "words", words)

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of the words."""
        return value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(word or "'' (empty)" for word in self.words)


@dataclass(frozen=True)
class Matches:
    """Text of a form: all of it matches `pattern`; `words` say what other text cannot be."""

    pattern: str
    words: str

    def holds(self, value: Any) -> bool:
        """Whether the whole of `value` matches."""
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Replaced:
    """Marks a mapping that a later one replaces as a whole, where OmegaConf would merge the two."""


SEED = Range(0, 2**32 - 1)
"""Seeds of every command."""
COUNT = Range(1, 1_000_000_000)
"""Steps, jets, and whatever else there is at least one of."""
WORKERS = Range(0, 1_024)
"""Processes; 0 where the command says what that means."""

Limit = Range | OneOf | Matches


def keys_of(settings: type[Any], prefix: str = "") -> dict[str, Any]:
    """Every key as a user types it (``finetune.steps``), with its annotated type."""
    found: dict[str, Any] = {}
    for name, kind in _hints(settings).items():
        if _is_group(kind):
            found |= keys_of(kind, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = kind
    return found


def replaced_keys(settings: type[Any]) -> list[str]:
    """Keys of the mappings that a later one replaces."""
    return [
        key
        for key, kind in keys_of(settings).items()
        if any(isinstance(mark, Replaced) for mark in getattr(kind, "__metadata__", ()))
    ]


def problems(settings: type[Any], content: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """One line for every key of the nested `content` that does not exist or whose value is out of its limits.

    Values with an interpolation (``${...}``) are passed over: they are known only when resolved.
    """
    hints = _hints(settings)
    for name, value in content.items():
        key = f"{prefix}{name}"
        if name not in hints:
            yield unknown(key, keys_of(settings, prefix), "key")
        elif _is_group(hints[name]):
            if isinstance(value, Mapping):
                yield from problems(hints[name], value, f"{key}.")
            else:
                first = next(iter(keys_of(hints[name], f"{key}.")))
                yield f"{key}={_shown(value)}: a group of keys, set one of them, for example {first}=VALUE"
        elif not (isinstance(value, str) and "${" in value):
            try:
                take(key, hints[name], value)
            except ValueError as error:
                yield str(error)


def take(key: str, kind: Any, value: Any) -> Any:
    """`value` as the type `kind` of field `key`, which may be annotated with limits.

    Raises
    ------
    ValueError
        It has another type or is out of the limits; one line with the key, the value and what is needed.
    """
    plain, limits, optional = _parts(kind)
    if value is None and (optional or plain is Any):
        return None
    if get_origin(plain) is dict:
        return _taken_mapping(key, plain, value)
    if get_origin(plain) is list:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{key}={_shown(value)}: must be a list, [{_shown(value)}]")
        return [take(key, get_args(plain)[0], one) for one in value]
    try:
        taken: Any = _CONVERSIONS[plain](value) if plain in _CONVERSIONS else value
        fits = all(limit.holds(taken) for limit in limits)
        fits = fits and (plain is not float or math.isfinite(taken))
    except (KeyError, ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        verb = "cannot" if any(isinstance(limit, Matches) for limit in limits) else "must"
        raise ValueError(f"{key}={_shown(value)}: {verb} be {expected(kind)}{_instead(plain, limits, value)}")
    return taken


def expected(kind: Any) -> str:
    """Describe in words what a field of this type may hold: ``a whole number from 1 to 8192, or null``."""
    plain, limits, optional = _parts(kind)
    if plain is dict or get_origin(plain) is dict:
        return f"a mapping, each value {expected(get_args(plain)[1])}"
    if get_origin(plain) is list:
        return f"a list, each entry {expected(get_args(plain)[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(plain, "")
    if plain is str and limits:
        words = ""
    text = " ".join(part for part in (words, *map(str, limits)) if part) or "any value"
    return f"{text}, or null" if optional else text


def unknown(word: str, known: Iterable[str], what: str) -> str:
    """The line that refuses `word`, with the nearest of the `known` ones."""
    return f"unknown {what} {word!r}; {nearest(word, list(known), what + 's')}"


def nearest(word: str, known: list[str], what: str) -> str:
    """``did you mean A, B?``: by the whole, or else by the last part; else all there are."""
    near = difflib.get_close_matches(word, known, n=3)
    if not near:
        last = word.rpartition(".")[2]
        lasts = {key.rpartition(".")[2] for key in known}
        ends = difflib.get_close_matches(last, sorted(lasts), n=2, cutoff=0.75)
        near = [key for key in known if key.rpartition(".")[2] in ends][:3]
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"{what}: {', '.join(known) or 'none'}"


def plain_type(kind: Any) -> Any:
    """The type itself, without limits and null: ``int`` of ``Annotated[int | None, Range(0)]``."""
    return _parts(kind)[0]


def is_optional(kind: Any) -> bool:
    """Whether null may stand for a value."""
    return _parts(kind)[2]


def entry_type(kind: Any) -> Any:
    """Type of the entries where `kind` is a mapping, else None."""
    plain = plain_type(kind)
    return get_args(plain)[1] if get_origin(plain) is dict else None


def limit_of(kind: Any) -> str:
    """Its limits in words; empty without."""
    plain, limits, _ = _parts(kind)
    inner = get_args(plain)[-1:] if get_origin(plain) in (dict, list) else ()
    return ", ".join([*map(str, limits), *(text for text in map(limit_of, inner) if text)])


_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(settings: type[Any]) -> dict[str, Any]:
    if settings not in _HINTS:  # a sweep asks for every file of every job
        hints = get_type_hints(settings, include_extras=True)
        _HINTS[settings] = {field.name: hints[field.name] for field in fields(settings)}
    return _HINTS[settings]


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _parts(kind: Any) -> tuple[Any, list[Limit], bool]:
    """Plain type, limits and whether null may stand for it, of ``Annotated[int | None, Range(0)]``."""
    limits: list[Limit] = []
    optional = False
    while True:
        if get_origin(kind) is Annotated:
            limits += [one for one in kind.__metadata__ if isinstance(one, (Range, OneOf, Matches))]
            kind = kind.__origin__
        elif get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind):
            optional = True
            (kind,) = (one for one in get_args(kind) if one is not NoneType)
        else:
            return kind, limits, optional


def _taken_mapping(key: str, kind: Any, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}={_shown(value)}: must be {{NAME: VALUE, ...}}, or {key}.NAME=VALUE")
    taken = {str(name): take(f"{key}.{name}", get_args(kind)[1], one) for name, one in value.items()}
    if len(taken) < len(value):
        raise ValueError(f"{key}={_shown(value)}: one name is there twice")
    return taken


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    return float(value)


def _switch(value: Any) -> bool:
    return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[
        str(value).lower()
    ]


def _text(value: Any) -> str:
    if value is None or isinstance(value, (Mapping, list, tuple)):
        raise TypeError
    return str(value)


_CONVERSIONS: dict[Any, Callable[[Any], Any]] = {int: _whole, float: _real, bool: _switch, str: _text}


def _instead(plain: Any, limits: list[Limit], value: Any) -> str:
    """How to write it right, where that can be told."""
    if plain is int and isinstance(value, (float, str)):
        try:
            number = float(value)
        except ValueError:
            return ""
        if math.isfinite(number) and number == int(number) and all(one.holds(int(number)) for one in limits):
            return f"; write {int(number)}"
    words = [word for one in limits if isinstance(one, OneOf) for word in one.words if word]
    near = difflib.get_close_matches(str(value).lower(), words, n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: Any) -> str:
    text = str(value) if not isinstance(value, str) or (value and value.isprintable()) else repr(value)
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    return text if len(text) <= 80 else f"{text[:77]}..."


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) and abs(value) < 10**12 else f"{value:g}"
