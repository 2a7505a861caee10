"""Gain over scratch as a function of D: what pretraining saves at every amount of fine-tuning data.

For every subset and width that the table also holds from scratch, at log-spaced D (fine-tuning jets):

- ``difference``: ln L_subset(D) - ln L_scratch(D), from the test losses of the fitted weights as they were
  taken, joined by straight lines in ln D. No running minimum, no smoothing, no cut: a minimum of noisy
  points is biased, and the plateau of scratch is part of the gain.
- ``multiplier``: D' / D, where scratch's mean curve first has the subset's loss at D'; null where it has not.
- ``same_jets``, ``same_flops``: the difference from scratch given the same total, pretraining included; in
  jets, and in FLOPs by counted constituents and each phase's own N. Negative: pretraining has paid back its
  own compute. Null beyond the end of scratch's curves.

Errors of a mean over seeds: the scatter between seeds (of differences inside a seed where both have it: seeds
share the order of jets and the start of the head) plus that of the test jets, which all seeds share. The
latter is the infinitesimal jackknife over test blocks, the variance of their bootstrap without its draws.
Adding them counts the test noise of each single model twice: intervals err to the wide side. Half-widths of
both, each with its own Student's t, are added in quadrature: such intervals hold the truth in 95.0 to 98.7%
for 2, 3 and 5 seeds and any ratio of the two (Satterthwaite's degrees of freedom: 87 to 95%). One
seed says nothing about the scatter between runs: then there is no interval.

Shapes: S seeds (or runs), T evaluations of a run, B test blocks, G points of the grid in ln D.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import Quantity
from jetscale.analysis.tables.test_blocks import MIN_FILLED_BLOCKS, BlockLosses, keys_of
from jetscale.analysis.tables.variants import REFERENCE, counterpart, split_name

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

ROUNDING = 1e-9  # of ln D, at the ends of a curve
NAMED = 6  # sizes in a warning
POINTS = 12  # a curve, besides the last where scratch with the same total can be compared


@dataclass(frozen=True)
class Run:
    """Test losses of one run, ascending in D.

    Attributes
    ----------
    log_D, log_L : (T,).
    influence : (T, B), what each test block adds to ln L, summing to 0; None where blocks are not known.
    flops : of pretraining, and of a fine-tuning jet, by counted constituents; NaN where not counted.
    """

    seed: str
    log_D: Array
    log_L: Array
    influence: Array | None
    pretrain_jets: float
    pretrain_flops: float
    flops_per_jet: float

    def at(self, log_D: float) -> tuple[float, Array | None]:
        """Loss (ln L) at this ln D, and its influence; NaN outside the curve."""
        if not self.log_D[0] - ROUNDING <= log_D <= self.log_D[-1] + ROUNDING:
            return np.nan, None
        after = int(np.clip(np.searchsorted(self.log_D, log_D), 1, len(self.log_D) - 1))
        part = (log_D - self.log_D[after - 1]) / (self.log_D[after] - self.log_D[after - 1])
        weight = np.array([1 - part, part])
        here = slice(after - 1, after + 1)
        log_L = float(weight @ self.log_L[here])
        return log_L, None if self.influence is None else weight @ self.influence[here]


@dataclass(frozen=True)
class Difference:
    """A difference of means over seeds; parts of its variance, each with its degrees of freedom."""

    value: float
    parts: tuple[tuple[float, int], ...] = ()  # none for one seed

    @property
    def sd(self) -> float | None:
        """Standard deviation."""
        return float(np.sqrt(sum(variance for variance, _ in self.parts))) if self.parts else None

    @property
    def reach(self) -> float | None:
        """Half-width of the 95% interval."""
        from scipy.special import stdtrit

        squares = [variance * stdtrit(dof, 0.975) ** 2 for variance, dof in self.parts]
        return float(np.sqrt(sum(squares))) if squares else None

    def quantity(self) -> Quantity:
        """As results.json has it."""
        if self.reach is None:
            return Quantity(self.value if np.isfinite(self.value) else None)
        return Quantity(self.value, self.sd, (self.value - self.reach, self.value + self.reach))


def gains(
    frames: dict[str, pd.DataFrame], blocks: BlockLosses | None, reference: str = REFERENCE
) -> tuple[dict[str, Any], list[str]]:
    """Gains by subset, one entry a width, and warnings; both empty where the table has no scratch.

    Parameters
    ----------
    frames : test losses of the weights that are fitted, by group, with N as it is in the table.
    reference : what to compare with instead, such as a narrow composition for what diversity gains; totals
        do not count its own pretraining.
    """
    found: dict[str, Any] = {}
    warnings: list[str] = []
    sizes = (
        {name: _by_size(frame, blocks) for name, frame in frames.items()} if _has(frames, reference) else {}
    )
    for name in sizes:
        other = counterpart(name, frames, reference)
        if other is None:
            if reference not in (name, split_name(name)[0]):
                warnings.append(f"no gain of {name}: no variant of {reference} has its settings")
            continue
        scratch = sizes[other]
        entries = []
        absent = [f"{size[1]:g}" for size in sizes[name] if size not in scratch]
        if absent:
            shown = ", ".join(absent[:NAMED]) + (", ..." if len(absent) > NAMED else "")
            what = next(iter(sizes[name]))[0]
            warnings.append(f"no gain of {name} at {what} = {shown}: {other} has no curve of the same size")
        for size, runs in sizes[name].items():
            if size not in scratch:
                continue
            entry = None
            problem = _problem(runs) or _problem(scratch[size])
            if not problem:
                entry = _entry(size, *paired(runs, scratch[size]))
                problem = "" if entry else "its curves and those of scratch share no range of D"
            if problem:
                warnings.append(f"no gain of {name} at {size[0]} = {size[1]:g}: {problem}")
            else:
                entries.append(entry)
        if entries:
            found[name] = entries
    return found, warnings


def _has(names: Iterable[str], reference: str) -> bool:
    return any(reference in (name, split_name(name)[0]) for name in names)


def paired(subset: list[Run], scratch: list[Run]) -> tuple[list[Run], list[Run], bool]:
    """Runs of the seeds that both have, in one order; all runs, unpaired, where too few seeds agree.

    Parameters
    ----------
    subset, scratch : runs of one size.

    Returns
    -------
    The runs chosen of each, and whether they are paired by seed.
    """
    common = sorted({run.seed for run in subset} & {run.seed for run in scratch})
    if len(common) < min(2, len(subset), len(scratch)):
        return subset, scratch, False
    chosen = ([run for seed in common for run in runs if run.seed == seed] for runs in (subset, scratch))
    return next(chosen), next(chosen), True


def compare(
    subset: list[Run], scratch: list[Run], pairs: bool, log_D: float, scratch_log_D: list[float]
) -> Difference:
    """Mean of ln L of `subset` at `log_D` less that of `scratch`, each run at its own ln D.

    Parameters
    ----------
    subset, scratch : runs.
    pairs : whether they are paired, in one order.
    log_D : ln D at which the runs of the subset are read.
    scratch_log_D : ln D for each run of scratch.

    Returns
    -------
    Difference of ln L; its value is NaN where a curve does not reach there.
    """
    one = [run.at(log_D) for run in subset]
    other = [run.at(x) for run, x in zip(scratch, scratch_log_D, strict=True)]
    log_L, reference = (np.array([value for value, _ in values]) for values in (one, other))
    if not (np.isfinite(log_L).all() and np.isfinite(reference).all()):
        return Difference(np.nan)
    value = float(log_L.mean() - reference.mean())
    samples = [log_L - reference] if pairs else [log_L, reference]
    if min(map(len, samples)) < 2:
        return Difference(value)
    parts = [(float(sample.var(ddof=1)) / len(sample), len(sample) - 1) for sample in samples]
    influence_B = _mean_influence(one, other)
    if influence_B is not None:
        B = len(influence_B)
        parts.append((float(influence_B @ influence_B) * B / (B - 1), B - 1))
    return Difference(value, tuple(parts))


def multiplier(difference: Difference, scratch: list[Run], log_D: float) -> tuple[Quantity, float | None]:
    """D' / D at which scratch's mean curve first has the same loss, and the least it can be (of 95%).

    Its interval inverts that of the difference along the curve; None where an end of it is not on the curve.

    Parameters
    ----------
    difference : of ln L at `log_D`, subset less scratch.
    scratch : its runs.
    log_D : ln D of the subset.

    Returns
    -------
    D' / D with its interval, and the lower end of the interval.
    """
    # scratch's mean curve, on the D of all its runs, over the range that all of them have
    first, last = max(run.log_D[0] for run in scratch), min(run.log_D[-1] for run in scratch)
    grid = np.unique(np.concatenate([run.log_D for run in scratch]))
    grid = grid[(grid >= first) & (grid <= last)]
    mean = np.mean([np.interp(grid, run.log_D, run.log_L) for run in scratch], axis=0)
    # the loss of the subset is scratch's at the same D plus the difference: where is scratch first so low?
    level = float(np.interp(log_D, grid, mean)) + difference.value
    value, reach = _first_reached(grid, mean, level), difference.reach
    ratio = float(np.exp(value - log_D)) if np.isfinite(value) else None
    if reach is None or difference.sd is None:
        return Quantity(ratio), None
    # a higher level is reached earlier: the upper end of the loss gives the lower end of D'
    low, high = (_first_reached(grid, mean, level + shift) for shift in (reach, -reach))
    at_least = float(np.exp(min(low, last) - log_D))
    if ratio is None or not np.isfinite([low, high]).all():
        return Quantity(ratio), at_least
    # the width of the interval in ln D' over that in ln L is the slope that carries the standard deviation
    sd = ratio * (high - low) / (2 * reach) * difference.sd if reach > 0 else 0.0
    return Quantity(ratio, sd, (at_least, float(np.exp(high - log_D)))), at_least


def _first_reached(x: Array, y: Array, level: float) -> float:
    """Where `y`, joined by straight lines, first is as low as `level`; inf: nowhere; -inf: before `x`."""
    below = np.flatnonzero(y <= level)
    if not len(below):
        return np.inf
    if below[0] == 0:
        return float(x[0]) if y[0] == level else -np.inf
    k = int(below[0])
    return float(x[k - 1] + (x[k] - x[k - 1]) * (y[k - 1] - level) / (y[k - 1] - y[k]))


def _entry(
    size: tuple[str, float], subset: list[Run], scratch: list[Run], pairs: bool
) -> dict[str, Any] | None:
    """One width; None where the curves share no range of D."""
    first = max(run.log_D[0] for run in subset + scratch)
    last = min(run.log_D[-1] for run in subset + scratch)
    if not first < last:
        return None
    pretrain_jets = float(np.mean([run.pretrain_jets for run in subset]))
    grid = np.linspace(first, last, POINTS)
    end = np.exp(min(run.log_D[-1] for run in scratch))
    if pretrain_jets > 0 and np.exp(first) < end - pretrain_jets < np.exp(last):
        grid = np.unique(np.append(grid, np.log(end - pretrain_jets)))
    return {
        size[0]: size[1],
        "seeds": [run.seed for run in subset],
        "scratch_seeds": [run.seed for run in scratch],
        "paired": pairs,
        "test_blocks": all(run.influence is not None for run in subset + scratch),
        "pretrain_jets": pretrain_jets,
        "curve": [_point(subset, scratch, pairs, float(log_D), pretrain_jets) for log_D in grid],
    }


def _point(
    subset: list[Run], scratch: list[Run], pairs: bool, log_D: float, pretrain_jets: float
) -> dict[str, Any]:
    D = float(np.exp(log_D))
    difference = compare(subset, scratch, pairs, log_D, [log_D] * len(scratch))
    ratio, at_least = multiplier(difference, scratch, log_D)
    flops = float(np.mean([run.pretrain_flops + D * run.flops_per_jet for run in subset]))
    same_jets = [np.log(D + pretrain_jets)] * len(scratch)
    same_flops = [float(np.log(flops / run.flops_per_jet)) for run in scratch]
    return {
        "jets": D,
        "difference": difference.quantity(),
        "multiplier": ratio,
        "multiplier_at_least": at_least,
        "total_jets": D + pretrain_jets,
        "same_jets": compare(subset, scratch, pairs, log_D, same_jets).quantity(),
        "total_flops": flops,
        "same_flops": compare(subset, scratch, pairs, log_D, same_flops).quantity(),
    }


def _mean_influence(
    one: list[tuple[float, Array | None]], other: list[tuple[float, Array | None]]
) -> Array | None:
    """Influence of the test blocks on the difference of the means, (B,)."""
    means = []
    for values in (one, other):
        known = [influence for _, influence in values if influence is not None]
        if len(known) < len(values):
            return None
        means.append(np.mean(known, axis=0))
    return np.asarray(means[0] - means[1])


def _by_size(frame: pd.DataFrame, blocks: BlockLosses | None) -> dict[tuple[str, float], list[Run]]:
    """Curves of a subset by width (by N where the table has no widths), ascending; final losses are none."""
    found: dict[tuple[str, float], list[Run]] = {}
    for _, rows in frame.groupby("run", sort=True):
        if len(rows) < 2:
            continue
        dim, N = float(rows["dim"].iloc[0]), float(rows["n_params"].iloc[0])
        size = ("dim", dim) if np.isfinite(dim) else ("n_params", N)
        found.setdefault(size, []).append(_run(rows.sort_values("jets"), blocks))
    return dict(sorted(found.items()))


def _run(rows: pd.DataFrame, blocks: BlockLosses | None) -> Run:
    last = rows.iloc[-1]

    def fact(name: str) -> float:
        return float(last[name]) if name in rows else np.nan

    pretrain_jets = fact("pretrain_jets")
    own = blocks.select(keys_of(rows)) if blocks is not None else None
    influence = None
    if own is not None and (own.jets_EB > 0).sum(axis=1).min() >= MIN_FILLED_BLOCKS:
        total_E = np.asarray(own.loss_sum_EB.sum(axis=1, keepdims=True))
        influence = own.loss_sum_EB / total_E - own.jets_EB / own.jets_EB.sum(axis=1, keepdims=True)
    return Run(
        seed=str(last["seed"]),
        log_D=np.log(rows["jets"].to_numpy(float)),
        log_L=np.log(rows["loss"].to_numpy(float)),
        influence=influence,
        pretrain_jets=pretrain_jets,
        pretrain_flops=6 * fact("pretrain_n_params") * fact("pretrain_constituents"),
        flops_per_jet=6 * float(last["n_params"]) * float(last["constituents"]) / float(last["jets"]),
    )


def _problem(runs: list[Run]) -> str:
    """Why these runs are not seeds of one thing; "" where they may be.

    Run directories and W&B are refused with two such runs; a foreign table may hold them.
    """
    seeds = [run.seed for run in runs]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if not twice:
        return ""
    return f"seed {twice[0]} has {seeds.count(twice[0])} runs, which differ in more than the seed"
