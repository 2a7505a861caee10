"""The loss table: one row per (run, step, split, weights), the one input of every fit.

Columns of `LossTable.frame` (floats unless said): run (str), subset (str), variant (str, what the runs of a
subset vary besides width and seed; "" for nothing), dim (NaN where unknown),
seed (str), n_params, n_params_KIND (where the runs count kinds), step, jets, constituents (NaN where not
counted), flops, split (str), weights (str), loss; from run directories also warmup and schedule (steps),
pretrain_jets, pretrain_constituents, pretrain_n_params (0 from scratch), lr (peak rate of fine-tuning) and
rate (FLOP/s). For foreign tables `jets` holds D in whatever sample the table counts; those without a run
column have `row` (str), the number of the source's row, from 0; those with a column of weights have
`point_weight`. What a table does not give of N, D and C (`LossTable.absent`) is 1 in every row.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from jetscale.analysis.tables.origins import Origin
    from jetscale.analysis.tables.test_blocks import BlockLosses

WEIGHT = "point_weight"
PRETRAIN_JETS = "pretrain_jets"
POSITIVE = ("n_params", "jets", "flops", "loss")
SYMBOLS = {"n_params": "N", "jets": "D", "flops": "C", WEIGHT: "weight"}
"""What a user calls a column, as in ``columns.N=NAME``."""
MAX_ROWS = 2_000_000
MAX_LOSS = 1e3  # nats; a cross-entropy beyond is another quantity or another unit


@dataclass(frozen=True)
class LossTable:
    """A checked loss table.

    Attributes
    ----------
    frame : pandas DataFrame with the columns of the module's docstring, in canonical order (a permutation of
        the rows of the source gives the same frame).
    source : where it came from, for messages and the report.
    flops_per_param_sample : k / N of the cost C = k D: 6 for tokens, 240 for the paper's jets.
    sample : what D counts: "jet", or "sample" where the table does not say.
    warnings : what was noticed while reading.
    blocks : test losses by block, where the source has them.
    settings : of runs that tell them: those that decide numbers, by run and dotted key; see
        `jetscale.analysis.tables.variants`.
    absent : which of N, D and C the source does not give; the loss is then fitted as a law of the other.
    origins : where runs and their jets come from, by run; of runs whose record tells.
    """

    frame: pd.DataFrame
    source: str
    flops_per_param_sample: float
    sample: str = "sample"
    warnings: list[str] = field(default_factory=list)
    blocks: BlockLosses | None = None
    settings: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    absent: tuple[str, ...] = ()
    origins: dict[str, Origin] = field(default_factory=dict, repr=False)

    def groups(self) -> dict[str, pd.DataFrame]:
        """Rows of every group (subset and variant), by its name, sorted."""
        names = names_of_groups(self.frame)
        return {str(name): rows for name, rows in self.frame.groupby(names, sort=True)}

    @property
    def own_runs(self) -> bool:
        """Whether jetscale's own runs are in it, whose D are jets."""
        return self.sample == "jet"

    def __str__(self) -> str:
        frame = self.frame
        lines = [f"loss table of {self.source}: {len(frame)} rows, {frame['run'].nunique()} runs"]
        for subset, rows in self.groups().items():
            lines.append(
                f"  {subset}: {rows['run'].nunique()} runs, {rows['n_params'].nunique()} sizes, "
                f"N {rows['n_params'].min():.3g} to {rows['n_params'].max():.3g}, "
                f"D {rows['jets'].min():.3g} to {rows['jets'].max():.3g} {self.sample}s"
            )
        return "\n".join(lines + [f"  warning: {text}" for text in self.warnings])


def group_name(subset: str, variant: str) -> str:
    """Name of the runs of one subset and variant, which are fitted together."""
    return f"{subset} [{variant}]" if variant else subset


def names_of_groups(frame: pd.DataFrame) -> pd.Series[str]:
    """Name of the group of every row."""
    subset = frame["subset"].astype(str)
    if "variant" not in frame:  # a table that an earlier version wrote
        return subset
    variant = frame["variant"].astype(str)
    return subset.where(variant == "", subset + " [" + variant + "]")


def checked(table: LossTable) -> LossTable:
    """Hold the rules every fit relies on and put the rows in canonical order.

    Raises
    ------
    UsageError
        A value that is not finite or not positive, two losses for one evaluation, too many rows, no row.
    """
    frame = table.frame
    if not len(frame):
        raise UsageError(f"{table.source}: no loss in it")
    if len(frame) > MAX_ROWS:
        raise UsageError(
            f"{table.source}: {len(frame):,} rows, more than {MAX_ROWS:,}; keep the rows to fit (final"
            " losses, or a few tens of points a run), for instance with where=... or a coarser evaluation"
        )
    check_values(frame, table.source)
    if "variant" not in frame:
        frame = frame.assign(variant="")
    frame, warnings = _without_repeats(frame, table.source)
    _one_size_a_run(frame, table.source)
    order = ["subset", "variant", "n_params", "jets", "run", "step", "split", "weights", "loss"]
    frame = frame.sort_values(order, kind="stable").reset_index(drop=True)
    if not table.own_runs:  # our own count N and D themselves
        warnings += _unit_warnings(frame)
    return replace(
        table,
        frame=frame,
        warnings=table.warnings + [text for text in warnings if text not in table.warnings],
    )


def check_values(frame: pd.DataFrame, source: str) -> None:
    """Refuse N, D, C and losses that are not finite and positive, and losses of another unit; UsageError.

    Parameters
    ----------
    frame : rows.
    source : where they come from, for messages.
    """
    for column in (*POSITIVE, *([WEIGHT] if WEIGHT in frame else [])):
        values = frame[column].to_numpy(dtype=float)
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise UsageError(
                f"{source}: {SYMBOLS.get(column, column)} is {values[bad[0]]} {_place(frame, bad[0])}"
                f" ({len(bad)} such rows); it must be finite and positive: correct or remove them"
            )
    worst = int(frame["loss"].to_numpy(float).argmax())
    if frame["loss"].iloc[worst] > MAX_LOSS:
        raise UsageError(
            f"{source}: a loss of {frame['loss'].iloc[worst]:.3g} {_place(frame, worst)}; a cross-entropy in"
            f" nats is below {MAX_LOSS:g}"
        )


def _place(frame: pd.DataFrame, at: int) -> str:
    """Where a reader finds a row: by the run and step of jetscale's own runs, else by its number."""
    if "row" in frame or "warmup" not in frame:  # which run directories alone have
        return f"in row {frame.index[at]}"
    one = frame.iloc[at]
    return f"in run {one['run']} at step {one['step']:g} ({one['split']}, {one['weights']} weights)"


def _without_repeats(frame: pd.DataFrame, source: str) -> tuple[pd.DataFrame, list[str]]:
    """One row per evaluation; equal repeats go with a warning, contradicting ones are an error."""
    key = ["subset", "variant", "run", "step", "jets", "split", "weights"]
    repeated = frame.duplicated(key, keep=False)
    if not repeated.any():
        return frame, []
    spread = frame[repeated].groupby(key)["loss"].agg(["min", "max"])
    clash = spread[spread["max"] > spread["min"]]
    if len(clash):
        where = dict(zip(key, clash.index[0], strict=True))
        raise UsageError(
            f"{source}: run {where['run']} has two losses at step {where['step']:g} "
            f"({clash['min'].iloc[0]:.6g} and {clash['max'].iloc[0]:.6g});"
            ' give each run its own name (by several columns: columns.run="run,seed") or remove one'
        )
    kept = frame.drop_duplicates(key)
    return kept, [f"{len(frame) - len(kept)} repeated rows (same run, step and loss) were dropped"]


def _one_size_a_run(frame: pd.DataFrame, source: str) -> None:
    """Refuse runs of several N or seeds: a run is one model, and its losses are taken as one curve."""
    ends = frame.groupby(["subset", "run"])["n_params"].agg(["min", "max"])
    several = ends[ends["max"] > 1.001 * ends["min"]]
    if len(several):
        (_, run), (low, high) = several.index[0], several.iloc[0]
        raise UsageError(
            f"{source}: run {run} has several N ({low:.6g} to {high:.6g}); {len(several)} such"
            " runs. Name the runs by"
            ' more columns, such as columns.run="run,N", or take every row as a run: columns.run='
        )
    seeds = frame[["subset", "run", "seed"]].drop_duplicates()
    mixed = seeds[seeds.duplicated(["subset", "run"], keep=False)]
    if len(mixed):
        run = mixed["run"].iloc[0]
        found = mixed.loc[mixed["run"] == run, "seed"]
        runs = len(mixed.drop_duplicates(["subset", "run"]))
        raise UsageError(
            f"{source}: run {run} has several seeds ({', '.join(map(str, found[:3]))}); {runs} such"
            ' runs. Name the runs by both, columns.run="run,seed", or take every row as a run: columns.run='
        )


def _unit_warnings(frame: pd.DataFrame) -> list[str]:
    """A gap of more than a factor 300 in N or D inside one table: two units, more likely than not."""
    found = []
    for column, symbol in (("n_params", "N"), ("jets", "D")):
        values = np.unique(frame[column].to_numpy(dtype=float))
        gap = np.diff(np.log(values))
        if len(gap) and gap.max() > np.log(300):
            at = int(gap.argmax())
            found.append(
                f"{symbol} jumps from {values[at]:.4g} to {values[at + 1]:.4g}:"
                " are there two units in one column?"
            )
    return found
