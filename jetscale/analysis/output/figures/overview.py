"""All subsets in one panel each: the lowest loss of any size against D, N* and D* against C.

Drawn from the content of results.json and the loss table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.output.optima import law_of, ranges
from jetscale.analysis.tables import selection
from jetscale.common import figure_style as style
from jetscale.common.figure_axes import log_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jetscale.analysis.tables.loss_table import LossTable

Array = NDArray[np.float64]

GRID = 60


def draw_overview(results: dict[str, Any], losses: LossTable, names: list[str]) -> Figure:
    """Draw the loss against D, N* against C and D* against C.

    Parameters
    ----------
    results : content of results.json.
    losses : the table behind it.
    names : of the subsets, in the order of the legend.
    """
    figure = style.new_figure(11.4, 3.7)
    over_data, sizes, data = figure.subplots(1, 3)
    log_axis(over_data, "x")
    log_axis(over_data, "y")
    groups = losses.groups()
    for rank, name in enumerate(names):
        rows = selection.of_weights(groups[name], results["settings"]["weights"], losses)
        D, loss = lowest(rows)
        over_data.plot(D, loss, lw=1.6, label=style.caption(name), **style.line(rank))
    over_data.set(xlabel=f"data D ({losses.sample}s)", ylabel="test loss (nats)")
    over_data.set_title("lowest loss of any size")
    over_data.legend(fontsize=7)
    _optimum(sizes, results, losses.frame, names, ("N", "n_params"))
    sizes.set(ylabel="optimal size N* (parameters)", title="optimal size")
    _optimum(data, results, losses.frame, names, ("D", "jets"))
    data.set(ylabel=f"optimal data D* ({losses.sample}s)", title="optimal data")
    return figure


def lowest(rows: pd.DataFrame) -> tuple[Array, Array]:
    """Lowest mean loss of any size against D.

    Parameters
    ----------
    rows : test losses of one subset.

    Returns
    -------
    D, and the loss there: means over the runs of a size, between two D by straight lines in ln D and ln L.
    """
    curves = []
    for _, of_size in rows.groupby("n_params"):
        mean = np.log(of_size["loss"]).groupby(np.log(of_size["jets"])).mean()
        curves.append((mean.index.to_numpy(float), mean.to_numpy(float)))
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    if any(len(x) > 1 for x, _ in curves):
        grid = np.linspace(grid[0], grid[-1], GRID)
    found = np.stack([np.interp(grid, x, y, left=np.inf, right=np.inf) for x, y in curves]).min(axis=0)
    inside = np.isfinite(found)
    return np.exp(grid[inside]), np.exp(found[inside])


def _optimum(
    axes: Axes, results: dict[str, Any], frame: pd.DataFrame, names: list[str], which: tuple[str, str]
) -> None:
    """N* or D* (`which`, with the column of the loss table) of all subsets against compute."""
    symbol, column = which
    log_axis(axes, "x")
    log_axis(axes, "y")
    reached = ranges(frame)
    for rank, name in enumerate(names):
        fit, line = results["subsets"][name], style.line(rank)
        used = [one for one in fit["approach2"].get("slices", []) if not one["problem"]]
        stars = [one[f"{symbol}_star"] for one in used]
        axes.plot([one["C"] for one in used], stars, ls="none", ms=4, mfc="none", **style.mark(rank))
        law = law_of(results, name)
        if law is None:
            continue
        surface, cost = law
        low, high = reached[name]["flops"]
        log_C = np.linspace(np.log(low), np.log(high), GRID)
        best = np.exp(np.clip(cost.optimum(surface, log_C)["ND".index(symbol)][0], -700, 700))
        axes.plot(np.exp(log_C), best, lw=1.4, label=style.caption(name), **line)
        ends = (fit["errors"].get("profile") or {}).get(f"approach3.{symbol}_star", {}).get("ci95")
        if ends is not None:
            axes.plot([high, high], ends, color=line["color"], lw=1.2, marker="_", ms=6)
    ends = [end for name in names if name in reached for end in reached[name][column]]
    for end in (min(ends), max(ends)):
        axes.axhline(end, color="0.5", lw=0.8, ls=":")
    axes.set_ylim(min(ends) / 4, max(ends) * 4)
    axes.set_xlabel("compute C (FLOPs)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
