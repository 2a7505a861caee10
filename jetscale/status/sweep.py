"""A sweep: its runs, planned and found, in groups of one subset, width and variant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from jetscale.common.usage import UsageError
from jetscale.runs.layout import (
    BACKBONES,
    DONE,
    IDENTITY,
    MARKS,
    PATH_PATTERN,
    SWEEP_PLAN,
    Place,
    place_of,
)
from jetscale.runs.search import folders_below
from jetscale.status.one_run import PHASES, STATES, RunStatus, read_run
from jetscale.status.reading import Reader, whole


@dataclass
class Group:
    """Runs of one subset, width and variant, which differ in their seed.

    Where several sweeps are looked at, the subset's name begins with that of the sweep.
    """

    subset: str
    dim: int
    variant: str
    runs: list[RunStatus] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Runs by state; every state is a key."""
        return count(self.runs)

    @property
    def progress(self) -> float | None:
        """Mean of its runs' progress; None where one is unknown."""
        return mean([run.progress for run in self.runs])

    @property
    def jets_per_second(self) -> float | None:
        """Throughput of one run: the median of the running ones, else of the done ones."""
        for state in ("running", "done"):
            speeds = [run.jets_per_second for run in self.runs if run.state == state]
            known = [speed for speed in speeds if speed is not None]
            if known:
                return median(known)
        return None

    @property
    def measured(self) -> list[RunStatus]:
        """The runs whose losses are averaged: the done ones, or if there are none, all that have a loss."""
        done = [run for run in self.runs if run.state == "done"]
        return [run for run in done or self.runs if run.test_loss]

    @property
    def test_loss(self) -> dict[str, float]:
        """Newest test loss by weights, mean over the seeds of `measured`."""
        runs = self.measured
        weights = sorted({name for run in runs for name in run.test_loss}, reverse=True)
        return {name: fmean(run.test_loss[name] for run in runs if name in run.test_loss) for name in weights}

    @property
    def over(self) -> bool:
        """Whether every run is done or failed."""
        return all(run.state in ("done", "failed") for run in self.runs)

    @property
    def error(self) -> str | None:
        """The error of its last failed run."""
        errors = [run.error for run in self.runs if run.state == "failed" and run.error]
        return errors[-1] if errors else None


@dataclass
class Sweep:
    """The status of a sweep at one time.

    Attributes
    ----------
    path : its folder
    planned : whether ``plan.json`` lists the waiting runs; without it only runs that have begun are known
    groups : in the order of subset (as planned) and width
    seconds : run time that each unfinished run still needs, by directory; None where no rate is measured yet
    notes : what could not be read
    """

    path: Path
    planned: bool
    groups: list[Group]
    seconds: dict[str, float | None]
    notes: list[str]

    @property
    def runs(self) -> list[RunStatus]:
        """All runs."""
        return [run for group in self.groups for run in group.runs]

    @property
    def counts(self) -> dict[str, int]:
        """Runs by state."""
        return count(self.runs)

    @property
    def progress(self) -> float | None:
        """Mean of all runs' progress; None without a plan, or where one run's is unknown."""
        return mean([run.progress for run in self.runs]) if self.planned else None

    @property
    def jets_per_second(self) -> float:
        """Throughput of all running runs together."""
        return sum(run.jets_per_second or 0.0 for run in self.runs if run.state == "running")

    @property
    def run_seconds_left(self) -> float | None:
        """Run time still needed by all runs that have not failed; None while a part is unknown."""
        return self.seconds_left_of(self.runs) if self.planned else None

    @property
    def seconds_left(self) -> float | None:
        """Time to the end with as many runs at once as now; None where that is unknown."""
        total, runners = self.run_seconds_left, self.counts["running"]
        if total == 0.0:
            return 0.0
        if total is None or runners == 0:
            return None
        longest = max((seconds or 0.0 for seconds in self.seconds.values()), default=0.0)
        return max(total / runners, longest)

    @property
    def over(self) -> bool:
        """Whether every run is done or failed."""
        return all(group.over for group in self.groups)

    @property
    def unmeasured(self) -> list[int]:
        """Widths whose time left is unknown."""
        return sorted({group.dim for group in self.groups if self.seconds_left_of(group.runs) is None})

    def seconds_left_of(self, runs: Iterable[RunStatus]) -> float | None:
        """Run time still needed by `runs`, failed ones left out; None where one is unknown."""
        left = [self.seconds[run.directory] for run in runs if run.state not in ("done", "failed")]
        return None if None in left else sum(seconds or 0.0 for seconds in left)


@dataclass
class Watcher:
    """Reads one sweep again and again; unchanged files of finished runs are read once.

    Attributes
    ----------
    path : the sweep's folder
    reader : reads its files
    """

    path: Path
    reader: Reader = field(default_factory=Reader)

    def look(self) -> Sweep:
        """Read the present status of the sweep.

        Raises
        ------
        UsageError
            There is no such folder, or no run in it.
        """
        if not self.path.is_dir():
            raise UsageError(f"{self.path}: no such folder; name that of a sweep, multirun/<study>")
        self.reader.notes.clear()
        root = self.path.resolve()
        plan = _plan(root, self.reader)
        runs = plan or {}
        for name, place in _places(root, self.reader).items():
            runs.setdefault(name, RunStatus(name, place))
        if not runs:
            raise UsageError(
                f"{self.path}: no run below it (no {SWEEP_PLAN}, no {PATH_PATTERN}); name the folder of a "
                "sweep, multirun/<study>"
            )
        for name, run in runs.items():
            read_run(run, root / name, root.parent / BACKBONES, self.reader)
        _refuse_copies(runs.values())
        unverified = sorted(name for name, run in runs.items() if not run.verified)
        if unverified:
            self.reader.note(
                f"{len(unverified)} runs, such as {unverified[0]}, are of an earlier version, without "
                "checksums: their files could not be verified"
            )
        groups = _groups(runs.values())
        seconds = _seconds_left(groups)
        return Sweep(self.path, plan is not None, groups, seconds, list(self.reader.notes))


def count(runs: Iterable[RunStatus]) -> dict[str, int]:
    """Runs by state; every state is a key."""
    found = Counter(run.state for run in runs)
    return {state: found[state] for state in STATES}


def mean(values: list[float | None]) -> float | None:
    """Mean, or None where a value is unknown."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _plan(root: Path, reader: Reader) -> dict[str, RunStatus] | None:
    """Planned runs by directory, or None without a plan that can be read."""
    path = root / SWEEP_PLAN
    content = reader.json_object(path)
    if content is None:
        return None
    entries = content.get("runs")
    if not isinstance(entries, list):
        reader.note(f"{path} has no list 'runs'; which runs wait is not known")
        return None
    found = {}
    for entry in entries:
        run = _planned(entry)
        if run is None:
            reader.note(f"{path} has a run without directory, subset, dim or seed; it is left out")
        else:
            found[run.directory] = run
    return found


def _planned(entry: Any) -> RunStatus | None:
    if not isinstance(entry, dict):
        return None
    directory, subset = entry.get("directory"), entry.get("subset")
    dim, seed = whole(entry, "dim"), whole(entry, "seed")
    if not isinstance(directory, str) or not isinstance(subset, str) or dim is None or seed is None:
        return None
    named = place_of(Path("/", directory))
    place = Place(subset, dim, seed, named.variant if named else "")
    run = RunStatus(directory.rstrip("/"), place)
    run.steps = {phase: whole(entry, "steps", phase) for phase in PHASES}
    return run


def _places(root: Path, reader: Reader) -> dict[str, Place]:
    """Place of every run directory below `root`, by its path from there."""
    found = {}
    for folder, names in sorted(folders_below(root, reader.note)):
        place = place_of(folder)
        if place is not None and names & MARKS:
            found[folder.relative_to(root).as_posix()] = place
        elif names & {IDENTITY, DONE} and folder.parent.name != BACKBONES:
            reader.note(f"{folder} holds a run, but is not named {PATH_PATTERN}; it is left out")
    return found


def _refuse_copies(runs: Iterable[RunStatus]) -> None:
    """Count a finished run once; its copies, which would pass for other seeds, become failed."""
    done: dict[tuple[str, Place], list[RunStatus]] = {}
    for run in runs:
        if run.state == "done":
            done.setdefault((run.sweep, run.place), []).append(run)
    for (_, place), same in done.items():
        same.sort(key=lambda run: not run.directory.endswith(place.path))  # the rightly named one first
        for copy in same[1:]:
            copy.state, copy.test_loss = "failed", {}
            copy.error = f"holds {place.title}, as {same[0].directory} does; remove the copy"


def _groups(runs: Iterable[RunStatus]) -> list[Group]:
    groups: dict[tuple[str, str, int], Group] = {}
    subsets: dict[str, int] = {}
    for run in runs:
        place = run.place
        subset = f"{run.sweep}/{place.subset}" if run.sweep else place.subset
        subsets.setdefault(subset, len(subsets))
        key = (subset, place.variant, place.dim)
        group = groups.setdefault(key, Group(subset, place.dim, place.variant))
        group.runs.append(run)
    for group in groups.values():
        group.runs.sort(key=lambda run: run.place.seed)
    return [groups[key] for key in sorted(groups, key=lambda key: (subsets[key[0]], *key[1:]))]


def _seconds_left(groups: list[Group]) -> dict[str, float | None]:
    """Run time left of each run, from measured seconds per step.

    They are those of the run itself, else of its group, else of its width: other subsets train the same model
    on other jets. Other widths are not used, so a width without a measurement has no time (None).
    """
    left: dict[str, float | None] = {}
    for group in groups:
        width = [run for other in groups if other.dim == group.dim for run in other.runs]
        rates = _rates(width) | _rates(group.runs)
        left |= {run.directory: _left(run, rates) for run in group.runs}
    return left


def _rates(runs: Iterable[RunStatus]) -> dict[str, float]:
    """Median of the measured seconds per step, by phase."""
    measured: dict[str, list[float]] = {}
    for run in runs:
        for phase, seconds in run.seconds_per_step.items():
            measured.setdefault(phase, []).append(seconds)
    return {phase: median(seconds) for phase, seconds in measured.items()}


def _left(run: RunStatus, rates: dict[str, float]) -> float | None:
    if run.state == "done":
        return 0.0
    total = 0.0
    for phase in PHASES:
        steps = run.steps[phase]
        if steps is None:
            return None
        remaining = max(0, steps - run.made[phase])
        if remaining == 0:
            continue
        rate = run.seconds_per_step.get(phase, rates.get(phase))
        if rate is None:
            return None
        total += remaining * rate
    return total
