"""The error of this room."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from jetscale.common.usage import UsageError

MOST_LISTED = 20
"""Problems listed at once."""

log = logging.getLogger(__name__)

_mentioned: set[str] = set()


class JetDataError(UsageError):
    """Jet data that cannot be used as asked; the message names file, entry and value, and how to mend it."""


class JetsRunOut(JetDataError):
    """A single pass over the jets that are there is shorter than what was asked for."""


def raise_problems(problems: Sequence[str], heading: str = "files cannot be used") -> None:
    """Nothing without `problems`; otherwise one error that lists them, up to `MOST_LISTED`.

    Raises
    ------
    JetDataError
        There are problems. The message of a single one stands alone.
    """
    if len(problems) == 1:
        raise JetDataError(problems[0])
    if problems:
        lines = [f"{len(problems)} {heading}:", *problems[:MOST_LISTED]]
        if len(problems) > MOST_LISTED:
            lines.append(f"... and {len(problems) - MOST_LISTED} more")
        raise JetDataError("\n  ".join(lines))


def mention_once(key: str, message: str) -> None:
    """Warn of what is no error, once a process for each `key`."""
    if key not in _mentioned:
        _mentioned.add(key)
        log.warning(message)
