"""What lies behind a fit: the evaluations that its points are made of, and how far they reach.

A loss table holds more than was fitted: other weights, the warm-up and plateau of a curve, N and C by another
definition. Plans and predictions must not take those for what was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.analysis.fitting import curves
from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.settings import CurveSettings, FitSettings
from jetscale.analysis.tables import selection
from jetscale.analysis.tables.loss_table import LossTable

if TYPE_CHECKING:
    import pandas as pd

COLUMN = {"N": "n_params", "D": "jets", "C": "flops"}
"""Column of a loss table, by axis of the law."""


@dataclass(frozen=True)
class Fitted:
    """What one group's fit was made of.

    Attributes
    ----------
    rows : evaluations behind the fitted points, with N and C as they were fitted.
    reach : smallest and largest N, D and C: from the first fitted point to the last evaluation.
    """

    rows: pd.DataFrame
    reach: dict[str, tuple[float, float]]


def fitted_of(results: Mapping[str, Any], losses: LossTable) -> dict[str, Fitted]:
    """Evaluations behind every group's fit.

    Parameters
    ----------
    results : content of results.json, of this or of an earlier version.
    losses : the table that was fitted.

    Returns
    -------
    By group.
    """
    settings = _settings(results["settings"])
    steps = settings.curves.resolved(losses.own_runs)
    found = {}
    for name, frame in losses.groups().items():
        if name in results["subsets"]:
            rows = selection.select(frame, settings, losses)
            found[name] = behind(rows, curves.build(rows, steps))
    return found


def behind(rows: pd.DataFrame, points: CurveSet) -> Fitted:
    """Evaluations behind the points of one group.

    Parameters
    ----------
    rows : those that were selected; row i is evaluation i.
    points : what was made of them.
    """
    used = rows[points.used(len(rows))]
    reach = {}
    for axis, log_P in (("N", points.log_N), ("D", points.log_D), ("C", points.log_C)):
        last = float(used[COLUMN[axis]].max())
        first = min(float(np.exp(log_P.min())), last)  # of a single value exp(ln x) may round above x
        reach[axis] = (first, last)
    return Fitted(used, reach)


def _settings(saved: Mapping[str, Any]) -> FitSettings:
    """Settings in results.json that choose evaluations; an earlier version may lack some."""
    known = {one.name for one in fields(CurveSettings)}
    steps = {key: value for key, value in saved.get("curves", {}).items() if key in known}
    chosen = {key: saved[key] for key in ("weights", "n_params", "flops", "drop_largest") if key in saved}
    return FitSettings(curves=CurveSettings(**steps), **chosen)
