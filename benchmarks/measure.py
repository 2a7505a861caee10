"""Shared by all benchmarks: a row of ``results.json``, and timing of several ways in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Row = dict[str, Any]
Rows = dict[str, Row]
Way = Callable[[], object]


def row(ours: float, reference: float, target: float, unit: str, *, floor: float | None = None) -> Row:
    """A cost: ours over the reference's, at most `target`.

    Parameters
    ----------
    ours, reference : in `unit`
    floor : the least that `ours` could be on this machine, in `unit`, where it can be told
    """
    ratio = ours / reference
    return _row(ratio, target, ratio <= target, ours, reference, unit, floor)


def speedup(ours: float, reference: float, target: float, unit: str, *, floor: float | None = None) -> Row:
    """A gain: times over ours, at least `target`."""
    ratio = reference / ours
    return _row(ratio, target, ratio >= target, ours, reference, unit, floor)


def share(ours: float, reference: float, target: float, unit: str) -> Row:
    """A rate: ours over the reference's, at least `target`."""
    ratio = ours / reference
    return _row(ratio, target, ratio >= target, ours, reference, unit, None)


def _row(
    ratio: float, target: float, met: bool, ours: float, reference: float, unit: str, floor: float | None
) -> Row:
    made = {"ratio": ratio, "target": target, "met": met, "ours": ours, "reference": reference, "unit": unit}
    return made if floor is None else made | {"floor": floor}


def in_turn(
    ways: Mapping[str, Way], seconds: float, rounds: tuple[int, int], settle: float = 0.0
) -> dict[str, float]:
    """Median processor seconds of each way, all of them once a round.

    A change of clock or a busy neighbour hits every way alike, and processor time leaves out what other
    processes take.

    Parameters
    ----------
    seconds : rounds go on for so long
    rounds : at least and at most so many
    settle : a way runs for so long before its own timed part, which is as long: others have driven what it
        uses out of the caches, and out of the allocator's lists
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    start = time.process_time()
    for number in range(rounds[1]):
        if number >= rounds[0] and time.process_time() - start > seconds:
            break
        for name, way in ways.items():
            _times(way, settle)
            times[name] += _times(way, settle)
    return {name: statistics.median(found) for name, found in times.items()}


def _times(way: Way, seconds: float) -> list[float]:
    found: list[float] = []
    while not found or sum(found) < seconds:
        start = time.process_time()
        way()
        found.append(time.process_time() - start)
    return found
