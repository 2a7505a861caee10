"""Asked to stop soon: checkpoint after the step at hand, leave, go on later in the same directory.

Slurm sends SIGTERM to what it preempts or cancels, and SIGUSR2 (submitit's choice) before a time limit;
ctrl-C is SIGINT; a terminal that is closed sends SIGHUP, which ``nohup`` has a process ignore. While a phase
trains, each ends the process after the current step with a checkpoint and status `EXIT_STATUS` (`INTERRUPTED`
for ctrl-C, and a second one ends it at once). At other times they end it at once, which loses nothing: every
file is whole or absent.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_STATUS = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""
INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)

log = logging.getLogger(__name__)


Handler = Callable[[int, Any], object]


def hear(handler: Handler) -> dict[signal.Signals, Any]:
    """Have a handler called for every signal that asks this process to stop.

    Under ``nohup``, which has SIGHUP ignored, it stays ignored. Where SIGHUP comes, the terminal is closed
    and writing to it would fail, so from then on that goes to ``/dev/null``.

    Parameters
    ----------
    handler : called with the number of the signal and a frame

    Returns
    -------
    The handlers before, by signal, to put back.
    """

    def heard(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            _leave_the_terminal()
        handler(number, frame)

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    obeyed = [number for number in SIGNALS if not (ignored and number == signal.SIGHUP)]
    return {number: signal.signal(number, heard) for number in obeyed}


def _leave_the_terminal() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)


class Preempted(SystemExit):
    """The run was asked to stop and has a checkpoint of its last step; not a failure."""

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(INTERRUPTED if number == signal.SIGINT else EXIT_STATUS)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Notice:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def given(self) -> bool:
        """Whether it was asked."""
        return self.number is not None

    def taken(self) -> int:
        """Number of the signal, which is forgotten; SIGTERM where only another rank was asked."""
        number, self.number = self.number, None
        return signal.SIGTERM if number is None else number

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
            hear(self._note)

    def _note(self, number: int, _: object) -> None:
        if number == self.number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if number == signal.SIGINT:
            log.warning("interrupted; stopping after this step, with a checkpoint (ctrl-C again: at once)")
            self.number = number  # also after another signal, so that a second ctrl-C is seen as one
        elif self.number is None:
            self.number = number


NOTICE = Notice()
"""Of this process; it outlives a phase, so that one asked to stop at its last step stops in the next."""
