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

CONDITION_LEVELS = 20  # values of a column beyond which it is a description, not a condition
CONDITION_ROWS = 4  # of a value, from which it is one
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


def unread_conditions(losses: LossTable, unread: pd.DataFrame) -> list[str]:
    """Name columns of words that nothing reads, though runs of several sizes and D differ in them.

    Two datasets or splits whose N and D never meet share no cell, and would be fitted as one law without a
    word. A column with one size to a word (a model's name) is a description.

    Parameters
    ----------
    losses : not yet checked; `losses.frame` has the index of `unread`.
    unread : the columns of the source that nothing reads.
    """
    from pandas.api.types import is_bool_dtype, is_hashable, is_numeric_dtype

    frame = losses.frame
    axes = {"N": "n_params", "D": "jets", "C": "flops"}
    known = {axis: _levels(frame[axes[axis]]) for axis in ("N", "D") if axis not in losses.absent}
    known = known or {"C": _levels(frame["flops"])}
    found = []
    for name in map(str, unread.columns):
        words = unread[name]
        if (is_numeric_dtype(words) and not is_bool_dtype(words)) or REPEATS.fullmatch(name):
            continue
        if not words.map(is_hashable).all() or not 1 < words.nunique() <= CONDITION_LEVELS:
            continue
        table = frame[["subset"]].assign(word=words.astype(str), **known)
        of_word = table.groupby(["subset", "word"])
        broad = (of_word.size() >= CONDITION_ROWS) & (of_word[list(known)].nunique() > 1).all(axis=1)
        if broad.groupby("subset").sum().max() > 1:
            shown = ", ".join(words.drop_duplicates().astype(str)[:NAMED])
            more = ", ..." if words.nunique() > NAMED else ""
            found.append(
                f"column {name!r} ({shown}{more}) is read by nothing, though runs differ in it: they are"
                f" fitted as one law; columns.subset={name} fits them apart"
            )
    return found


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
