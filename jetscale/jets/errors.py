"""The error of this room."""

from __future__ import annotations

from jetscale.cli import UsageError


class JetDataError(UsageError):
    """Jet data that cannot be used as asked; the message names file, entry and value, and how to mend it."""
