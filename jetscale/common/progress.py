"""What a command says while it works: how far it is, how long it takes, and what it waits for.

Every command looks alike. On a terminal a bar is the last line of stderr, and it goes when the work is done;
elsewhere the command writes a plain line now and then, without any control character:

``simulate: 1,000 of 5,000 jets, 47 s left, 85 jets/s``

A process shows one bar at a time: work inside other work that has a bar shows none.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.live import Live

QUIET_SECONDS = 30.0
"""Between two lines where there is no bar."""
PATIENCE_SECONDS = 1.0
"""A wait that is shorter is not worth a line."""
_REDRAWN = 2.0  # times a second, by a thread: 1 ms each
_BAR = (8, 40)  # cells of a bar at least and at most
_HUSHED = ("numexpr",)  # tells how many threads it has, in the middle of a run
_LONGEST_NAME = 44  # a run named after many overrides must not push its numbers off the screen

Say = Callable[[str], object]

_name = ""
_bars = True
_console: Console | None = None
_open: list[Progress] = []


def to_stderr(text: str) -> None:
    """Write one line to stderr, above the bar where there is one."""
    if on_terminal():
        console().print(text, soft_wrap=True)
    else:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def on_terminal() -> bool:
    """Whether stderr is a terminal that can show a bar."""
    return sys.stderr.isatty() and not console().is_dumb_terminal


def console() -> Console:
    """The console of stderr: bars, and the lines above them."""
    global _console
    if _console is None:
        from rich.console import Console

        _console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return _console


def without_bars() -> None:
    """From now on write lines alone: other processes write to the same terminal."""
    global _bars
    _bars = False


@contextmanager
def named(name: str) -> Iterator[None]:
    """Name the run that this process works on, in every bar and every line of progress inside.

    Parameters
    ----------
    name : such as ``qcd dim=8 seed=0``, so that lines of parallel runs can be told apart
    """
    global _name
    before, _name = _name, shortened(name)
    try:
        yield
    finally:
        _name = before


def of_run(text: str) -> str:
    """`text` after the name of the run that this process works on; as it is where there is none."""
    return f"{_name}: {text}" if _name else text


class Progress:
    """How far a piece of work is, as a bar or as lines; a context manager.

    Parameters
    ----------
    title : what is done
    total : how much there is to do; with 0 nothing is shown
    unit : what is counted, in the plural
    say : takes a line where there is no bar, and the last line; None: none is written
    every : seconds between two lines
    bar : whether to show a bar where stderr is a terminal
    done : how much an earlier start has done
    rated : whether to show units per second
    closing : whether to write a last line when all is done, in place of the bar too
    """

    def __init__(
        self,
        title: str,
        total: float,
        unit: str,
        *,
        say: Say | None = to_stderr,
        every: float = QUIET_SECONDS,
        bar: bool = True,
        done: float = 0,
        rated: bool = False,
        closing: bool = True,
    ) -> None:
        self.title = f"{_name} {title}" if _name else title
        self.total, self.unit, self.done = total, unit, done
        self._before = done
        self._say, self._every = say, every
        self._state, self._next = "", 0.0
        self._began = self._updated = self._told = time.monotonic()
        self._bar_wanted, self._rated, self._closing = bar, rated, closing
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._began = self._updated = self._told = time.monotonic()
        if self._bar_wanted and _bars and self.total and not _open and on_terminal():
            from rich.live import Live

            self._live = Live(
                self,
                console=console(),
                refresh_per_second=_REDRAWN,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # what goes to a pipe goes there
            )
            self._live.start(refresh=True)
        _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open.remove(self)
        if self._live is not None:
            self._live.stop()
            self._live = None
        if error is None and self._say is not None and self._closing and self.done >= self.total > 0:
            taken = f"{self._counted()} in {duration(time.monotonic() - self._began)}"
            self._say(f"{self.title}: {_listed(taken, *self._rest())}")

    def update(self, done: float, state: str = "") -> None:
        """Tell that `done` of all is done.

        Parameters
        ----------
        done : in the unit of the whole
        state : what else there is to tell
        """
        self.done, self._state, self._updated = done, state, time.monotonic()
        if self._live is not None or self._say is None or done >= self.total:
            return
        if self._updated - self._told >= self._every:
            self._told = self._updated
            self._say(f"{self.title}: {_listed(self._counted(), self._left(), *self._rest())}")

    def step(self, what: str, size: float = 1.0) -> None:
        """Tell that the step before is done and which one begins.

        Parameters
        ----------
        what : the new step
        size : how much of the whole it is
        """
        self.update(self.done + self._next, what)
        self._next = size

    @property
    def rate(self) -> float:
        """Units per second since the work began."""
        return (self.done - self._before) / max(self._updated - self._began, 1e-9)

    def _left(self) -> str:
        if self.rate <= 0:
            return ""
        since = time.monotonic() - self._updated
        return f"{duration(max((self.total - self.done) / self.rate - since, 0.0))} left"

    def _rest(self) -> list[str]:
        digits = ",.0f" if self.rate >= 1 else ".2g"
        return [f"{self.rate:{digits}} {self.unit}/s" if self._rated and self.rate > 0 else "", self._state]

    def _counted(self) -> str:
        return f"{self.done:,.0f} of {self.total:,.0f} {self.unit}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        """Title, bar, share, time left and state, in one line: where room is short, the bar goes first."""
        from rich.cells import cell_len, set_cell_size
        from rich.progress_bar import ProgressBar
        from rich.segment import Segment

        width = options.max_width - 3  # the ^C of a ctrl-C stays in the line, and goes with it
        text = f" {_listed(percent(self.done / self.total), self._left(), *self._rest())}"
        room = min(width - cell_len(self.title) - 1 - cell_len(text), _BAR[1])
        if room < _BAR[0]:
            line = f"{self.title}{text}"
            yield Segment(line if cell_len(line) <= width else f"{set_cell_size(line, width - 1)}…")
            return
        yield Segment(f"{self.title} ")
        yield ProgressBar(total=self.total, completed=self.done, width=room)
        yield Segment(text)


def step(what: str, size: float = 1.0) -> None:
    """`Progress.step` of the work that this process shows; where it shows none, nothing.

    For steps deep inside a computation, which also runs in notebooks and tests, where nobody watches.

    Parameters
    ----------
    what : the new step
    size : how much of the whole it is
    """
    if _open:
        _open[-1].step(what, size)


@contextmanager
def in_parts(
    title: str, unit: str = "MB", say: Say | None = None, size: float = 1e6
) -> Iterator[Callable[[str, int, int], None]]:
    """Progress of work in parts, one after the other, each with a bar of its own.

    Parameters
    ----------
    title : what is done
    unit, say : as in `Progress`
    size : of the unit; by default that of a MB in bytes

    Returns
    -------
    To be called with a part ("reading"), how much of it is done, and all of it.
    """
    with ExitStack() as stack:
        shown: dict[str, Progress] = {}

        def report(part: str, done: int, total: int) -> None:
            if part not in shown:
                stack.pop_all().close()
                bar = Progress(
                    f"{title} {part}".strip(), total / size, unit,
                    say=say, done=done / size, rated=size > 1, closing=False,
                )  # fmt: skip
                shown[part] = stack.enter_context(bar)
            shown[part].update(done / size)

        yield report


@contextmanager
def waiting(what: str, say: Say) -> Iterator[None]:
    """Say what is being waited for, in one line, where it takes longer than `PATIENCE_SECONDS`.

    Parameters
    ----------
    what : such as ``importing PyTorch and Lightning``
    say : takes the line
    """
    timer = wait_for(what, say)
    try:
        yield
    finally:
        timer.cancel()


def wait_for(what: str, say: Say) -> threading.Timer:
    """Begin what `waiting` does; the caller cancels the timer when the wait is over."""
    timer = threading.Timer(PATIENCE_SECONDS, say, [of_run(f"{what} ...")])
    timer.daemon = True
    timer.start()
    return timer


def log_above_the_bar() -> None:
    """Have the log write short lines above the bar, where it writes to a terminal that can show one.

    Handlers that write to a file or a pipe stay as they are.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler and handler.stream.isatty() and on_terminal():
            root.removeHandler(handler)
            root.addHandler(_AboveTheBar(handler.level))


class _AboveTheBar(logging.Handler):
    """Writes the message alone: the run's own log file has time, place and level."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(_HUSHED) and record.levelno < logging.WARNING:
            return
        try:
            text = self.format(record)
            if _name and not text.startswith(_name):
                text = of_run(text)
            to_stderr(f"warning: {text}" if record.levelno >= logging.WARNING else text)
        except Exception:  # as every handler of the standard library
            self.handleError(record)


def _listed(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def shortened(name: str) -> str:
    """`name`, its end cut where it is longer than a line has room for."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def percent(share: float | None) -> str:
    """``45%``, rounded down, so that 100% is whole; ``?`` for what is unknown."""
    return "?" if share is None else f"{int(100 * min(max(share, 0.0), 1.0))}%"


def duration(seconds: float | None) -> str:
    """``45 s``, ``12 min``, ``3h20``, ``5d04h``; ``unknown`` for None."""
    if seconds is None:
        return "unknown"
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60}h{minutes % 60:02d}"
    return f"{hours // 24}d{hours % 24:02d}h"
