"""A program on a terminal of its own, which can be closed like a window."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path


class Terminal:
    """A program on a pseudo-terminal of 100 x 30, as the leader of its session.

    Parameters
    ----------
    arguments : program and its arguments
    cwd : where it is started
    env : its environment; by default that of the tests
    """

    def __init__(
        self, *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environment = dict(os.environ if env is None else env) | {"TERM": "xterm"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            list(map(str, arguments)), stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=environment,
            start_new_session=True, preexec_fn=_take_the_terminal,
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self.master, False)
        self.text = ""

    def until(self, words: str, seconds: float = 30.0) -> None:
        """Read what is shown until it holds `words`, and forget it up to there."""
        end = time.monotonic() + seconds
        while words not in self.text:
            assert time.monotonic() < end, f"{words!r} is not in {self.text!r}"
            self._read()
        self.text = self.text.partition(words)[2]

    def close(self) -> int:
        """Wait until the program has ended, and return its status."""
        status = self.process.wait(30)
        self._read()
        os.close(self.master)
        return status

    def hang_up(self, seconds: float = 120.0) -> int:
        """Close the terminal while the program runs, wait until it has ended, and return its status."""
        os.close(self.master)
        return self.process.wait(seconds)

    def _read(self) -> None:
        try:
            self.text += os.read(self.master, 65536).decode()
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:  # the other end is closed
            time.sleep(0.02)


def _take_the_terminal() -> None:
    """In the new process: make it the session's terminal, whose end the kernel then tells it by SIGHUP."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        signal.signal(number, handler)  # tests started in the background inherit ignored ones
