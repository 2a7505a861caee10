"""Residuals of approach 3 against N and D: a bend is lack of fit, a widening is noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jetscale.analysis.output.figures.subset import surface_of
from jetscale.common.figure_style import COLOURS, coloured_points, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jetscale.analysis.answers.fit_result import SubsetFit


def draw_residuals(subset: SubsetFit, sample: str) -> Figure | None:
    """Draw residuals (%) against N and against D, and the replicates of a; None without a surface."""
    task, surface = subset.task, surface_of(subset)
    if surface is None or task is None:
        return None
    c = task.curves
    residual = 100 * (task.log_L_P - surface.log_loss(c.log_N, c.log_D)[0])
    figure = new_figure(12.0, 3.2)
    over_N, over_D, spread = figure.subplots(1, 3)
    for axes, x, other, label, other_label in (
        (over_N, c.log_N, c.log_D, "parameters N", f"ln D ({sample}s)"),
        (over_D, c.log_D, c.log_N, f"data D ({sample}s)", "ln N"),
    ):
        axes.set_xscale("log")
        coloured_points(axes, x, residual, other, other_label, log_y=False)
        axes.axhline(0, color="0.3", lw=0.8)
        axes.set(xlabel=label, ylabel="observed / fitted loss - 1 (%)")
    draws = subset.draws.get("approach3.a")
    found = np.array([]) if draws is None else draws[np.isfinite(draws)]
    if len(found) and np.ptp(found) > 1e-9:
        spread.hist(found, bins=40, color=COLOURS[5], edgecolor="k", lw=0.3)
        spread.axvline(subset.approach3["a"].value or 0.0, color=COLOURS[1], lw=1.5, label="fit")
        spread.legend()
        spread.set(xlabel="a, approach 3", ylabel=f"replicates ({subset.method})")
    else:
        spread.set_axis_off()
    return figure
