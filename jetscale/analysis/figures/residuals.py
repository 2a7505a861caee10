"""Residuals of approach 3 against N and D: a bend is lack of fit, a widening is noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jetscale.analysis.figures.style import COLOURS, LOSS_MAP, new_figure
from jetscale.analysis.figures.subset import surface_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jetscale.analysis.results import SubsetFit


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
        dots = axes.scatter(np.exp(x), residual, c=other, s=10, cmap=LOSS_MAP)
        figure.colorbar(dots, ax=axes, label=other_label)
        axes.axhline(0, color="0.3", lw=0.8)
        axes.set(xscale="log", xlabel=label, ylabel="observed / fitted loss - 1 (%)")
    draws = subset.draws.get("approach3.a")
    if draws is not None and np.isfinite(draws).any():
        spread.hist(draws[np.isfinite(draws)], bins=40, color=COLOURS[5], edgecolor="k", lw=0.3)
        spread.axvline(float(surface.a[0]), color=COLOURS[1], lw=1.5, label="fit")
        spread.legend()
        spread.set(xlabel="a, approach 3", ylabel=f"replicates ({subset.method})")
    else:
        spread.set_axis_off()
    return figure
