"""All subsets in one panel each: the lowest loss of any size against D, N* and D* against C.

Drawn from the content of results.json and the loss table.

Shapes: S sizes, G points of the grid in ln D.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers.fitted import Fitted, fitted_of
from jetscale.analysis.output.optima import law_of
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
    optimal = [
        ("N", "optimal size N* (parameters)"),
        ("D", f"optimal data D* ({losses.sample}s)"),
    ]
    shown = optimal if any(_has_optimum(results, name) for name in names) else []
    figure = style.new_figure(3.8 * (1 + len(shown)), 3.7)
    over_data, *others = np.atleast_1d(figure.subplots(1, 1 + len(shown)))
    log_axis(over_data, "x")
    log_axis(over_data, "y")
    groups = losses.groups()
    for rank, name in enumerate(names):
        rows = selection.of_weights(groups[name], results["settings"]["weights"], losses)
        is_curve = rows.groupby("n_params")["jets"].nunique().max() > 1
        look = style.line(rank) if is_curve else {**style.mark(rank), "ls": "none", "ms": 4}
        over_data.plot(*lowest(rows), lw=1.6, label=style.caption(name), **look)
    over_data.set(xlabel=f"data D ({losses.sample}s)", ylabel="test loss (nats)")
    over_data.set_title("lowest loss of any size")
    over_data.legend(fontsize=7, loc="best")
    fitted = fitted_of(results, losses)
    for axes, (symbol, label) in zip(others, shown, strict=True):
        _optimum(axes, results, fitted, names, symbol)
        axes.set(ylabel=label, title=label.partition(f" {symbol}*")[0])
    return figure


def _has_optimum(results: dict[str, Any], name: str) -> bool:
    slices = results["subsets"][name]["approach2"].get("slices", [])
    return law_of(results, name) is not None or any(not one["problem"] for one in slices)


def lowest(rows: pd.DataFrame) -> tuple[Array, Array]:
    """Lowest mean loss of any size against D.

    Parameters
    ----------
    rows : test losses of one subset.

    Returns
    -------
    D, and the loss there: means over the runs of a size, between two D by straight lines in ln D and ln L.
    NaN stands where the curve of the best size ends: what follows is of another size.
    """
    curves = []
    for _, of_size in rows.groupby("n_params"):
        mean = np.log(of_size["loss"]).groupby(np.log(of_size["jets"])).mean()
        curves.append((mean.index.to_numpy(float), mean.to_numpy(float)))
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    if any(len(x) > 1 for x, _ in curves):
        grid = np.linspace(grid[0], grid[-1], GRID)
    loss_SG = np.stack([np.interp(grid, x, y, left=np.inf, right=np.inf) for x, y in curves])
    best, least = loss_SG.argmin(axis=0), loss_SG.min(axis=0)
    # where the best size goes no further
    gaps = np.flatnonzero(np.isinf(loss_SG[best[:-1], np.arange(1, len(grid))])) + 1
    least[np.isinf(least)] = np.nan
    return np.exp(np.insert(grid, gaps, grid[gaps])), np.exp(np.insert(least, gaps, np.nan))


def _optimum(
    axes: Axes, results: dict[str, Any], fitted: Mapping[str, Fitted], names: list[str], symbol: str
) -> None:
    """N* or D* of all subsets against compute."""
    log_axis(axes, "x")
    log_axis(axes, "y")
    for rank, name in enumerate(names):
        fit, line = results["subsets"][name], style.line(rank)
        used = [one for one in fit["approach2"].get("slices", []) if not one["problem"]]
        stars = [one[f"{symbol}_star"] for one in used]
        axes.plot([one["C"] for one in used], stars, ls="none", ms=4, mfc="none", **style.mark(rank))
        law = law_of(results, name)
        if law is None:
            continue
        surface, cost = law
        low, high = fitted[name].reach["C"]
        log_C = np.linspace(np.log(low), np.log(high), GRID)
        best = np.exp(np.clip(cost.optimum(surface, log_C)["ND".index(symbol)][0], -700, 700))
        axes.plot(np.exp(log_C), best, lw=1.4, label=style.caption(name), **line)
        ends = (fit["errors"].get("profile") or {}).get(f"approach3.{symbol}_star", {}).get("ci95")
        if ends is not None:
            axes.plot([high, high], ends, color=line["color"], lw=1.2, marker="_", ms=6)
    ends = [end for name in names if name in fitted for end in fitted[name].reach[symbol]]
    for end in (min(ends), max(ends)):
        axes.axhline(end, color="0.5", lw=0.8, ls=":")
    axes.set_ylim(min(ends) / 4, max(ends) * 4)
    axes.set_xlabel("compute C (FLOPs)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="best")
