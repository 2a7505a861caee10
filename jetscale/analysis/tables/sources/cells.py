"""Several losses for one subset, N, D and seed: which column that nobody reads tells them apart.

Two compositions, learning rates or evaluation sets in one table would be fitted as if they were repeats, and
give an exponent that belongs to neither.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.tables.loss_table import LossTable
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

CELL = ["subset", "seed"]  # and N and D, or C where neither is known
REPEATS = re.compile(
    r"(random|data|model|init|run|torch|rng)?[ _.-]?"
    r"(seeds?|repeats?|repetitions?|replicas?|replicates?|trials?|reps?|folds?|copy|copies|init|draws?)"
    r"[ _.-]?(id|no|nr|number|idx|index)?",
    re.IGNORECASE,
)
SAME = 1e-3  # in ln N and ln D: counts that differ by less are of one cell
MANY = 100_000  # values beyond which only equal ones are of one level
APART = 1.3  # largest over smallest loss of a cell beyond which no repeat is
NAMED = 3  # columns


def one_loss_a_cell(losses: LossTable, unread: pd.DataFrame, *, best: bool) -> LossTable:
    """Refuse, reduce or name the cells with several losses.

    Parameters
    ----------
    losses : not yet checked; `losses.frame` has the index of `unread`.
    unread : the columns of the source that nothing reads.
    best : keep the lowest loss of each cell.

    Raises
    ------
    UsageError
        A column that is not a repeat's number splits cells.
    """
    frame = losses.frame
    levels = frame.assign(**{name: _levels(frame[name]) for name in ("n_params", "jets", "flops")})
    axes = ["flops"] if set(losses.absent) == {"N", "D"} else ["n_params", "jets"]
    cell = levels.groupby([*CELL, *axes, *(name for name in ("variant",) if name in frame)]).ngroup()
    size = frame.groupby(cell)["loss"].transform("size")
    several, cell_S = frame[size > 1], cell[size > 1]
    if not len(several):
        return losses
    cells = int(cell_S.nunique())
    if best:
        lowest = frame.loc[frame.groupby(cell)["loss"].idxmin()].sort_index()
        gone = len(frame) - len(lowest)
        text = f"the lowest loss of each of {cells} cells (N, D, subset, seed) is kept: {gone} rows go"
        return replace(losses, frame=lowest, warnings=[*losses.warnings, text])
    splitting = _splitting(cell_S, unread)
    conditions = [name for name in splitting if not REPEATS.fullmatch(name)]
    most = int(size.max())
    if conditions:
        raise UsageError(_question(losses, several, unread, conditions, cells, most))
    warnings = list(losses.warnings)
    if splitting:
        warnings.append(
            f"column {splitting[0]!r} is read by nothing: up to {most} losses share one N, D,"
            " subset and seed in"
            f" {cells} cells and are fitted as repeats; columns.seed={splitting[0]} reads it as the seed"
        )
    elif not several.assign(cell=cell_S).duplicated(["cell", "loss"], keep=False).all():
        warnings.append(
            f"up to {most} losses share one N, D, subset and seed in {cells} cells, and no further"
            " column tells"
            " them apart: they are fitted as repeats; best_of_cell=true keeps the lowest of each"
        )
    spread = several.groupby(cell_S)["loss"].agg(["min", "max"])
    mixed = int((spread["max"] > APART * spread["min"]).sum())
    if mixed:
        warnings.append(
            f"{mixed} cells of one N, D and seed hold losses more than 30% apart: "
            "are several evaluation sets mixed in it? select one with where=..."
        )
    return replace(losses, warnings=warnings)


def _levels(values: pd.Series[float]) -> NDArray[np.intp]:
    """Number of the level of each value; values within `SAME` of the lowest of a level are one."""
    unique, inverse = np.unique(np.log(values.to_numpy(float)), return_inverse=True)
    if len(unique) > MANY:
        return np.asarray(inverse)
    level, start = np.zeros(len(unique), dtype=np.intp), -np.inf
    for at, value in enumerate(unique):
        fresh = value > start + SAME
        start = value if fresh else start
        level[at] = level[at - 1] + fresh if at else 0
    return np.asarray(level[inverse])


def _splitting(cell: pd.Series[int], unread: pd.DataFrame) -> list[str]:
    """Unread columns whose value differs inside a cell and comes again elsewhere, the coarsest first.

    A column whose values hardly ever come twice is a measurement (an accuracy, a duration), not a condition.
    """
    from pandas.api.types import is_hashable

    found = []
    for name in unread.columns:
        values = unread.loc[cell.index, name]
        if not values.map(is_hashable).all():
            continue
        counts = values.value_counts(dropna=False)
        recurring = values.map(counts).fillna(counts.get(float("nan"), 1)) > 1
        if (
            counts.size > 1
            and recurring.mean() > 0.5
            and (values.groupby(cell).nunique(dropna=False) > 1).any()
        ):
            found.append((counts.size, str(name)))
    return [name for _, name in sorted(found, key=lambda entry: entry[0])]


def _question(
    losses: LossTable,
    several: pd.DataFrame,
    unread: pd.DataFrame,
    conditions: list[str],
    cells: int,
    most: int,
) -> str:
    name = conditions[0]
    values = [str(value) for value in unread.loc[several.index, name].drop_duplicates()[:NAMED]]
    shown = ", ".join(values) + (", ..." if unread.loc[several.index, name].nunique() > NAMED else "")
    others = f" (so do {', '.join(conditions[1:NAMED])})" if len(conditions) > 1 else ""
    quoted = f"`{name}`" if not name.isidentifier() else name
    return (
        f"{losses.source}: column {name!r} ({shown}) is read by nothing, but tells apart up to"
        f" {most} losses of one"
        f" N, D, subset and seed in {cells} cells{others}; subset by it: columns.subset={name},"
        " select one of its"
        f' values: where="{quoted} == ...", keep the best of each cell: best_of_cell=true, or, if it only'
        f" numbers repeats, columns.seed={name}"
    )
