"""The flags of Hydra's command line, read without running Hydra.

Hydra documents its flags but keeps its parser to itself. Three checks need to know which words of a command
line are flags, which are values of flags and which are overrides, before Hydra sees any of them.
`tests/launch/test_hydra_flags.py` compares this table with Hydra's own parser.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import NoReturn

import hydra

from jetscale.common.usage import UsageError


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes
    ----------
    names : its spellings, the long one first
    value : whether it needs a value (``required``), may have one (``optional``), or has none
    choices : the values that it takes; empty for any text
    """

    names: tuple[str, ...]
    value: str = "none"
    choices: tuple[str, ...] = ()


FLAGS = (
    Flag(("--help", "-h")),
    Flag(("--hydra-help",)),
    Flag(("--cfg", "-c"), "required", ("job", "hydra", "all")),
    Flag(("--resolve",)),
    Flag(("--package", "-p"), "required"),
    Flag(("--run", "-r")),
    Flag(("--multirun", "-m")),
    Flag(("--shell-completion", "-sc")),
    Flag(("--config-path", "-cp"), "required"),
    Flag(("--config-name", "-cn"), "required"),
    Flag(("--config-dir", "-cd"), "required"),
    Flag(("--experimental-rerun",), "required"),
    Flag(
        ("--info", "-i"),
        "optional",
        ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    ),
)
"""Every flag of Hydra 1.3 but ``--version``, which prints and exits."""

NEEDING_A_VALUE = frozenset(name for flag in FLAGS if flag.value == "required" for name in flag.names)
"""Spellings of the flags whose value is the next word."""


OPTIONAL_VALUE = {name: flag.choices for flag in FLAGS if flag.value == "optional" for name in flag.names}
"""Spellings of the flags whose value may be left out, each with the values that it takes."""


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see --help")


def flags_parser() -> argparse.ArgumentParser:
    """Parser of a command line as Hydra 1.3 takes it.

    Returns
    -------
    Parser whose result has one attribute a flag (``multirun``, ``config_dir``, ...), and ``overrides``, the
    list of the ``key=value`` words. It raises `UsageError` where a flag lacks its value or has a wrong one.
    """
    parser = _Parser(add_help=False)
    parser.add_argument("--version", action="version", version=f"Hydra {hydra.__version__}")
    parser.add_argument("overrides", nargs="*")
    for flag in FLAGS:
        choices = flag.choices or None
        if flag.value == "none":
            parser.add_argument(*flag.names, action="store_true")
        elif flag.value == "required":
            parser.add_argument(*flag.names, choices=choices)
        else:
            parser.add_argument(*flag.names, choices=choices, nargs="?", const="all")
    return parser
