"""``test_blocks.parquet``: the test loss in 1,000 fixed blocks of jets, for a later bootstrap over them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jetscale.common.files import DamagedFile
from jetscale.runs import parquet
from jetscale.runs.layout import METRICS, N_BLOCKS
from jetscale.runs.search import to_remove

SCHEMA = pa.schema(
    [
        ("phase", pa.string()),
        ("step", pa.int64()),
        ("weights", pa.string()),
        ("block", pa.int32()),
        ("jets", pa.int64()),
        ("loss_sum", pa.float64()),
    ]
)
SAME_SUM = 1e-9
"""Block losses are added in another order than the loss was: relative difference that this may make."""

Sums = dict[tuple[int, str], tuple[float, float]]
"""Summed loss (nats) and number of jets of evaluations, by step and weights."""


class BlocksError(DamagedFile):
    """``test_blocks.parquet`` is damaged or lacks evaluations; the message names the way out."""


class BlockLog:
    """The block losses of a run that is being made; the file on disk is always whole.

    Parameters
    ----------
    path : the file; it need not exist

    Raises
    ------
    BlocksError
        There is a file, and it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table = SCHEMA.empty_table()
        if path.exists():
            try:
                self._table = read_blocks(path).select(SCHEMA.names).cast(SCHEMA)
            except (BlocksError, pa.ArrowException, KeyError) as error:
                raise BlocksError(
                    f"{path} is damaged ({error}); put back an undamaged copy of it, or remove "
                    f"{to_remove(path.parent)} to make the run anew, to the same numbers"
                ) from error

    def evaluations(self, phase: str) -> set[tuple[int, str]]:
        """Step and weights of every evaluation of `phase` in the file."""
        return set(self.sums(phase))

    def sums(self, phase: str) -> Sums:
        """Summed loss and number of jets of every evaluation of `phase`."""
        return block_sums(of_phase(self._table, phase))

    def append(
        self,
        phase: str,
        step: int,
        weights: str,
        jets: npt.NDArray[np.int64],
        loss_sum: npt.NDArray[np.float64],
    ) -> None:
        """Add one evaluation; empty blocks are left out.

        Parameters
        ----------
        phase, step, weights : of the evaluation
        jets : (N_BLOCKS,) test jets in each block
        loss_sum : (N_BLOCKS,) their summed cross-entropy, nats
        """
        block = np.flatnonzero(jets)
        rows = pa.table(
            {
                "phase": [phase] * len(block),
                "step": np.full(len(block), step),
                "weights": [weights] * len(block),
                "block": block.astype(np.int32),
                "jets": jets[block],
                "loss_sum": loss_sum[block],
            },
            schema=SCHEMA,
        )
        self._write(pa.concat_tables([self._table, rows]))

    def keep_until(self, phase: str, step: int) -> None:
        """Drop the evaluations of `phase` beyond `step`, which a resumed run makes again."""
        keep = pc.or_(pc.not_equal(self._table["phase"], phase), pc.less_equal(self._table["step"], step))
        self._write(self._table.filter(keep))

    def _write(self, table: pa.Table) -> None:
        parquet.write_table(table, self.path, compression="zstd")
        self._table = table


def read_blocks(path: Path) -> pa.Table:
    """Read a ``test_blocks.parquet``.

    Parameters
    ----------
    path : the file, which exists

    Returns
    -------
    One row for each evaluation and block, with the columns of `SCHEMA`; a file without the column ``phase``
    holds those of one phase.

    Raises
    ------
    BlocksError
        Damaged or not parquet, a column is missing, a block beyond the last.
    """
    try:
        parquet.check(path)
        table = pq.read_table(path)
    except DamagedFile as error:
        raise BlocksError(str(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise BlocksError(f"{path} is damaged: it cannot be read as parquet ({error})") from error
    missing = [name for name in SCHEMA.names if name not in table.column_names and name != "phase"]
    if missing:
        raise BlocksError(f"{path} lacks the column {', '.join(missing)}; it is no file of test blocks")
    block = table["block"].to_numpy()
    if wrong := block[(block < 0) | (block >= N_BLOCKS)].tolist():
        raise BlocksError(f"{path}: block {wrong[0]} is not in 0..{N_BLOCKS - 1}")
    return table


def of_phase(table: pa.Table, phase: str) -> pa.Table:
    """Rows of one phase; all rows where `table` does not tell the phases apart."""
    return table.filter(pc.equal(table["phase"], phase)) if "phase" in table.column_names else table


def block_sums(table: pa.Table) -> Sums:
    """Add up the blocks of each evaluation in `table`, which holds one phase."""
    groups = table.group_by(["step", "weights"]).aggregate([("loss_sum", "sum"), ("jets", "sum")])
    return {
        (int(row["step"]), str(row["weights"])): (row["loss_sum_sum"], row["jets_sum"])
        for row in groups.to_pylist()
    }


def disagreement(lines: Iterable[dict[str, Any]], sums: Sums) -> str | None:
    """Compare block losses with the test losses of the metrics.

    Parameters
    ----------
    lines : metrics lines of one phase
    sums : of the same phase

    Returns
    -------
    How they disagree, to follow the name of the file of blocks; None where they do not.
    """
    tests = [line for line in lines if line.get("split") == "test" and line.get("jets", 0) > 0]
    losses = {(int(line["step"]), str(line["weights"])): float(line["loss"]) for line in tests}
    if lacking := sorted(set(losses) - set(sums)):
        return f"lacks the evaluation after step {lacking[0][0]} ({lacking[0][1]} weights)"
    if foreign := sorted(set(sums) - set(losses)):
        return f"has an evaluation after step {foreign[0][0]} ({foreign[0][1]} weights) that {METRICS} lacks"
    for (step, weights), loss in losses.items():
        total, jets = sums[step, weights]
        mean = total / jets if jets else math.nan
        if not math.isclose(mean, loss, rel_tol=SAME_SUM):
            where = f"after step {step} ({weights} weights)"
            return f"adds up to a loss of {mean:.6g} {where}, {METRICS} has {loss:.6g}"
    return None
