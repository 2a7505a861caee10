"""Call a function in a forked process, so that a signal that ends it is a result like any other."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

SECONDS = 120
"""A call that takes longer is ended by a signal."""


@dataclass
class Outcome:
    """What became of a call.

    Attributes
    ----------
    value : what the function returned
    error : type and message of what it raised
    log : messages of level warning and above
    signal : number of the signal that ended the process
    where : last lines of the traceback, for whoever looks for the reason
    """

    value: str = ""
    error: str = ""
    log: list[str] = field(default_factory=list)
    signal: int = 0
    where: str = ""

    def names(self, name: str) -> bool:
        """Whether the error or the log has a name in it."""
        return any(name in text for text in (self.error, *self.log))


def in_child(function: Callable[[], str]) -> Outcome:
    """Outcome of ``function()`` in a child process. Files that it changes stay changed."""
    with tempfile.TemporaryFile("w+") as told:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _call(function, told.fileno())
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return Outcome(signal=os.WTERMSIG(status))
        told.seek(0)
        text = told.read()
        if not text:
            return Outcome(error=f"exit status {os.WEXITSTATUS(status)}")
        return Outcome(**json.loads(text))


def _call(function: Callable[[], str], told: int) -> None:
    """Never returns."""
    outcome = Outcome()
    try:
        faulthandler.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        logging.getLogger().addHandler(_Keeper(outcome.log))
        outcome.value = function()
    except BaseException as error:
        outcome.error = f"{type(error).__name__}: {error}"
        outcome.where = "".join(traceback.format_exception(error)[-3:])
    os.write(told, json.dumps(asdict(outcome)).encode())
    os._exit(0)


class _Keeper(logging.Handler):
    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record.getMessage())
