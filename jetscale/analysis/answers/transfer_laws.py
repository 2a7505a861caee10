"""The laws of transfer L(N, D_pre, D) of a fit, with their replicates, as a total budget needs them.

Shapes: R replicates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers.total_budget import EffectiveData
from jetscale.analysis.fitting.numbers import plain
from jetscale.analysis.tables.loss_table import PRETRAIN_JETS, names_of_groups
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from jetscale.analysis.answers.fit_result import FitResult

Array = NDArray[np.float64]

LAW = "effective_data"
COMMON = ("log_A", "log_B", "log_E", "alpha", "beta")
OWN = ("log_k", "p", "q")


@dataclass(frozen=True)
class Ranges:
    """Largest N, D_pre and D of a composition's runs."""

    N: float
    D_pre: float
    D: float


@dataclass(frozen=True)
class Transfer:
    """Laws of scratch and of every composition.

    Attributes
    ----------
    laws : by composition, the law of the data and of its R replicates (None where there are none).
    scratch : the same without pretraining.
    ranges : of the runs, by composition.
    method, dof : model of errors behind the replicates.
    price : FLOPs a parameter and jet of the table, where no other price is given.
    sample : what D counts.
    """

    laws: dict[str, tuple[EffectiveData, EffectiveData | None]]
    scratch: tuple[EffectiveData, EffectiveData | None]
    ranges: dict[str, Ranges]
    method: str
    dof: float
    price: float
    sample: str


def from_result(result: FitResult) -> Transfer:
    """Laws of transfer of a fit in memory; UsageError as in `from_folder`."""
    draws = getattr(result, "joint_draws", {})
    return _transfer(
        json.loads(json.dumps(plain(result.to_json()))), draws, result.losses.frame, "these results"
    )


def from_folder(folder: Path) -> Transfer:
    """Laws of transfer of a saved fit.

    Raises
    ------
    UsageError
        No results in the folder; no law of transfer in them, or none with a power of D_pre.
    """
    import pandas as pd

    if not (folder / "results.json").is_file():
        raise UsageError(
            f"{folder}: no results.json; run `python -m jetscale.analysis` first, with out={folder}"
        )
    draws: dict[str, Array] = {}
    if (folder / "joint.parquet").is_file():
        rows = pd.read_parquet(folder / "joint.parquet")
        draws = {str(key): rows[key].to_numpy(float) for key in rows}
    results = json.loads((folder / "results.json").read_text())
    return _transfer(results, draws, pd.read_parquet(folder / "losses.parquet"), str(folder))


def _transfer(
    results: dict[str, Any], draws: Mapping[str, Array], frame: pd.DataFrame, source: str
) -> Transfer:
    entry = (results.get("transfer_laws") or {}).get("laws", {}).get(LAW)
    if not entry or not entry.get("theta"):
        raise UsageError(
            f"{source}: no law of transfer was fitted, on which a total budget stands; it needs runs from"
            " scratch and runs of a composition, in one table"
        )
    theta, laws, ranges = entry["theta"], {}, {}
    prefix = f"transfer.{LAW}."
    drawn = {key.removeprefix(prefix): value for key, value in draws.items() if key.startswith(prefix)}
    unknown: list[str] = []
    for name, one in results["transfer"].items():
        groups = one["groups"]
        if not theta.get(f"{name}.p"):
            continue  # pretrained on one amount only: what more of it would bring is not known
        if one["D_T"]["value"] is None:
            unknown.append(f"{name} ({one['refused'].get('k', 'no reason given')})")
            continue
        rows = frame[np.isin(names_of_groups(frame), list(groups))]
        jets = [amount for amount in groups.values() if amount]
        if PRETRAIN_JETS in rows and not jets:
            jets = [float(rows[PRETRAIN_JETS].max())]
        ranges[name] = Ranges(float(rows["n_params"].max()), max(jets), float(rows["jets"].max()))
        laws[name] = (law_of(theta, name), law_of(drawn, name) if drawn else None)
    if unknown and not laws:
        raise UsageError(f"{source}: what pretraining is worth is not determined: {'; '.join(unknown)}")
    if not laws:
        raise UsageError(
            f"{source}: every composition was pretrained on one amount of data only, so the law does not say"
            " what more pretraining brings; train with two amounts or more (pretrain.steps=...,...)"
        )
    joint = results.get("joint") or {}
    dof = joint.get("dof")
    return Transfer(
        laws=laws,
        scratch=(law_of(theta, None), law_of(drawn, None) if drawn else None),
        ranges=ranges,
        method=joint.get("method", "wild"),
        dof=np.inf if dof is None else float(dof),
        price=float(results["flops_per_param_sample"]),
        sample=results["sample"],
    )


def law_of(theta: Mapping[str, Any], composition: str | None) -> EffectiveData:
    """Law of one composition, or of scratch.

    Parameters
    ----------
    theta : parameters by their names in results.json (`transfer_laws`), numbers or (R,) of replicates.
    composition : its name; None for scratch.
    """
    common = [np.atleast_1d(np.asarray(theta[key], dtype=np.float64)) for key in COMMON]
    if composition is None:
        none = np.full_like(common[0], -np.inf)
        own = [none, 0 * common[0], 0 * common[0]]
    else:
        own = [np.atleast_1d(np.asarray(theta[f"{composition}.{key}"], dtype=np.float64)) for key in OWN]
    return EffectiveData(np.stack([*common, *own], axis=1))
