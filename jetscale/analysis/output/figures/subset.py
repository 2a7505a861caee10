"""Figures of one subset: the paper's figures 1 and 2, and the residuals of approach 3.

The first has loss contours, isoFLOP slices and optima against compute. In the second a bend is lack of fit,
a widening is noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.approach1 import envelope_members
from jetscale.analysis.fitting.approach2 import slices_of
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.fitting.task import Task
from jetscale.common.figure_axes import log_axis
from jetscale.common.figure_style import (
    COLOURS,
    DASHES,
    LOSS_MAP,
    MARKERS,
    caption,
    coloured_points,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jetscale.analysis.answers.fit_result import SubsetFit

Array = NDArray[np.float64]

MAX_SLICES_DRAWN = 7


def draw_subset(subset: SubsetFit, sample: str) -> Figure:
    """Draw three panels for one subset."""
    task = subset.task
    assert task is not None
    surface = surface_of(subset)
    figure = new_figure(13.0, 4.2)
    contours, slices, optima = figure.subplots(1, 3)
    figure.suptitle(f"{caption(subset.name)}: {subset.n_runs} runs, {subset.n_sizes} sizes", fontsize=11)
    draw_contours(contours, task, surface, sample)
    draw_slices(slices, task, surface)
    draw_optima(optima, subset, task, surface, sample)
    return figure


def surface_of(subset: SubsetFit) -> Surfaces | None:
    """Surface of the point fit, where it determines the exponents."""
    three = subset.approach3.get("a")
    return None if three is None or three.value is None else subset.surface


def draw_contours(axes: Axes, task: Task, surface: Surfaces | None, sample: str) -> None:
    """Losses of all points, contours of the surface, frontier, approach-1 crosses."""
    c = task.curves
    _log_axes(axes, c.log_N, c.log_D)
    loss_P = np.exp(task.log_L_P)
    coloured_points(axes, c.log_N, c.log_D, loss_P, "test loss (nats)")
    if surface is not None:
        log_N, log_D = (
            np.linspace(c.log_N.min(), c.log_N.max(), 80),
            np.linspace(c.log_D.min(), c.log_D.max(), 80),
        )
        grid_N, grid_D = np.meshgrid(log_N, log_D)
        loss = np.exp(surface.log_loss(grid_N.ravel(), grid_D.ravel())).reshape(grid_N.shape)
        levels = np.unique(np.quantile(loss, np.linspace(0.05, 0.95, 9)))
        if len(levels) > 1:
            lines = axes.contour(
                np.exp(log_N), np.exp(log_D), loss, levels=levels, colors="0.35", linewidths=0.7
            )
            axes.clabel(lines, fontsize=7, fmt="%.3g")
        log_C = np.linspace(c.log_C.min(), c.log_C.max(), 100)
        best_N, best_D = (np.exp(np.clip(value[0], -700, 700)) for value in task.cost.optimum(surface, log_C))
        axes.plot(best_N, best_D, color=COLOURS[1], lw=1.8, label="frontier, approach 3")
    member = envelope_members(task)
    axes.plot(
        np.exp(c.log_N[member]), np.exp(c.log_D[member]), "x", color=COLOURS[0], ms=6, label="approach 1"
    )
    off = task.outliers.points
    if off.any():
        axes.plot(
            np.exp(c.log_N[off]),
            np.exp(c.log_D[off]),
            "o",
            color=COLOURS[4],
            ms=9,
            mfc="none",
            label="outliers",
        )
    axes.set(xlabel="parameters N", ylabel=f"data D ({sample}s)", title="loss L(N, D)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")


def draw_slices(axes: Axes, task: Task, surface: Surfaces | None) -> None:
    """IsoFLOP slices: observed solid, parametric dashed, vertices starred."""
    axes.set(xlabel="parameters N", ylabel="test loss (nats)", title="isoFLOP slices")
    found = slices_of(task)
    slices = found.profiles.slices
    if not slices:
        text = f"no slice:\n{found.profiles.reason}"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", wrap=True)
        return
    log_axis(axes, "x")
    shown = np.unique(np.linspace(0, len(slices) - 1, min(MAX_SLICES_DRAWN, len(slices))).round().astype(int))
    colours = _colours_of_compute(axes, np.exp([slices[number].log_C for number in shown]))
    for number, colour in zip(shown, colours, strict=True):
        one, vertex = slices[number], found.vertices_N[number]
        log_N = one.at(task.curves.log_N)
        order = np.argsort(log_N)
        loss = np.exp(one.at(task.log_L_P)[order])
        axes.plot(np.exp(log_N[order]), loss, "-", marker="o", ms=3.5, lw=1.0, color=colour)
        if surface is not None:
            fine = np.linspace(log_N.min(), log_N.max(), 60)
            log_D = task.cost.log_data(np.full_like(fine, one.log_C), fine)
            fitted = np.exp(surface.log_loss(fine, log_D)[0])
            axes.plot(np.exp(fine), fitted, "--", color=colour, lw=0.9)
        if not vertex.problem:
            level = np.exp(np.interp(vertex.position, log_N[order], np.log(loss)))
            axes.plot(np.exp(vertex.position), level, "*", color=COLOURS[1], ms=10, mec="k", mew=0.5)
    axes.plot([], [], "o-", color="0.3", ms=3.5, lw=1.0, label="observed")
    axes.plot([], [], "--", color="0.3", lw=0.9, label="approach 3")
    axes.plot([], [], "*", color=COLOURS[1], ms=10, mec="k", mew=0.5, ls="none", label="vertex of a parabola")
    axes.margins(y=0.12)
    axes.legend(fontsize=7, loc="upper center")


def _colours_of_compute(axes: Axes, C: Array) -> Array:
    """Colours of slices at these budgets (S, RGBA), with their bar."""
    import matplotlib as mpl

    norm = mpl.colors.LogNorm(C.min() / 1.05, C.max() * 1.4)  # the palest end of the map is not drawn
    scale = mpl.cm.ScalarMappable(norm, LOSS_MAP)
    axes.figure.colorbar(scale, ax=axes, label="compute C (FLOPs)")
    return np.asarray(scale.to_rgba(C))


def draw_optima(axes: Axes, subset: SubsetFit, task: Task, surface: Surfaces | None, sample: str) -> None:
    """N* and D* against compute, by both approaches."""
    c = task.curves
    _log_axes(axes, c.log_C, np.concatenate([c.log_N, c.log_D]))
    log_C = np.linspace(c.log_C.min(), c.log_C.max(), 50)
    found = slices_of(task)
    budgets = np.exp([one.log_C for one in found.used])
    for rank, (symbol, vertices, exponent, intercept) in enumerate(
        (("N", found.vertices_N, "a", "log_cN"), ("D", found.vertices_D, "b", "log_cD"))
    ):
        colour = COLOURS[1 + rank]
        paired = zip(found.vertices_N, found.vertices_D, vertices, strict=True)
        stars = [v.position for in_N, in_D, v in paired if not in_N.problem and not in_D.problem]
        if stars:
            axes.plot(budgets, np.exp(stars), MARKERS[rank], color=colour, ms=5, mfc="none", ls="none")
        slope, start = subset.approach2[exponent].value, subset.approach2[intercept].value
        if slope is not None and start is not None:
            label = f"{symbol}*, approach 2: {exponent} = {slope:.3f}"
            axes.plot(np.exp(log_C), np.exp(start + slope * log_C), "-", color=colour, lw=1.4, label=label)
        if surface is not None:
            best = np.clip(task.cost.optimum(surface, log_C)[rank][0], -700, 700)
            value = subset.approach3[exponent].value
            label = f"{symbol}*, approach 3" + ("" if value is None else f": {exponent} = {value:.3f}")
            axes.plot(np.exp(log_C), np.exp(best), ls=DASHES[1], color=colour, lw=1.4, label=label)
    member = envelope_members(task)
    if member.any():
        axes.plot(
            np.exp(c.log_C[member]), np.exp(c.log_N[member]), "x", color=COLOURS[0], label="N, approach 1"
        )
    axes.set(xlabel="compute C (FLOPs)", ylabel=f"N* (parameters), D* ({sample}s)")
    axes.set_title("compute-optimal size and data")
    if not axes.has_data():
        axes.text(0.5, 0.5, "no optimum found", transform=axes.transAxes, ha="center", va="center")
        return
    axes.legend(fontsize=7, loc="best")


def _log_axes(axes: Axes, log_x: Array, log_y: Array) -> None:
    """Logarithmic axes that hold these values, also where all are the same."""
    margin = 1.3
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_xlim(np.exp(log_x.min()) / margin, np.exp(log_x.max()) * margin)
    axes.set_ylim(np.exp(log_y.min()) / margin, np.exp(log_y.max()) * margin)


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
        log_axis(axes, "x")
        coloured_points(axes, x, residual, other, other_label, log_y=False)
        axes.axhline(0, color="0.3", lw=0.8)
        axes.set(xlabel=label, ylabel="observed / fitted loss - 1 (%)")
    draws = subset.draws.get("approach3.a")
    found = np.array([]) if draws is None else draws[np.isfinite(draws)]
    if len(found) and np.ptp(found) > 1e-9:
        spread.hist(found, bins=40, color=COLOURS[5], edgecolor="k", lw=0.3)
        spread.axvline(subset.approach3["a"].value or 0.0, color=COLOURS[1], lw=1.5, label="fit")
        spread.legend(loc="best")
        spread.set(xlabel="a, approach 3", ylabel=f"replicates ({subset.method})")
    else:
        spread.set_axis_off()
    return figure
