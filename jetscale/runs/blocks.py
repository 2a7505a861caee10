"""``test_blocks.parquet``.

The test loss in 1,000 fixed blocks, so that any bootstrap over test jets can be done later.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jetscale.common.files import DamagedFile
from jetscale.runs import parquet


class BlocksError(RuntimeError):
    """``test_blocks.parquet`` is damaged or lacks evaluations; the message names the mend."""


N_BLOCKS = 1_000
"""A test jet's block is its position in the test split modulo this: the same jets for every run."""

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


class BlockLog:
    """The block losses of one run; the file on disk is always whole.

    Raises
    ------
    BlocksError
        There is a file, and it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table = _read(path) if path.exists() else SCHEMA.empty_table()

    def evaluations(self, phase: str) -> set[tuple[int, str]]:
        """Step and weights of every evaluation of `phase` that is kept."""
        kept = self._table.filter(pc.equal(self._table["phase"], phase))
        rows = kept.group_by(["step", "weights"]).aggregate([]).to_pylist()
        return {(row["step"], row["weights"]) for row in rows}

    def sums(self, phase: str) -> dict[tuple[int, str], tuple[float, float]]:
        """Summed loss (nats) and number of jets of every evaluation of `phase`, by step and weights."""
        kept = self._table.filter(pc.equal(self._table["phase"], phase))
        groups = kept.group_by(["step", "weights"]).aggregate([("loss_sum", "sum"), ("jets", "sum")])
        return {
            (row["step"], row["weights"]): (row["loss_sum_sum"], row["jets_sum"])
            for row in groups.to_pylist()
        }

    def append(
        self,
        phase: str,
        step: int,
        weights: str,
        jets: npt.NDArray[np.int64],
        loss_sum: npt.NDArray[np.float64],
    ) -> None:
        """Add one evaluation: jets and summed loss of each block, both of shape (N_BLOCKS,).

        Empty blocks are left out.
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
        """Drop evaluations of `phase` beyond `step`, which a resumed run makes again."""
        keep = pc.or_(pc.not_equal(self._table["phase"], phase), pc.less_equal(self._table["step"], step))
        self._write(self._table.filter(keep))

    def _write(self, table: pa.Table) -> None:
        parquet.write_table(table, self.path, compression="zstd")
        self._table = table


def _read(path: Path) -> pa.Table:
    try:
        parquet.check(path)
        return pq.read_table(path, schema=SCHEMA)
    except (pa.ArrowException, OSError, DamagedFile) as error:
        raise BlocksError(
            f"{path} is damaged ({error}); put back an undamaged copy of it, or remove the folder it is in "
            "to make the run anew, to the same numbers"
        ) from error
