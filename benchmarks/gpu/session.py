"""What has been measured so far, in a file that is written after every row, and the time that is left."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jetscale.common.files import write_json

NO_TIME = "no time left"


class Session:
    """The results of one call of the benchmark, within a time limit.

    A row or part that fails is recorded as ``{"error": ...}``, and the others go on: a card is lent for
    minutes.

    Parameters
    ----------
    out : the file of the results
    seconds : the time limit
    begun : `time.monotonic()` at which the time began to run; None for now

    Attributes
    ----------
    results : what the file holds: parts by name, in them rows by name; seconds of each part
    """

    def __init__(self, out: Path, seconds: float, begun: float | None = None) -> None:
        self._out = out
        self._end = (time.monotonic() if begun is None else begun) + seconds
        self._longest: dict[str, float] = {}
        self.results: dict[str, Any] = {"limit_s": seconds, "seconds": {}}

    def until(self, share: float) -> float:
        """Seconds until a share of the time has run; 0 where it has.

        Parameters
        ----------
        share : of the time limit, between 0 and 1
        """
        return max(0.0, self.left - (1 - share) * self.results["limit_s"])

    @property
    def left(self) -> float:
        """Seconds that are left, 0 where none is."""
        return max(0.0, self._end - time.monotonic())

    def part(self, name: str, work: Callable[[], object]) -> None:
        """Do a part, which adds its rows itself.

        Parameters
        ----------
        name : of the part
        work : calls `row`, or fills ``results[name]``
        """
        self.results.setdefault(name, {})
        start = time.monotonic()
        try:
            work()
        except Exception as error:
            traceback.print_exc()
            self.results[name]["error"] = _told(error)
        seconds = time.monotonic() - start
        self.results["seconds"][name] = round(seconds, 1)
        print(f"{name}: {seconds:.0f} s, {self.left:.0f} s left", flush=True)
        self._write()

    def row(self, part: str, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure one row and write it, unless less time is left than the longest row of its part took.

        Parameters
        ----------
        part, name : where it belongs
        measure : returns the row; it ends itself when no time is `left`
        """
        longest = self._longest.get(part, 0.0)
        if self.left <= longest:
            self.record(part, name, lambda: {"error": NO_TIME})
            return
        start = time.monotonic()
        self.record(part, name, measure)
        self._longest[part] = max(longest, time.monotonic() - start)

    def record(self, part: str, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Write one row, however little time is left; parameters as for `row`."""
        rows = self.results.setdefault(part, {})
        try:
            rows[name] = measure()
        except Exception as error:
            traceback.print_exc()
            rows[name] = {"error": _told(error)}
        print(part, name, rows[name], flush=True)
        self._write()

    def _write(self) -> None:
        write_json(self._out, self.results)


def measured(rows: Any) -> dict[int, dict[str, Any]]:
    """The rows of a part that are named after a width and hold no error, by width.

    Parameters
    ----------
    rows : a part of `Session.results`
    """
    return {int(name): row for name, row in rows.items() if name.isdigit() and "error" not in row}


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
