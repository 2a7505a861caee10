"""Anybody's table to a loss table: columns N, loss, and D or C; optional run, seed, subset, weight, D_pre.

Where only one of N, D and C is there, the loss is a law of that one.

A parquet file that jetscale wrote is taken as it is (`jetscale.analysis.tables.sources.saved`).
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.settings import ColumnSettings
from jetscale.analysis.tables.loss_table import (
    MAX_ROWS,
    PRETRAIN_JETS,
    WEIGHT,
    LossTable,
    check_values,
    checked,
)
from jetscale.analysis.tables.sources import formats, saved
from jetscale.analysis.tables.sources.cells import one_loss_a_cell, unread_conditions
from jetscale.analysis.tables.sources.columns import Reader
from jetscale.analysis.tables.sources.queries import rows_where
from jetscale.analysis.tables.sources.units import (
    FLOPS_PER_PARAM_TOKEN,
    cost_per_sample,
    derived_unit_warnings,
    mixed_unit_warnings,
    unit_warnings,
)
from jetscale.analysis.tables.variants import text_of
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

AXES = {"N": "n_params", "D": "jets", "C": "flops"}
SAME_LOSS = 1.1  # largest over smallest loss of one N that seeds may explain
_EARLIER_TABLE = re.compile(r".* \(losses of (.+)\)")
"""Source of a table whose losses were read from a table: what is in brackets are the runs."""


def load(
    path: Path,
    columns: ColumnSettings | None = None,
    *,
    where: str = "",
    flops_per_param_sample: float = FLOPS_PER_PARAM_TOKEN,
    best_of_cell: bool = False,
) -> LossTable:
    """Read a table with named columns.

    Parameters
    ----------
    path : .csv, .tsv, .jsonl, .ndjson, .json or .parquet (all but the last also compressed).
    columns : names; those that are None are looked for under their usual names. Where any is given, a file of
        jetscale's own is read as any other.
    where : pandas query that selects rows, such as ``"val_full.str.contains('c4_val') and tokens > 1e9"``.
    flops_per_param_sample : k of C = k N D, used where the table gives only one of D and C.
    best_of_cell : of the rows of one subset, N, D and seed, keep the one with the lowest loss.

    Raises
    ------
    UsageError
        No such file, column or row; text in numbers; values that are not finite and positive; several losses
        for one subset, N, D and seed that a column tells apart which is not read.
    """
    names = columns or ColumnSettings()
    frame = _select(formats.read(path), where, path)
    if names == ColumnSettings():
        losses = saved.of_frame(frame, path)
        if losses is not None and best_of_cell:
            raise UsageError(f"{path}: best_of_cell is for tables that jetscale did not write")
        if losses is not None:
            earlier = _EARLIER_TABLE.fullmatch(losses.source)
            origin = earlier[1] if earlier else losses.source
            return checked(replace(losses, source=f"{path} (losses of {origin})"))
    reader = Reader(path, frame, names)
    loss = reader.numbers("loss")
    assert loss is not None
    axes = {symbol: reader.numbers(symbol, required=False) for symbol in ("N", "D", "C")}
    losses = _assemble(reader, *_completed(reader, axes, flops_per_param_sample), loss)
    check_values(losses.frame, losses.source)
    unread = frame[[name for name in frame.columns if name not in reader.used]]
    _refuse_unread_sizes(losses, unread, reader)
    _refuse_hidden_variables(losses)
    if not best_of_cell:  # which takes all of them for one search
        losses = replace(losses, warnings=[*losses.warnings, *unread_conditions(losses, unread)])
    return checked(one_loss_a_cell(losses, unread, best=best_of_cell))


def _completed(
    reader: Reader, axes: dict[str, NDArray[np.float64] | None], k: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float, tuple[str, ...]]:
    """N, D and C of every row, k of C = k N D, and which of the three are not known (1 in every row then)."""
    N, D, C = axes["N"], axes["D"], axes["C"]
    known = [symbol for symbol, values in axes.items() if values is not None]
    if not known:
        raise UsageError(
            f"{reader.path}: no column for N, D or C; say columns.N=NAME, columns.D=NAME or columns.C=NAME"
            f" (columns: {', '.join(map(str, reader.frame.columns))})"
        )
    if len(known) == 1:
        (symbol,) = known
        refused = [other for other in axes if getattr(reader.names, other) == ""]
        if len(refused) == 2:
            raise UsageError(
                f"{reader.path}: needs a column for {' or '.join(refused)}; say columns.D=NAME or"
                f" columns.C=NAME, or leave out columns.{refused[0]}= for a law of {symbol} alone"
            )
        absent = tuple(other for other in axes if other != symbol)
        reader.warnings.append(
            f"the table gives {symbol} alone, neither {absent[0]} nor {absent[1]}: its loss can only be"
            f" fitted as a law of {symbol}; columns.{absent[0]}=NAME or columns.{absent[1]}=NAME reads more"
        )
        ones = np.ones(len(reader.frame))
        filled = [ones if values is None else values for values in (N, D, C)]
        return filled[0], filled[1], filled[2], k, absent
    with np.errstate(invalid="ignore", divide="ignore"):
        if N is None:
            assert C is not None
            assert D is not None
            N = C / (k * D)
        elif D is None:
            assert C is not None
            D = C / (k * N)
            reader.warnings += derived_unit_warnings(D / N)
        elif C is None:
            C = k * N * D
        else:
            k = cost_per_sample(C / (N * D))
            reader.warnings += unit_warnings(k) + mixed_unit_warnings(C / (N * D))
    assert C is not None
    return N, D, C, k, ()


def _refuse_unread_sizes(losses: LossTable, unread: pd.DataFrame, reader: Reader) -> None:
    """Where only one of N, D and C is known: a column of numbers under another name may be a second one."""
    if not losses.absent or any(getattr(reader.names, symbol) == "" for symbol in losses.absent):
        return
    numbers = unread.select_dtypes("number")
    if any(len(numbers) == 1 or column.nunique() > 1 for _, column in numbers.items()):
        symbol, known = losses.absent[0], next(name for name in AXES if name not in losses.absent)
        raise UsageError(
            f"{reader.path}: no column for {symbol}; say columns.{symbol}=NAME"
            f" (columns: {', '.join(map(str, reader.frame.columns))}), or columns.{symbol}= for a law of"
            f" {known} alone"
        )


def _refuse_hidden_variables(losses: LossTable) -> None:
    """Where only one of N, D and C is given: losses of one value far apart depend on one that is not."""
    if not losses.absent:
        return
    known = next(symbol for symbol in AXES if symbol not in losses.absent)
    cells = losses.frame.groupby(["subset", AXES[known]])["loss"].agg(["min", "max"])
    apart = cells[cells["max"] > SAME_LOSS * cells["min"]]
    if len(apart):
        (_, value), (low, high) = apart.index[0], apart.iloc[0]
        named = [f"columns.{symbol}=NAME" for symbol in losses.absent]
        raise UsageError(
            f"{losses.source}: {known} = {value:.4g} has losses from {low:.4g} to {high:.4g}, which {known}"
            f" alone does not explain; say {' or '.join(named)}, or select one kind of run with where=..."
        )


def _select(frame: pd.DataFrame, where: str, path: Path) -> pd.DataFrame:
    frame = frame.rename(columns=lambda name: str(name).strip())
    if len(frame) > MAX_ROWS and not where:
        raise UsageError(
            f"{path}: {len(frame):,} rows, more than {MAX_ROWS:,}; keep the rows to fit, for instance with"
            " where=..."
        )
    return rows_where(frame, where, str(path))


def _assemble(
    reader: Reader,
    N: NDArray[np.float64],
    D: NDArray[np.float64],
    C: NDArray[np.float64],
    k: float,
    absent: tuple[str, ...],
    loss: NDArray[np.float64],
) -> LossTable:
    import pandas as pd

    labels = {symbol: reader.labels(symbol) for symbol in ("run", "seed", "subset")}
    has_runs = labels["run"] is not None
    frame = pd.DataFrame(
        {
            "run": labels["run"] if has_runs else "",
            "subset": labels["subset"] if labels["subset"] is not None else "all",
            "seed": labels["seed"] if labels["seed"] is not None else "0",
            "dim": np.nan,
            "n_params": N,
            "jets": D,
            "constituents": np.nan,
            "flops": C,
            "split": "test",
            "weights": "raw",
            "loss": loss,
            "step": next(value for symbol, value in (("D", D), ("C", C), ("N", N)) if symbol not in absent),
        },
        index=reader.frame.index,
    )
    weight = reader.numbers("weight", required=False)
    if weight is not None:
        frame[WEIGHT] = weight
        reader.warnings.append("points are weighted by a column of the table, as if each stood for so many")
    frame = _with_pretraining(reader, frame)
    if not has_runs:
        frame = _name_rows(frame, reader.warnings)
    settings = {key: name for key, name in asdict(reader.names).items() if name is not None}
    source = f"{reader.path}" + (
        f" ({', '.join(f'{k}={v}' for k, v in settings.items())})" if settings else ""
    )
    return LossTable(frame, source, k, warnings=reader.warnings, absent=absent)


def _with_pretraining(reader: Reader, frame: pd.DataFrame) -> pd.DataFrame:
    """The jets of pretraining, where a column gives them; several amounts in one subset are fitted apart."""
    jets = reader.numbers("D_pre", required=False)
    if jets is None:
        return frame
    bad = np.flatnonzero(~(np.isfinite(jets) & (jets >= 0)))
    if len(bad):
        raise UsageError(
            f"{reader.path}: D_pre is {jets[bad[0]]} in row {frame.index[bad[0]]} ({len(bad)} such rows); it"
            " must be finite, and 0 for runs from scratch: correct or remove them"
        )
    frame[PRETRAIN_JETS] = jets
    amounts = frame.groupby("subset")[PRETRAIN_JETS].transform("nunique")
    named = [f"pretrain.jets={text_of(float(amount))}" for amount in jets]
    return frame.assign(variant=np.where(amounts > 1, named, ""))


def _name_rows(frame: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Without a run column every row is a separate run; equal rows are kept, and named in a warning."""
    key = ["subset", "n_params", "jets", "seed", "loss"]
    repeats = int(frame.duplicated(key).sum())
    if repeats:
        warnings.append(f"{repeats} rows repeat another row's N, D and loss; they are kept and count as runs")
    frame["row"] = [str(number) for number in frame.index]
    frame = frame.sort_values(key, kind="stable")
    frame["run"] = [f"row {rank:07d}" for rank in range(len(frame))]
    return frame
