"""`load_losses`: any source to a loss table, and the registry of sources.

A source of your own is one class in one file, loaded by ``--trust MODULE``; ``source=NAME`` reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from jetscale.analysis.settings import ColumnSettings, WandbSettings
from jetscale.analysis.tables.loss_table import LossTable, checked
from jetscale.analysis.tables.sources import foreign
from jetscale.analysis.tables.sources.queries import rows_where
from jetscale.analysis.tables.sources.units import FLOPS_PER_PARAM_TOKEN
from jetscale.analysis.tables.variants import variants_named, with_variants
from jetscale.common.registry import Registry
from jetscale.common.usage import UsageError


@dataclass(frozen=True)
class Request:
    """What a source is asked for; fields as the parameters of `load_losses`."""

    path: str
    columns: ColumnSettings
    where: str
    flops_per_param_sample: float
    best_of_cell: bool
    unfinished: bool
    wandb: WandbSettings
    cache: Path | None


class Source(ABC):
    """Where losses come from.

    Attributes
    ----------
    selects : whether `read` itself does what `where` and `best_of_cell` ask for, by columns that only it
        sees; otherwise `where` selects rows of what it returns, and `best_of_cell` is refused.
    """

    selects: bool = False

    @abstractmethod
    def read(self, request: Request) -> LossTable:
        """Read the table; it is checked afterwards.

        Raises
        ------
        UsageError
            What cannot be read, with file, row, value and how to repair it.
        """


class Runs(Source):
    """Run directories of jetscale below a folder."""

    def read(self, request: Request) -> LossTable:
        """See `Source.read`."""
        from jetscale.analysis.tables.sources import local

        return local.load(Path(request.path), unfinished=request.unfinished)


class Table(Source):
    """A file with named columns."""

    selects = True

    def read(self, request: Request) -> LossTable:
        """See `Source.read`."""
        return foreign.load(
            Path(request.path),
            request.columns,
            where=request.where,
            flops_per_param_sample=request.flops_per_param_sample,
            best_of_cell=request.best_of_cell,
        )


class WandbServer(Source):
    """Runs of a project, by W&B's API."""

    def read(self, request: Request) -> LossTable:
        """See `Source.read`."""
        from jetscale.analysis.tables.sources import wandb_api

        wanted = request.wandb
        return wandb_api.load(
            request.path,
            group=wanted.group,
            filters=wanted.filters,
            cache=request.cache,
            refresh=wanted.refresh,
        )


class WandbFolder(Source):
    """A folder of offline W&B runs."""

    def read(self, request: Request) -> LossTable:
        """See `Source.read`."""
        from jetscale.analysis.tables.sources import wandb_offline

        return wandb_offline.load(Path(request.path))


SOURCES: Registry[type[Source]] = Registry(
    "source",
    {
        "local": f"{__name__}:Runs",
        "table": f"{__name__}:Table",
        "wandb": f"{__name__}:WandbServer",
        "wandb-offline": f"{__name__}:WandbFolder",
    },
)


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
    source : one of those names, or that of a registered `Source`; empty: `local` for a folder, `table` for a
        file.
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
    if not isinstance(path, str | Path):
        raise UsageError(
            f"load_losses reads a file or a folder, not a {type(path).__name__}; write a DataFrame to a file"
            " first: frame.to_parquet('losses.parquet')"
        )
    kind = source or ("local" if Path(path).is_dir() else "table")
    reader = SOURCES[kind]()
    if best_of_cell and not reader.selects:
        raise UsageError(f"best_of_cell is for source=table, not for source={kind}")
    names = columns if isinstance(columns, ColumnSettings) else _columns(columns or {})
    request = Request(
        path=str(path),
        columns=names,
        where=where,
        flops_per_param_sample=flops_per_param_sample,
        best_of_cell=best_of_cell,
        unfinished=unfinished,
        wandb=wandb or WandbSettings(),
        cache=cache,
    )
    losses = reader.read(request)
    if not reader.selects:
        chosen = rows_where(variants_named(losses), where, losses.source)
        losses = replace(losses, frame=chosen)
    return checked(with_variants(losses))


def load_with_held_out(
    path: str, held_out: str, source: str, *, where: str = "", **how: Any
) -> tuple[LossTable, LossTable | None]:
    """Read losses, and apart from them the rows that are to be predicted instead of fitted.

    Parameters
    ----------
    path, source, where : as in `load_losses`; `how` : its other parameters.
    held_out : a pandas query, or another file of the same columns; empty: no rows are held out.
    """
    if not held_out:
        return load_losses(path, source, where=where, **how), None
    if _is_file(held_out):
        return load_losses(path, source, where=where, **how), load_losses(
            held_out, source, where=where, **how
        )
    if not SOURCES[source].selects:
        # read once: what is a variant among all runs is one among the held-out ones too
        return without_rows(load_losses(path, source, where=where, **how), held_out)
    every = f"({where}) and " if where else ""
    predicted = load_losses(path, source, where=f"{every}({held_out})", **how)
    return load_losses(path, source, where=f"{every}not ({held_out})", **how), predicted


def _is_file(text: str) -> bool:
    """Whether a text names a file; a query may be longer than a name can be."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def without_rows(losses: LossTable, query: str) -> tuple[LossTable, LossTable]:
    """The table less the rows that the pandas query selects, and the table of those rows.

    Parameters
    ----------
    losses : a table.
    query : of its columns.

    Raises
    ------
    UsageError
        Not a query of its columns, or one that selects nothing or everything.
    """
    held_out = rows_where(losses.frame, query, losses.source)
    return (
        checked(replace(losses, frame=losses.frame.drop(held_out.index))),
        checked(replace(losses, frame=held_out)),
    )


def _columns(names: dict[str, str]) -> ColumnSettings:
    known = [field.name for field in fields(ColumnSettings)]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise UsageError(f"columns has no {', '.join(unknown)}; keys: {', '.join(known)}")
    return ColumnSettings(**names)
