"""Last loss against learning rate: one panel a subset, one line a width, stars at the vertices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jetscale.common import figure_style as style
from jetscale.common.figure_axes import log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jetscale.analysis.answers.rate_rule import Best
    from jetscale.analysis.answers.rate_scan import Rates

COLUMNS = 3


def draw_rates(rates: Rates) -> Figure:
    """Draw mean losses of every rate, the parabolas, their vertices and each subset's rule."""
    names = style.ordered(list(rates.best))
    widths = sorted({one.scan.dim for found in rates.best.values() for one in found})
    tried = sorted({float(rate) for found in rates.best.values() for one in found for rate in one.scan.rates})
    figure, panels = style.panels(len(names), COLUMNS)
    for panel, name in zip(panels, names, strict=True):
        for one in rates.best[name]:
            _draw(panel, one, widths.index(one.scan.dim))
        panel.set(xscale="log", title=style.caption(name))
        panel.set(xlabel="learning rate of fine-tuning")
        panel.set_ylabel(f"last test loss (nats, {rates.weights} weights)")
        log_axis(panel, "y")
        panel.set_xticks(tried, [f"{rate:g}" for rate in tried], rotation=45)
        panel.set_xticks([], minor=True)
    lowest, highest = zip(*(panel.get_ylim() for panel in panels), strict=True)
    for panel in panels:
        panel.set_ylim(min(lowest), max(highest))
    panels[0].plot([], [], "*", color="w", ms=11, mec="k", label="vertex")
    panels[0].legend(fontsize=7, loc="upper center")
    return figure


def _draw(panel: Axes, one: Best, rank: int) -> None:
    line, marker = style.line(rank), style.MARKERS[rank % len(style.MARKERS)]
    scan = one.scan
    panel.plot(scan.rates, np.exp(scan.log_L), marker=marker, ms=4, lw=1.0, label=f"dim = {scan.dim}", **line)
    if one.parabola is None:
        return
    bend, lowest = one.parabola
    middle = int(scan.log_L.argmin())
    x = np.linspace(np.log(scan.rates[middle - 1]), np.log(scan.rates[middle + 1]), 40)
    panel.plot(np.exp(x), np.exp(lowest + bend / 2 * (x - one.log_rate) ** 2), color=line["color"], lw=0.6)
    panel.plot(np.exp(one.log_rate), np.exp(lowest), "*", color=line["color"], ms=11, mec="k", mew=0.5)
