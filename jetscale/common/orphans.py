"""Processes that must not outlive the one that started them."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_POLL_SECONDS = 1.0


def when_gone(parent: int, act: Callable[[], None]) -> None:
    """Call `act` in a background thread once the parent process `parent` has ended, however it ended.

    At once where it has ended already.
    """

    def watch() -> None:
        with suppress(OSError, AttributeError):  # neither on every system; a process that is gone has none
            descriptor = os.pidfd_open(parent)
            try:
                if os.getppid() == parent:  # else it ended before, and its number may be another's
                    select.select([descriptor], [], [])
            finally:
                os.close(descriptor)
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        act()

    threading.Thread(target=watch, name="parent", daemon=True).start()
