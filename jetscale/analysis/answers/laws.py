"""Fitted laws as `plan` needs them: from a fit in memory, or from the folder it was saved to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.approach3 import NAME, surfaces_of
from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.surface import Surfaces, form_named
from jetscale.analysis.tables import checksums
from jetscale.analysis.tables.loss_table import names_of_groups
from jetscale.common.files import DamagedFile
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from jetscale.analysis.answers.fit_result import FitResult

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """One subset's surface, its replicates, and the runs behind it.

    Attributes
    ----------
    cost : C of N and D, in the unit of the table.
    surface : the point fit; replicates : (R,) or None; method, dof : how they were drawn.
    N_range, D_range, C_range : of the runs.
    dims, sizes : width and N of every run.
    pretrain_jets : jets each run was pretrained on; 0 for none.
    rate : measured FLOP/s (paper's count) of the runs, NaN where unknown.
    """

    name: str
    cost: Cost
    surface: Surfaces
    replicates: Surfaces | None
    method: str
    dof: float
    N_range: tuple[float, float]
    D_range: tuple[float, float]
    C_range: tuple[float, float]
    dims: Array
    sizes: Array
    pretrain_jets: float
    rate: float


@dataclass(frozen=True)
class Laws:
    """All subsets' laws; `missing` names the subsets without one and why."""

    laws: dict[str, Law]
    missing: dict[str, str]
    sample: str


def from_result(result: FitResult) -> Laws:
    """Laws of a fit in memory."""
    draws = {name: subset.draws for name, subset in result.subsets.items()}
    return _laws(json.loads(json.dumps(_plain(result))), draws, result.losses.frame)


def from_folder(folder: Path) -> Laws:
    """Laws of a saved fit.

    Raises
    ------
    UsageError
        The folder lacks results.json or losses.parquet, or one of its files is damaged.
    """
    import pandas as pd

    for name in ("results.json", "losses.parquet"):
        if not (folder / name).is_file():
            raise UsageError(
                f"{folder}: no {name}; run `python -m jetscale.analysis` first, with out={folder}"
            )
    try:
        checksums.check(folder)
    except DamagedFile as error:
        raise UsageError(f"{error}; run `python -m jetscale.analysis` again, with out={folder}") from error
    results = json.loads((folder / "results.json").read_text())
    draws: dict[str, dict[str, Array]] = {}
    if (folder / "replicates.parquet").is_file():
        for subset, rows in pd.read_parquet(folder / "replicates.parquet").groupby("subset"):
            draws[str(subset)] = {str(key): rows[key].to_numpy(float) for key in rows if key != "subset"}
    return _laws(results, draws, pd.read_parquet(folder / "losses.parquet"))


def _plain(result: FitResult) -> Any:
    from jetscale.analysis.fitting.numbers import plain

    return plain(result.to_json())


def _laws(results: dict[str, Any], draws: dict[str, dict[str, Array]], frame: pd.DataFrame) -> Laws:
    laws, missing = {}, {}
    form = form_named(results["settings"]["approach3"]["form"])
    for name, entry in results["subsets"].items():
        three = entry[NAME]
        if three["a"]["value"] is None:
            missing[name] = next(
                (text for text in entry["warnings"] if "approach 3" in text), "approach 3 not fitted"
            )
            continue
        if "surface" not in three:
            raise UsageError(
                f"{results['source']}: its results.json was written by jetscale"
                f" {results['version']}, which did not"
                " keep the surface; run `python -m jetscale.analysis` again"
            )
        surface = Surfaces.from_theta(np.array([[three["surface"][key] for key in form.parameters]]), form)
        found = draws.get(name, {})
        laws[name] = Law(
            name=name,
            cost=Cost.from_json(three["cost"]),
            surface=surface,
            replicates=surfaces_of(found, form),
            method=entry["method"],
            dof=np.inf if entry["dof"] is None else entry["dof"],
            **_runs(frame[names_of_groups(frame) == name]),
        )
    return Laws(laws, missing, results["sample"])


def _runs(frame: pd.DataFrame) -> dict[str, Any]:
    def ends(column: str) -> tuple[float, float]:
        return float(frame[column].min()), float(frame[column].max())

    return {
        "N_range": ends("n_params"),
        "D_range": ends("jets"),
        "C_range": ends("flops"),
        "dims": frame["dim"].to_numpy(float),
        "sizes": frame["n_params"].to_numpy(float),
        "pretrain_jets": float(frame["pretrain_jets"].max()) if "pretrain_jets" in frame else 0.0,
        "rate": float(frame["rate"].median()) if "rate" in frame else float("nan"),
    }
