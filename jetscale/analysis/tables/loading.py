"""`load_losses`: any source to a loss table."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from jetscale.analysis.settings import ColumnSettings, WandbSettings
from jetscale.analysis.tables.loss_table import LossTable, checked
from jetscale.analysis.tables.sources import foreign as table
from jetscale.analysis.tables.sources.units import FLOPS_PER_PARAM_TOKEN
from jetscale.analysis.tables.variants import variants_named, with_variants
from jetscale.common.usage import UsageError

SOURCES = ("local", "table", "wandb", "wandb-offline")


def load_losses(
    path: str | Path,
    source: str = "",
    *,
    columns: ColumnSettings | dict[str, str] | None = None,
    where: str = "",
    flops_per_param_sample: float = FLOPS_PER_PARAM_TOKEN,
    best_of_cell: bool = False,
    unfinished: bool = False,
    wandb: WandbSettings | None = None,
    cache: Path | None = None,
) -> LossTable:
    """Read losses from wherever they are.

    Parameters
    ----------
    path : a folder of runs (`local`), a .csv, .jsonl or .parquet file (`table`), ``entity/project`` (`wandb`)
        or a folder of offline W&B runs (`wandb-offline`).
    source : one of those names; empty: `local` for a folder, `table` for a file.
    columns : names of a table's columns, such as ``{"N": "Model Size", "C": "Training FLOP"}``; ``{"run":
        ""}`` does not use the column that is there.
    where : pandas query that selects rows, by a table's own columns or, of runs, by those that `LossTable`
        names. Runs of a subset that then differ in another setting than width and seed are told apart
        (`jetscale.analysis.tables.variants`).
    flops_per_param_sample : k of C = k N D, for tables that give only one of D and C.
    best_of_cell : of a table's rows of one subset, N, D and seed, keep the one with the lowest loss.
    unfinished : take runs that have not finished.
    wandb : which runs of the project.
    cache : parquet file that keeps what W&B answered.

    Raises
    ------
    UsageError
        What cannot be read, with file, row, value and how to repair it; two runs that nothing tells apart.
    """
    kind = source or ("local" if Path(path).is_dir() else "table")
    if kind == "table":
        names = columns if isinstance(columns, ColumnSettings) else _columns(columns or {})
        losses = table.load(
            Path(path),
            names,
            where=where,
            flops_per_param_sample=flops_per_param_sample,
            best_of_cell=best_of_cell,
        )
        return checked(with_variants(losses))
    if best_of_cell:
        raise UsageError(f"best_of_cell is for source=table, not for source={kind}")
    losses = _runs(kind, path, unfinished, wandb or WandbSettings(), cache)
    chosen = table.rows_where(variants_named(losses), where, losses.source)
    return checked(with_variants(replace(losses, frame=chosen)))


def without_rows(losses: LossTable, query: str) -> tuple[LossTable, LossTable]:
    """The table less the rows that the pandas query selects, and the table of those rows.

    Raises
    ------
    UsageError
        Not a query of its columns, or one that selects nothing or everything.
    """
    held_out = table.rows_where(losses.frame, query, losses.source)
    return (
        checked(replace(losses, frame=losses.frame.drop(held_out.index))),
        checked(replace(losses, frame=held_out)),
    )


def _runs(
    kind: str, path: str | Path, unfinished: bool, wanted: WandbSettings, cache: Path | None
) -> LossTable:
    from jetscale.analysis.tables.sources import local, wandb_api, wandb_offline

    if kind == "local":
        return local.load(Path(path), unfinished=unfinished)
    if kind == "wandb-offline":
        return wandb_offline.load(Path(path))
    if kind == "wandb":
        return wandb_api.load(
            str(path), group=wanted.group, filters=wanted.filters, cache=cache, refresh=wanted.refresh
        )
    raise UsageError(f"source={kind!r}: choose one of {', '.join(SOURCES)}")


def _columns(names: dict[str, str]) -> ColumnSettings:
    known = [field.name for field in fields(ColumnSettings)]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise UsageError(f"columns has no {', '.join(unknown)}; keys: {', '.join(known)}")
    return ColumnSettings(**names)
