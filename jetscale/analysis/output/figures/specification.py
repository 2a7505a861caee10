"""Specification plot of the multiverse: a under every choice that moves it, one panel a subset.

Drawn from the content of results.json alone.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.analysis.fitting.approach import approaches
from jetscale.analysis.output.figures.forest import REACH
from jetscale.common import figure_style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOVED = 0.005
"""Of a: a choice that moves no approach by more is told in a sentence, not drawn."""
MOST = 14
"""Choices drawn for a subset, those that move a most."""
COLUMNS = 2


def moves(rows: list[dict[str, Any]]) -> list[tuple[float, dict[str, Any]]]:
    """Choices that move a, the largest move first.

    Parameters
    ----------
    rows : of one subset in ``multiverse``; the first is the fit as it was set.

    Returns
    -------
    Largest move of a by any approach, and the row; infinite where a has a value under one of the two only.
    """
    first = rows[0]
    found = [(_largest(first, row), row) for row in rows[1:] if not row.get("problem")]
    return sorted((one for one in found if one[0] > MOVED), key=lambda one: -one[0])


def _largest(first: dict[str, Any], row: dict[str, Any]) -> float:
    moved = [0.0]
    for one in approaches():
        before, after = first.get(f"{one.name}.a"), row.get(f"{one.name}.a")
        if (before is None) != (after is None):
            return float("inf")
        if before is not None and after is not None:
            moved.append(abs(after - before))
    return max(moved)


def draw_specification(results: dict[str, Any], names: list[str]) -> Figure | None:
    """Draw a panel for every subset in which a choice moves a; None where there is none.

    Parameters
    ----------
    results : content of results.json.
    names : of the subsets, in order.
    """
    tables = {name: (results.get("multiverse") or {}).get(name) for name in names}
    moving = {name: (rows[0], moves(rows)[:MOST]) for name, rows in tables.items() if rows}
    moving = {name: pair for name, pair in moving.items() if pair[1]}
    if not moving:
        return None
    across = min(COLUMNS, len(moving))
    down = -(-len(moving) // across)
    most = max(len(rows) for _, rows in moving.values())
    figure = style.new_figure(6.4 * across, down * (1.3 + 0.24 * most))
    panels = list(np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel())
    for spare in panels[len(moving) :]:
        spare.remove()
    for axes, (name, (first, rows)) in zip(panels, moving.items(), strict=False):
        _draw(axes, results["subsets"][name], first, [row for _, row in rows])
        axes.set(title=style.caption(name), xlabel="exponent a")
    style.legend_above(figure)
    return figure


def _draw(axes: Axes, fit: dict[str, Any], first: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    labels = ["as set", *(row["choice"] for row in rows)]
    axes.set_yticks(np.arange(len(labels)), [textwrap.shorten(text, 44) for text in labels], fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    for rank, one in enumerate(approaches()):
        look = style.mark(1 + rank)
        known = [(y, row.get(f"{one.name}.a")) for y, row in enumerate([first, *rows])]
        values = [(y, min(max(value, REACH[0]), REACH[1])) for y, value in known if value is not None]
        axes.plot([x for _, x in values], [y for y, _ in values], ms=5, ls="none", label=one.label, **look)
        ends = fit[one.name]["a"]["ci95"]
        if ends is not None:
            band = np.clip(ends, *REACH)
            axes.axvspan(*band, color=look["color"], alpha=0.1, lw=0)
            axes.axvline(fit[one.name]["a"]["value"], color=look["color"], lw=0.8)
