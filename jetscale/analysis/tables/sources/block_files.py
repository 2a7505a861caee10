"""Files of block losses: `test_blocks.parquet` as a run writes it, and one file of many runs' blocks.

Shapes: E evaluations, B blocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jetscale.analysis.tables.test_blocks import BlockLosses
from jetscale.common.files import DamagedFile
from jetscale.common.usage import UsageError
from jetscale.runs import parquet
from jetscale.runs.layout import N_BLOCKS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

JOINED = ("run", "step", "weights", "jets", "loss_sum")


def read_phase(path: Path, phase: str) -> pa.Table:
    """Rows of one phase of a run's ``test_blocks.parquet`` (`jetscale.runs.blocks.read_blocks`).

    Raises
    ------
    UsageError
        Damaged or not parquet, a column is missing, a block beyond the last.
    """
    from jetscale.runs.blocks import BlocksError, of_phase, read_blocks

    try:
        return of_phase(read_blocks(path), phase)
    except BlocksError as error:
        raise UsageError(f"{error}; put back an undamaged copy of it") from error


def read(path: Path, run: str, phase: str) -> BlockLosses | None:
    """Block losses in one run's ``test_blocks.parquet``.

    Parameters
    ----------
    path : the file
    run : name of the run in the loss table
    phase : ``pretrain`` or ``finetune``

    Returns
    -------
    One evaluation for each step and kind of weights; None where the file has none of this phase.

    Raises
    ------
    UsageError
        See `read_phase`.
    """
    return block_losses(read_phase(path, phase), run)


def block_losses(table: pa.Table, run: str) -> BlockLosses | None:
    """Block losses of one run.

    Parameters
    ----------
    table : rows of `read_phase`
    run : name of the run in the loss table

    Returns
    -------
    One evaluation for each step and kind of weights; None where `table` has no row.
    """
    frame: pd.DataFrame = table.to_pandas()
    keys, loss_sum, jets = [], [], []
    for (step, weights), rows in frame.groupby([frame["step"].astype(float), frame["weights"].astype(str)]):
        keys.append((run, float(str(step)), str(weights)))
        block = rows["block"].to_numpy()
        loss_sum.append(np.bincount(block, rows["loss_sum"].to_numpy(float), N_BLOCKS))
        jets.append(np.bincount(block, rows["jets"].to_numpy(float), N_BLOCKS))
    if not keys:
        return None
    # 32 bits: a paper-sized sweep has 30,000 evaluations of 1,000 blocks
    return BlockLosses(keys, np.stack(loss_sum).astype(np.float32), np.stack(jets).astype(np.float32))


def join(parts: list[BlockLosses]) -> BlockLosses | None:
    """Combine the block losses of several runs; returns None for an empty list."""
    if not parts:
        return None
    return BlockLosses(
        keys=[key for part in parts for key in part.keys],
        loss_sum_EB=np.concatenate([part.loss_sum_EB for part in parts]),
        jets_EB=np.concatenate([part.jets_EB for part in parts]),
    )


def write_joined(path: Path, blocks: BlockLosses | None) -> None:
    """Write the block losses of many runs, one row per evaluation.

    Sums have 32 bits, as `read` returns them. Bytes of equal significance are stored together, so that the 4
    bytes of a sum compress to 3.1.

    Parameters
    ----------
    path : the file
    blocks : what to write; for None, an existing file is removed
    """
    import pyarrow as pa

    if blocks is None:
        path.unlink(missing_ok=True)
        return
    run, step, weights = zip(*blocks.keys, strict=True)
    columns = {"run": pa.array(run), "step": pa.array(step), "weights": pa.array(weights)}
    for name, sums_EB in (("loss_sum", blocks.loss_sum_EB), ("jets", blocks.jets_EB)):
        values = pa.array(np.asarray(sums_EB, dtype=np.float32).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(values, blocks.count)
    parquet.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        use_dictionary=["run", "weights", "jets.list.element"],
        use_byte_stream_split=["loss_sum.list.element"],
    )


def read_joined(path: Path) -> BlockLosses | None:
    """Read what `write_joined` wrote; returns None where there is no such file.

    Raises
    ------
    UsageError
        Not parquet, or not such a file.
    """
    if not path.exists():
        return None
    table = _table(path)
    if not set(JOINED) <= set(table.column_names):
        lacking = ", ".join(name for name in JOINED if name not in table.column_names)
        raise UsageError(f"{path}: lacks the column {lacking}; it is no file of many runs' test blocks")
    count = table.schema.field("jets").type.list_size
    keys = zip(*(table[name].to_pylist() for name in ("run", "step", "weights")), strict=True)
    loss_sum, jets = (
        table[name].combine_chunks().flatten().to_numpy().reshape(-1, count) for name in ("loss_sum", "jets")
    )
    return BlockLosses(list(keys), loss_sum, jets)


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet.check(path)
        return pq.read_table(path)
    except DamagedFile as error:
        raise UsageError(f"{error}; put back an undamaged copy of it") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: cannot be read as parquet ({error}); the file is damaged") from error
