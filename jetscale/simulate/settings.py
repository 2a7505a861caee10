"""Settings of the simulator, and the list of files that follows from them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from jetscale.common.cli import check
from jetscale.common.fields import SEED, OneOf, Range, Replaced
from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import SPLITS, JetFile, jet_file
from jetscale.jets.datasets.jetclass import JETCLASS_NUMBERS, JETCLASS_PREFIXES
from jetscale.jets.datasets.jetclass2 import JETCLASS2_NUMBERS

MAX_JETS_PER_FILE = 100_000
"""Jets in a published file."""
DEFAULT_SHARE = {"val": 0.1, "test": 0.2}
"""Validation and test jets where their number is not given, as a share of `n_jets`."""
EQUAL_BUCKETS = dict.fromkeys(JETCLASS2_NUMBERS, 1.0)

_JETS = Range(0, 10_000_000_000)


@dataclass
class Settings:
    """Simulate jets in the formats of JetClass and JetClass-II.

    Files are named and numbered as the published ones. The same command again skips finished files and
    continues unfinished ones. The content depends on the seed alone, not on the number of workers.

    Attributes
    ----------
    dataset : jetclass or jetclass2
    n_jets : number of training jets in all; JetClass classes get equal numbers
    n_val, n_test : validation and test jets in all (default: 10% and 20% of n_jets)
    classes : JetClass labels to simulate, e.g. [QCD,Hbb] (default: all ten)
    buckets : relative shares of the JetClass-II buckets, e.g. buckets.QCD=2 (default: equal; 0 leaves it out)
    jets_per_file : jets in a file, at most 100000; the last file of a split has the rest
    out : data directory; files are written to out/JetClass/Pythia and out/JetClassII/Pythia
    seed : of all random numbers
    workers : processes (default: one a core)
    mpi : multiparton interactions; off is several times faster and lowers the multiplicity
    """

    dataset: Annotated[str, OneOf("jetclass", "jetclass2")] = "jetclass"
    n_jets: Annotated[int, _JETS] = 100_000
    n_val: Annotated[int | None, _JETS] = None
    n_test: Annotated[int | None, _JETS] = None
    classes: list[Annotated[str, OneOf(*JETCLASS_PREFIXES)]] = field(default_factory=list)
    buckets: Annotated[dict[str, Annotated[float, Range(0, 1e12)]], Replaced()] = field(
        default_factory=lambda: dict(EQUAL_BUCKETS)
    )
    jets_per_file: Annotated[int, Range(1, MAX_JETS_PER_FILE)] = 10_000
    out: str = "data"
    seed: Annotated[int, SEED] = 0
    workers: Annotated[int | None, Range(1, 1_024)] = None
    mpi: bool = True


def n_workers(settings: Settings) -> int:
    """Worker processes to start."""
    return settings.workers or len(os.sched_getaffinity(0))


def plan(settings: Settings) -> list[tuple[JetFile, int]]:
    """Files to write and the number of jets in each, split by split.

    Raises
    ------
    UsageError
        Settings contradict the published formats or each other.
    """
    _check(settings)
    totals = {"train": settings.n_jets, "val": settings.n_val, "test": settings.n_test}
    files: list[tuple[JetFile, int]] = []
    for split in SPLITS:
        for process, jets in _per_process(settings, split, totals[split]):
            files += _files(settings, process, split, jets)
    return files


def _check(settings: Settings) -> None:
    check(settings)
    _refuse_settings_of_the_other_dataset(settings)
    if len(set(settings.classes)) != len(settings.classes):
        raise UsageError(f"classes: {settings.classes} names one twice")
    if unknown := set(settings.buckets) - set(JETCLASS2_NUMBERS):
        raise UsageError(
            f"buckets: no {', '.join(sorted(unknown))}; choose from {', '.join(JETCLASS2_NUMBERS)}"
        )
    if not any(settings.buckets.values()):
        raise UsageError(f"buckets={settings.buckets}: at least one share must be above 0")


def _refuse_settings_of_the_other_dataset(settings: Settings) -> None:
    """They would change nothing, and whoever gives them expects other jets."""
    if settings.dataset == "jetclass2" and settings.classes:
        raise UsageError(
            f"classes=[{','.join(settings.classes)}] belongs to dataset=jetclass, and dataset=jetclass2 was "
            "asked for: leave it out, or choose the buckets, as in 'buckets={QCD: 1}'"
        )
    if settings.dataset == "jetclass" and settings.buckets != EQUAL_BUCKETS:
        raise UsageError(
            f"buckets={settings.buckets} belongs to dataset=jetclass2, and dataset=jetclass was asked for: "
            "leave it out, or choose the labels, as in classes=[QCD,Hbb]"
        )


def _per_process(settings: Settings, split: str, total: int | None) -> list[tuple[str, int]]:
    """Processes and their jets in one split."""
    if settings.dataset == "jetclass":
        labels: Sequence[str] = settings.classes or tuple(JETCLASS_PREFIXES)
        if total is None:
            total = math.ceil(settings.n_jets * DEFAULT_SHARE[split] / len(labels)) * len(labels)
        each, left = divmod(total, len(labels))
        if left:
            name = {"train": "n_jets"}.get(split, f"n_{split}")
            raise UsageError(
                f"{name}={total} cannot be shared equally by {len(labels)} classes; "
                f"take {total - left} or {total - left + len(labels)}"
            )
        return [(JETCLASS_PREFIXES[label], each) for label in labels]
    if total is None:
        total = math.ceil(settings.n_jets * DEFAULT_SHARE[split])
    shares = {name: share for name, share in settings.buckets.items() if share > 0}
    edges, summed = [0], 0.0
    for share in shares.values():
        summed += share
        edges.append(round(total * summed / sum(shares.values())))
    return [(name, high - low) for name, low, high in zip(shares, edges[:-1], edges[1:], strict=True)]


def _files(settings: Settings, process: str, split: str, jets: int) -> list[tuple[JetFile, int]]:
    """Divide the jets of one process and split into numbered files."""
    numbering = JETCLASS_NUMBERS if settings.dataset == "jetclass" else JETCLASS2_NUMBERS[process]
    numbers = numbering[split]
    wanted = math.ceil(jets / settings.jets_per_file)
    if wanted > len(numbers):
        raise UsageError(
            f"{jets} {split} jets of {process} need {wanted} files of {settings.jets_per_file}; "
            f"the published numbering has {len(numbers)}: take jets_per_file={math.ceil(jets / len(numbers))}"
        )
    return [
        (
            jet_file(settings.dataset, process, numbers[index]),
            min(settings.jets_per_file, jets - index * settings.jets_per_file),
        )
        for index in range(wanted)
    ]
