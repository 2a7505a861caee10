"""The errors that every command shows as one line instead of a traceback."""

from __future__ import annotations


class UsageError(Exception):
    """The command line, or a file or value it names, cannot be used; the message says how to repair it."""


def install_extra(extra: str) -> str:
    """The command that installs an optional part, for the message of a command that finds it missing.

    Parameters
    ----------
    extra : a name of ``[project.optional-dependencies]`` in pyproject.toml

    Returns
    -------
    ``pip install '.[EXTRA]'``, and where to type it: jetscale is installed from its source.
    """
    return f"pip install '.[{extra}]' in jetscale's folder"


class SettingsError(ValueError):
    """A configuration that cannot be run; the message names the key, the value and what is needed."""
