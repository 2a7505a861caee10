"""What the metrics of finished runs tell about time."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from jetscale.runs.layout import METRICS
from jetscale.runs.metrics import read_metrics

_LOGGED = re.compile(r"\[(\S+ \S+?)\]\[\S+\]\[\w+\] - .*?: (.{1,40})")


def log_of(directory: Path, begun: float) -> list[tuple[float, str]]:
    """Seconds from a time to each line of a run's log, and how the line begins.

    Parameters
    ----------
    directory : the run directory
    begun : wall time in seconds since the epoch
    """
    found = (_LOGGED.match(line) for line in (directory / "train.log").read_text().splitlines())
    times = ((datetime.strptime(one[1], "%Y-%m-%d %H:%M:%S,%f"), one[2]) for one in found if one)
    return [(round(time.timestamp() - begun, 2), said) for time, said in times]


@dataclass(frozen=True)
class Window:
    """The time between two lines of the training loss.

    A line is written before the evaluation and the checkpoint of its step, so a window holds those of the
    step that it begins with.

    Attributes
    ----------
    steps, milliseconds : optimiser steps, and all that they took
    checkpoint, evaluation : whether it holds one
    """

    steps: int
    milliseconds: float
    checkpoint: bool
    evaluation: bool


@dataclass(frozen=True)
class Timeline:
    """One run.

    Attributes
    ----------
    lines : of the training loss
    evaluated : steps after which the test loss was taken
    began : wall time, in seconds since the epoch, at which the training began
    """

    lines: list[dict[str, Any]]
    evaluated: frozenset[int]
    began: float

    @classmethod
    def of(cls, directory: Path) -> Timeline:
        """Read a run that is finished or was stopped.

        Parameters
        ----------
        directory : the run directory

        Raises
        ------
        ValueError
            It has no line yet.
        """
        path = directory / METRICS
        lines = read_metrics(path)
        if not lines:
            raise ValueError(f"{path} has no line")
        return cls(
            lines=[line for line in lines if line["split"] == "train"],
            evaluated=frozenset(line["step"] for line in lines if line["split"] == "test"),
            # the file was last written to as it got its last line, whose seconds count from the beginning
            began=path.stat().st_mtime - lines[-1]["seconds"],
        )

    def windows(self, checkpoint_every: int) -> Iterator[Window]:
        """What lies between any two lines that follow one another.

        Parameters
        ----------
        checkpoint_every : of the run's settings
        """
        for before, after in itertools.pairwise(self.lines):
            inside = range(before["step"], after["step"])
            yield Window(
                steps=len(inside),
                milliseconds=1e3 * (after["seconds"] - before["seconds"]),
                checkpoint=any(step % checkpoint_every == 0 for step in inside),
                evaluation=not self.evaluated.isdisjoint(inside),
            )

    def step_ms(self, checkpoint_every: int) -> float:
        """Milliseconds a step: median over windows of the second half without checkpoint and evaluation."""
        windows = list(self.windows(checkpoint_every))
        plain = [
            window.milliseconds / window.steps
            for window in windows[len(windows) // 2 :]
            if not window.checkpoint and not window.evaluation
        ]
        return statistics.median(plain)

    def checkpoint_ms(self, checkpoint_every: int) -> float | None:
        """Milliseconds of a checkpoint: what windows that hold one take beyond their steps, on average.

        None where no window holds one and no evaluation.
        """
        step = self.step_ms(checkpoint_every)
        excess = [
            window.milliseconds - step * window.steps
            for window in self.windows(checkpoint_every)
            if window.checkpoint and not window.evaluation
        ]
        return statistics.fmean(excess) if excess else None

    def first_line(self) -> float:
        """Wall time of the first line."""
        return float(self.began + self.lines[0]["seconds"])

    def steps_at(self, times: Sequence[float]) -> list[float]:
        """Steps done at given wall times, a line between two metrics lines."""
        seconds = [self.began + line["seconds"] for line in self.lines]
        return [float(np.interp(time, seconds, [line["step"] for line in self.lines])) for time in times]


def steps_per_second(timelines: Sequence[Timeline]) -> float:
    """Steps a second of all runs together, while all of them were training.

    From the moment at which the last of them has written its first line, to the one at which the first of
    them has written its last. All that happens in between counts, checkpoints and evaluations too.

    Raises
    ------
    ValueError
        They were never training all at once.
    """
    begin = max(timeline.first_line() for timeline in timelines)
    end = min(timeline.began + timeline.lines[-1]["seconds"] for timeline in timelines)
    if end <= begin:
        raise ValueError("one run had ended before another had begun: take more steps")
    done = 0.0
    for timeline in timelines:
        before, after = timeline.steps_at([begin, end])
        done += after - before
    return float(done / (end - begin))
