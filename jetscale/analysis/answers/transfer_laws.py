"""The laws of transfer L(N, D_pre, D) of a fit, with their replicates, as a total budget needs them.

Shapes: R replicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers.fitted import Fitted, fitted_of
from jetscale.analysis.answers.saved_fit import SavedFit
from jetscale.analysis.answers.total_budget import EffectiveData
from jetscale.analysis.fitting.approach3 import NAME
from jetscale.analysis.fitting.cost import SAME, Cost
from jetscale.analysis.tables.loss_table import PRETRAIN_JETS
from jetscale.common.usage import UsageError

Array = NDArray[np.float64]

LAW = "effective_data"
COMMON = ("log_A", "log_B", "log_E", "alpha", "beta")
OWN = ("log_k", "p", "q")


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest N, D_pre and D of a composition's runs."""

    N: tuple[float, float]
    D_pre: tuple[float, float]
    D: tuple[float, float]


@dataclass(frozen=True)
class Transfer:
    """Laws of scratch and of every composition.

    Attributes
    ----------
    laws : by composition, the law of the data and of its R replicates (None where there are none).
    scratch : the same without pretraining.
    ranges : of what was fitted, by composition.
    method, dof : model of errors behind the replicates.
    price : FLOPs a parameter and jet of the table, where no other price is given.
    most : largest fitted C of any run.
    sample : what D counts.
    """

    laws: dict[str, tuple[EffectiveData, EffectiveData | None]]
    scratch: tuple[EffectiveData, EffectiveData | None]
    ranges: dict[str, Ranges]
    method: str
    dof: float
    price: float
    most: float
    sample: str


def transfer_of(fit: SavedFit) -> Transfer:
    """Laws of transfer of a fit.

    Parameters
    ----------
    fit : in memory or read back from a folder.

    Raises
    ------
    UsageError
        There is no law of transfer, or none with a power of D_pre; the sizes do not say how the loss falls
        with N; C is not k N D.
    """
    results, theta = fit.results, _theta(fit)
    prefix = f"transfer.{LAW}."
    drawn = {
        key.removeprefix(prefix): value for key, value in fit.joint_draws.items() if key.startswith(prefix)
    }
    rows = fitted_of(results, fit.losses)
    laws, ranges = {}, {}
    for name in _with_power(fit, theta):
        groups = results["transfer"][name]["groups"]
        ranges[name] = _ranges([rows[group] for group in groups], groups.values())
        laws[name] = (law_of(theta, name), law_of(drawn, name) if drawn else None)
    joint = results.get("joint") or {}
    dof = joint.get("dof")
    return Transfer(
        laws=laws,
        scratch=(law_of(theta, None), law_of(drawn, None) if drawn else None),
        ranges=ranges,
        method=joint.get("method", "wild"),
        dof=np.inf if dof is None else float(dof),
        price=_price(fit),
        most=max(one.reach["C"][1] for one in rows.values()),
        sample=results["sample"],
    )


def _theta(fit: SavedFit) -> dict[str, float]:
    """Parameters of the law, where the runs determine all that a total budget needs."""
    entry = (fit.results.get("transfer_laws") or {}).get("laws", {}).get(LAW)
    if not entry or not entry.get("theta"):
        raise UsageError(
            f"{fit.name}: no law of transfer was fitted, on which a total budget stands; it needs runs from"
            " scratch and runs of a composition, in one table"
        )
    if entry.get("held"):
        raise UsageError(
            f"{fit.name}: runs of one or two sizes do not say how the loss falls with N, so the best N for a"
            " total budget is not known; train three widths or more (model.dim=...,...,...)"
        )
    theta: dict[str, float] = entry["theta"]
    return theta


def _with_power(fit: SavedFit, theta: Mapping[str, float]) -> list[str]:
    """Compositions whose law says what more pretraining brings."""
    found, unknown = [], []
    for name, one in fit.results["transfer"].items():
        if not theta.get(f"{name}.p"):
            continue  # pretrained on one amount only: what more of it would bring is not known
        if one["D_T"]["value"] is None:
            unknown.append(f"{name} ({one['refused'].get('k', 'no reason given')})")
        else:
            found.append(name)
    if unknown and not found:
        raise UsageError(f"{fit.name}: what pretraining is worth is not determined: {'; '.join(unknown)}")
    if not found:
        raise UsageError(
            f"{fit.name}: every composition was pretrained on one amount of data only, so the law does not"
            " say what more pretraining brings; train with two amounts or more (pretrain.steps=...,...)"
        )
    return found


def _ranges(fitted: Sequence[Fitted], pretrained: Iterable[float | None]) -> Ranges:
    """Reach of all groups of a composition; `pretrained` has their jets of pretraining, where known."""
    jets = [amount for amount in pretrained if amount]
    if not jets:
        jets = [float(one.rows[PRETRAIN_JETS].max()) for one in fitted if PRETRAIN_JETS in one.rows]
    ends = {axis: [end for one in fitted for end in one.reach[axis]] for axis in ("N", "D")}
    return Ranges(
        N=(min(ends["N"]), max(ends["N"])), D_pre=(min(jets), max(jets)), D=(min(ends["D"]), max(ends["D"]))
    )


def _price(fit: SavedFit) -> float:
    """K of C = k N D, which a total budget adds up: of all subsets alike.

    A subset without a law of its own has no cost; the table's k is the one it was given.
    """
    k, costs = float(fit.results["flops_per_param_sample"]), {}
    for name, entry in fit.results["subsets"].items():
        if "cost" in entry[NAME]:
            costs[name] = Cost.from_json(entry[NAME]["cost"])
    for name, cost in costs.items():
        if cost.problem or not cost.is_constant:
            raise UsageError(
                f"{fit.name}: a total budget adds up k N D of both phases, and C of {name} is not k N D"
                f" ({cost.problem or cost.warning}); it cannot be planned with this C"
            )
    prices = [cost.k for cost in costs.values()] or [k]
    if max(prices) > SAME * min(prices):
        raise UsageError(
            f"{fit.name}: C / (N D) is {min(prices):.4g} to {max(prices):.4g} in different subsets, so a"
            " total budget cannot compare them"
        )
    return float(np.median(prices))


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
