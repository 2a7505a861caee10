"""Processes that must not outlive the process that started them: workers of pools, and joblib's workers."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_POLL_SECONDS = 1.0


def when_gone(parent: int, act: Callable[[], None]) -> None:
    """Call a function in a background thread once the parent process has ended, for whatever reason.

    Parameters
    ----------
    parent : process id of this process's parent; where it has ended already, `act` is called at once
    act : the function
    """

    def watch() -> None:
        with suppress(OSError, AttributeError):  # not every system has these; a process that is gone has none
            descriptor = os.pidfd_open(parent)
            try:
                if os.getppid() == parent:  # else it has ended, and another process may have its number
                    select.select([descriptor], [], [])
            finally:
                os.close(descriptor)
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        act()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def die_with_parent() -> None:
    """End this worker of a process pool when its parent ends; leave ctrl-C to the parent.

    The ``initializer`` of a `concurrent.futures.ProcessPoolExecutor`, whose workers would otherwise wait for
    ever for work from a parent that was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    when_gone(parent.pid, lambda: os._exit(1))
