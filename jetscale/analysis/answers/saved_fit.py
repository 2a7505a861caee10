"""A saved fit, read back from the folder that `python -m jetscale.analysis` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.tables import checksums
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.sources import saved
from jetscale.common.files import DamagedFile
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from jetscale.analysis.answers.fit_result import FitResult

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SavedFit:
    """What answers are made of.

    Attributes
    ----------
    name : of the fit, for messages.
    results : content of results.json.
    losses : the table that was fitted, without its block losses.
    draws : replicates of every group, by group and quantity.
    joint_draws : replicates of the joint fits, by quantity.
    """

    name: str
    results: dict[str, Any]
    losses: LossTable
    draws: dict[str, dict[str, Array]]
    joint_draws: dict[str, Array]


def of(fitted: FitResult | str | Path) -> SavedFit:
    """Return a fit in memory, or the one that was saved to a folder; UsageError as in `of_folder`."""
    if isinstance(fitted, str | Path):
        return of_folder(Path(fitted))
    return of_result(fitted)


def of_result(result: FitResult) -> SavedFit:
    """Return a fit in memory as it would be read back."""
    from jetscale.analysis.fitting.numbers import plain

    return SavedFit(
        name="these results",
        results=json.loads(json.dumps(plain(result.to_json()))),
        losses=result.losses,
        draws={name: dict(subset.draws) for name, subset in result.subsets.items()},
        joint_draws=dict(result.joint_draws),
    )


def of_folder(folder: Path) -> SavedFit:
    """Read a saved fit, whose files must be those that were written together.

    Raises
    ------
    UsageError
        The folder lacks results.json or losses.parquet, or one of its files is damaged or another one.
    """
    again = f"run `python -m jetscale.analysis` again, with out={folder}"
    for name in ("results.json", "losses.parquet"):
        if not (folder / name).is_file():
            first = again.replace(" again", " first")
            raise UsageError(f"{folder}: no {name}; {first}")
    try:
        checksums.check(folder)
        return _read(folder)
    except DamagedFile as error:
        raise UsageError(f"{error}; {again}") from error


def _read(folder: Path) -> SavedFit:
    try:
        results = json.loads((folder / "results.json").read_text())
    except ValueError as error:  # a folder without checksums
        raise DamagedFile(f"{folder / 'results.json'} cannot be read: {error}") from error
    path = folder / "losses.parquet"
    frame = _frame(path)
    losses = saved.of_frame(frame, path, with_blocks=False) or LossTable(
        frame, results["source"], results["flops_per_param_sample"], results["sample"]
    )
    draws: dict[str, dict[str, Array]] = {}
    if (folder / "replicates.parquet").is_file():
        for subset, rows in _frame(folder / "replicates.parquet").groupby("subset"):
            draws[str(subset)] = {str(key): rows[key].to_numpy(float) for key in rows if key != "subset"}
    joint_draws: dict[str, Array] = {}
    if (folder / "joint.parquet").is_file():
        rows = _frame(folder / "joint.parquet")
        joint_draws = {str(key): rows[key].to_numpy(float) for key in rows}
    return SavedFit(str(folder), results, losses, draws, joint_draws)


def _frame(path: Path) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFile(f"{path} cannot be read: {error}") from error
