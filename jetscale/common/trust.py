"""``--trust MODULE``: which Python code outside jetscale a command may import and call.

A configuration file may come from a stranger, so it cannot name code to run (see
`jetscale.common.config_safety`). The person who types the command can: ``--trust my_lab`` imports the module
``my_lab`` (from the current folder, or installed), which registers what it adds, and lets ``_target_`` name
anything inside it. The names
are kept in the environment variable `VARIABLE`, which child processes inherit; what starts processes that
inherit no environment (`jetscale.launch.composing`, `jetscale.launch.packs`) sends the names along.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from jetscale.common.usage import UsageError

FLAG = "--trust"
VARIABLE = "JETSCALE_TRUST"


def trusted() -> list[str]:
    """Names of the modules that the user trusts, in the order given."""
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]


def is_trusted(target: str) -> bool:
    """Whether the dotted name `target` lies in a module that the user trusts."""
    return any(target == name or target.startswith(f"{name}.") for name in trusted())


def take_trust(argv: Sequence[str]) -> list[str]:
    """Import the modules that a command line trusts, and those that the environment names.

    Parameters
    ----------
    argv : words of the command line, without the program

    Returns
    -------
    The words without the flag and its values.

    Raises
    ------
    UsageError
        The flag has no module behind it, or a module cannot be imported.
    """
    rest: list[str] = []
    names = trusted()
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag != FLAG:
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not value or value.startswith("-"):
            raise UsageError(f"{FLAG} needs the name of a module, e.g. {FLAG} my_lab")
        names += value.split(",")
    trust(names)
    return rest


def trust(names: Sequence[str]) -> None:
    """Trust modules besides those that are trusted already, here and in child processes, and import all.

    Raises
    ------
    UsageError
        A module cannot be imported.
    """
    if names:
        os.environ[VARIABLE] = ",".join(dict.fromkeys([*trusted(), *names]))
    import_trusted()


def import_trusted() -> None:
    """Import every trusted module, so that it registers what it adds; a second time costs nothing.

    Raises
    ------
    UsageError
        A module cannot be imported.
    """
    here = str(Path.cwd())
    for name in trusted():
        if "" not in sys.path and here not in sys.path:
            sys.path.insert(0, here)
        try:
            import_module(name)
        except ImportError as error:
            raise UsageError(
                f"{FLAG} {name}: cannot be imported ({error}); run in the folder that holds it, or install it"
            ) from error
