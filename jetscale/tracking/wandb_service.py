"""The W&B client held at arm's length: its calls in a thread of their own, its service process stoppable."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any


class Sender:
    """Makes calls one after the other in a thread of its own; whoever hands them over never waits.

    The client blocks once the socket to its service is full, for ever if the service hangs.
    The thread is a daemon: a call that never returns does not keep the process from ending.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def put(self, call: Callable[[], Any]) -> None:
        """Queue `call`, which must not raise."""
        self._calls.put(call)

    def close(self, seconds: float) -> bool:
        """Let the queued calls be made, and take no more; whether all were within `seconds`."""
        self._calls.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def forget_service() -> None:
    """Part from the client's service process, broken or not, so that the next start gets a new one."""
    import wandb

    # where the service is gone this raises, and yet forgets it and its hook at exit
    with contextlib.suppress(Exception):
        wandb.teardown()


def kill_service() -> None:
    """Kill this process's own ``wandb-core``: one that hangs would be waited for at exit, for ever."""
    for child in service_processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def service_processes() -> list[int]:
    """Ids of the ``wandb-core`` processes that this process has started; none where there is no ``/proc``."""
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in children.read_text().split() if _name(child) == "wandb-core"]
    return found


def _name(process: str) -> str:
    return Path("/proc", process, "comm").read_text().strip()
