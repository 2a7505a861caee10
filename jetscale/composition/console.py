"""Where tables go."""

from __future__ import annotations

from rich.console import Console

_WIDE = 140


def wide_console() -> Console:
    """Console of the terminal's width; a pipe or a file, which has none, gets one wide enough."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)
