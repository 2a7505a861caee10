"""Approach 1, as every subset is fitted by it: `envelope` does the work.

Shapes: R replicates, P points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.approach import Approach
from jetscale.analysis.fitting.envelope import Envelope, fit_envelope, problems
from jetscale.analysis.fitting.surface import SurfaceForm
from jetscale.analysis.fitting.task import Task

Array = NDArray[np.float64]


class EnvelopeApproach(Approach):
    """Power laws along the lower envelope of all (C, loss) points."""

    label = "approach 1"
    title = "envelope"
    grid_bias = "envelope_bias"

    def draws(self, task: Task, log_L_RP: Array, weight_RP: Array) -> dict[str, Array]:
        """See `Approach.draws`; besides the intercepts ln cN and ln cD of N* = cN C^a and D* = cD C^b."""
        found = _envelope(task, log_L_RP, weight_RP)
        return {"a": found.a, "b": found.b, "log_cN": found.log_cN, "log_cD": found.log_cD}

    def point(self, task: Task) -> tuple[dict[str, float], list[str]]:
        """See `Approach.point`."""
        values, warnings = super().point(task)
        if not np.isfinite(values["a"]):
            warnings.append(f"approach 1: no exponent: {_problem(task)}")
        return values, warnings

    def describe(self, task: Task) -> dict[str, Any]:
        """Definition of the envelope, and how many points and how many runs or sizes make it."""
        member = envelope_members(task)
        return {
            "envelope": task.settings.approach1.envelope,
            "points": int(member.sum()),
            "runs": len(np.unique(task.curves.cell[member])),
        }

    def shown(self, form: SurfaceForm) -> tuple[str, ...]:  # noqa: ARG002 (the interface has it)
        """B is 1 - a on most grids."""
        return ("a",)

    def cells(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Bias and size of the envelope."""
        noun = "sizes" if entry["points"] != entry["runs"] else "runs"
        return {
            "predicted bias of a": entry.get("envelope_bias_a"),
            "envelope": f"{entry['envelope']}: {entry['points']} points of {entry['runs']} {noun}",
        }


def _envelope(task: Task, log_L_RP: Array, weight_RP: Array) -> Envelope:
    one, c = task.settings.approach1, task.curves
    inner = c.bracketed if c.is_curve else None
    weight_RP = weight_RP * ~task.outliers.below
    return fit_envelope(c.log_N, c.log_D, c.log_C, log_L_RP, weight_RP, one.envelope, one.bins, inner)


def envelope_members(task: Task) -> NDArray[np.bool_]:
    """Points of the data on the envelope, (P,)."""
    ones = np.ones((1, len(task.log_L_P)))
    return np.asarray(_envelope(task, task.log_L_P[None], ones).member_RP[0])


def _problem(task: Task) -> str:
    """Why the envelope of the data gives no exponent; "" where it gives one."""
    c, member = task.curves, envelope_members(task)[None]
    inner = c.bracketed if c.is_curve else None
    return problems(c.log_N, c.log_D, c.log_C, member, inner, ~task.outliers.below[None])[0]
