"""What a user can add by name: networks, datasets, launchers, measures, forms of the fit, sources of tables.

A room keeps one `Registry` for each kind of addition. Its own entries are named by where they are defined and
imported when they are asked for, so that ``--help`` pays for none of them. A user's module adds an entry with
the decorator `Registry.register` when it is imported: by the user's Python code, or by ``--trust MODULE`` on
any command line (`jetscale.common.trust`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from jetscale.common.fields import OneOf, nearest
from jetscale.common.usage import UsageError

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Entries of one kind by name.

    Parameters
    ----------
    kind : what one entry is, in the singular, for messages: "network"
    own : jetscale's own entries, name to ``"module:attribute"``
    """

    def __init__(self, kind: str, own: Mapping[str, str]) -> None:
        self.kind = kind
        self._homes = dict(own)
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that adds an entry under `name`.

        Raises
        ------
        UsageError
            The name is taken by another entry.
        """

        def add(entry: Entry) -> Entry:
            if name in self.names() and self._entries.get(name) is not entry:
                raise UsageError(
                    f"the {self.kind} {name!r} exists already; register yours under another name"
                )
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        """Names of all entries, jetscale's own first."""
        return list(dict.fromkeys([*self._homes, *self._entries]))

    def __getitem__(self, name: str) -> Entry:
        """The entry called `name`.

        Raises
        ------
        UsageError
            There is none; the nearest names are given.
        """
        if name not in self._entries:
            if name not in self._homes:
                hint = nearest(name, self.names(), f"{self.kind}s")
                raise UsageError(
                    f"{name!r} is no {self.kind} that is known here; {hint}; one of your own module is known "
                    "after --trust MODULE"
                )
            module, _, attribute = self._homes[name].partition(":")
            self._entries[name] = getattr(import_module(module), attribute)
        return self._entries[name]


class Registered(OneOf):
    """Limit of a settings field: the name of an entry of `registry`, as it is when the value is checked."""

    def __init__(self, registry: Registry[Any]) -> None:
        object.__setattr__(self, "registry", registry)

    @property
    def words(self) -> tuple[str, ...]:
        """Names of all entries."""
        registry: Registry[Any] = self.__dict__["registry"]
        return tuple(registry.names())

    def __str__(self) -> str:
        return f"{super().__str__()}, or one that --trust MODULE registers"
