"""The error that every command shows as one line instead of a traceback."""

from __future__ import annotations


class UsageError(Exception):
    """The command line, or a file or value it names, cannot be used; the message says how to repair it."""
