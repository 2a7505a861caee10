"""Loss tables as jetscale writes them: NAME.parquet, and NAME-blocks.parquet where block losses are known.

The first holds every column of the table, and in its metadata what the columns do not say; so a table that
was written and read again is fitted to the same numbers. An analysis writes ``losses``, W&B's answers are
kept as ``wandb``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.origins import Origin
from jetscale.analysis.tables.sources.block_files import read_joined, write_joined
from jetscale.analysis.tables.test_blocks import BlockLosses
from jetscale.common.usage import UsageError
from jetscale.runs import parquet

if TYPE_CHECKING:
    import pandas as pd

FACTS = "jetscale"


def blocks_beside(path: Path) -> Path:
    """File of the block losses of the table `path`."""
    return path.with_name(f"{path.stem}-blocks.parquet")


def write(path: Path, losses: LossTable, blocks: BlockLosses | None) -> None:
    """Write a loss table, and its block losses beside it.

    Parameters
    ----------
    path : the file of the table
    losses : the table
    blocks : block losses to keep with it, None for none
    """
    frame = losses.frame.copy(deep=False)
    runs = frame["run"].unique()
    frame.attrs[FACTS] = {
        "source": losses.source,
        "flops_per_param_sample": losses.flops_per_param_sample,
        "sample": losses.sample,
        "warnings": losses.warnings,
        "blocks": 0 if blocks is None else blocks.count,
        "settings": losses.settings,
        "absent": list(losses.absent),
        "origins": {run: losses.origins[run].to_json() for run in runs if run in losses.origins},
    }
    write_joined(blocks_beside(path), blocks)
    parquet.write_frame(frame, path)  # last: without it the other is not read


def of_frame(frame: pd.DataFrame, path: Path, *, with_blocks: bool = True) -> LossTable | None:
    """Make a loss table of a data frame.

    Parameters
    ----------
    frame : as read from `path`
    path : the file, to find the block losses beside it
    with_blocks : whether to read these

    Returns
    -------
    The table, not yet checked; None where another program wrote the file.

    Raises
    ------
    UsageError
        The file beside it is damaged, or belongs to another table.
    """
    facts: dict[str, Any] | None = frame.attrs.pop(FACTS, None)
    if facts is None:
        return None
    beside, warnings = blocks_beside(path), list(facts["warnings"])
    blocks = read_joined(beside) if facts["blocks"] and with_blocks else None
    if blocks is not None and blocks.count != facts["blocks"]:
        raise UsageError(
            f"{beside} holds {blocks.count} test blocks, but {path.name} was written with {facts['blocks']}:"
            " put back the file that was written with it, or remove it"
        )
    if blocks is None and facts["blocks"] and with_blocks:
        warnings.append(
            f"{beside.name}, written with {path.name}, is not beside it: test jets are not resampled"
        )
    return LossTable(
        frame,
        facts["source"],
        facts["flops_per_param_sample"],
        facts["sample"],
        warnings,
        blocks,
        facts.get("settings", {}),
        tuple(facts.get("absent", ())),
        origins={run: Origin.from_json(entry) for run, entry in facts.get("origins", {}).items()},
    )
