"""Asked to stop soon: checkpoint after the step at hand, leave, go on later in the same directory.

Slurm sends SIGTERM to what it preempts or cancels, and SIGUSR2 (submitit's choice) before a time limit. While
a
phase trains, either ends the process after the current step with a checkpoint and status `EXIT_STATUS`.
At other times they end it at once, which loses nothing: every file is whole or absent.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_STATUS = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class Preempted(SystemExit):
    """The run was asked to stop and has a checkpoint of its last step; not a failure."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_STATUS)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Notice:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.given = False

    @contextmanager
    def restoring_handlers(self) -> Iterator[None]:
        """Put the handlers of `SIGNALS` back at the end, whatever `listen` and Lightning did to them."""
        if threading.current_thread() is not threading.main_thread():
            yield  # handlers belong to the main thread
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """From now on note the signals; Lightning's own handlers, set before, would act on them at once."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.given = True


NOTICE = Notice()
"""Of this process; it outlives a phase, so that one asked to stop at its last step stops in the next."""
