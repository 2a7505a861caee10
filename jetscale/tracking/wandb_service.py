"""The W&B client, kept from delaying a run: its calls in their own thread, its service process stoppable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

import psutil

SERVICE = "wandb-core"
"""Name of the process that the client starts and sends its data to."""


class Sender:
    """Makes calls one after the other in its own thread, so that the caller never waits.

    The client blocks once the socket to its service is full, for ever if the service hangs. The thread is a
    daemon: a call that never returns does not keep the process from ending.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def put(self, call: Callable[[], Any]) -> None:
        """Queue `call`, which must not raise."""
        self._calls.put(call)

    def close(self, seconds: float) -> bool:
        """Take no more calls, and wait for the queued ones; returns whether they took less than `seconds`."""
        self._calls.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def forget_service() -> None:
    """Disconnect from the client's service process, broken or not, so that the next start gets a new one."""
    import wandb

    # where the service is gone this raises, but still forgets the service and the hook at exit
    with contextlib.suppress(Exception):
        wandb.teardown()


def kill_service() -> None:
    """Kill this process's own service, which hangs: at exit the client would wait for it, for ever.

    `wandb.teardown` waits for the service too, and W&B has no call that ends it at once.
    """
    for service in service_processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            service.kill()


def service_processes() -> list[psutil.Process]:
    """The services that this process has started and that have not ended."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() == SERVICE:
                found.append(child)
    return found
