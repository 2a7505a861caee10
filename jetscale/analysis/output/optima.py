"""Optima of the fitted laws at a budget, from results.json and what was fitted: for the report's first page.

Intervals of a plan need the replicates, and so `jetscale.analysis.answers.planning`; here is what the point
fits say of all subsets side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers.fitted import Fitted
from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.pins import pinned_form
from jetscale.analysis.fitting.surface import Surfaces

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Optimum:
    """What a subset's law says of a budget.

    Attributes
    ----------
    N, D, loss : the optimum: parameters, samples, nats.
    outside : whether N or D is beyond what was fitted.
    missed : rms of the bends that the law misses, relative to the loss; 0 where no test found them.
    """

    N: float
    D: float
    loss: float
    outside: bool
    missed: float


def law_of(results: dict[str, Any], name: str) -> tuple[Surfaces, Cost] | None:
    """Surface and cost of a subset; None where approach 3 gives no optimum or an early version kept none.

    Parameters
    ----------
    results : content of results.json.
    name : of the subset.
    """
    three = results["subsets"][name]["approach3"]
    if three["a"]["value"] is None or "surface" not in three:
        return None
    settings = results["settings"]["approach3"]
    form = pinned_form(settings["form"], settings.get("pin", {}))
    theta = np.array([[three["surface"][key] for key in form.parameters]])
    return Surfaces.from_theta(theta, form), Cost.from_json(three["cost"])


def common_budget(results: dict[str, Any], fitted: Mapping[str, Fitted]) -> float | None:
    """Largest C that every subset with a law was trained at; None without a law.

    Parameters
    ----------
    results : content of results.json.
    fitted : what lies behind each subset's fit.
    """
    ends = [
        fitted[name].reach["C"][1]
        for name in results["subsets"]
        if name in fitted and law_of(results, name) is not None
    ]
    return min(ends, default=None)


def optima(results: dict[str, Any], fitted: Mapping[str, Fitted], C: float) -> dict[str, Optimum]:
    """Optimum of every subset that has a law.

    Parameters
    ----------
    results : content of results.json.
    fitted : what lies behind each subset's fit.
    C : budget of fine-tuning in FLOPs.

    Returns
    -------
    By subset.
    """
    found = {}
    for name, fit in results["subsets"].items():
        law = law_of(results, name)
        if law is None:
            continue
        surface, cost = law
        budget = np.log(np.array([C]))
        log_N, log_D = (float(value[0, 0]) for value in cost.optimum(surface, budget))
        outside = any(
            not low <= np.exp(value) <= high
            for value, (low, high) in ((log_N, fitted[name].reach["N"]), (log_D, fitted[name].reach["D"]))
        )
        found[name] = Optimum(
            N=float(np.exp(log_N)),
            D=float(np.exp(log_D)),
            loss=float(np.exp(cost.optimal_log_loss(surface, budget)[0, 0])),
            outside=outside,
            missed=(fit.get("lack_of_fit") or {}).get("bend_rms", 0.0),
        )
    return found
