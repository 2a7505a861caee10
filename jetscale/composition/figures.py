"""Figures of compositions: the map of diversity against alignment, and the observables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jetscale.common import figure_style as style
from jetscale.composition.measures import Row
from jetscale.composition.observables import OBSERVABLES, JetTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_figures(rows: dict[str, Row], samples: dict[str, JetTable], out: Path) -> list[Path]:
    """SVG and PNG of both figures in `out`; the SVGs' paths.

    Parameters
    ----------
    rows : measures by composition
    samples : jets by composition; the downstream ones under the empty name
    """
    with style.style():
        return [
            style.save(draw_map(rows), out, "map"),
            style.save(draw_observables(samples), out, "observables"),
        ]


def draw_map(rows: dict[str, Row]) -> Figure:
    """Alignment (AUC) against both measures of diversity, with 95% intervals."""
    from matplotlib.ticker import LogLocator

    labels = {
        "effective_classes": "effective number of classes",
        "vendi": "effective number of unlike jets (Vendi)",
    }
    figure = style.new_figure(10.0, 4.2)
    for axes, (x, label) in zip(figure.subplots(1, 2, sharey=True), labels.items(), strict=True):
        for rank, (name, row) in enumerate(rows.items()):
            ends = [[[abs(row[key].value - end)] for end in row[key].ci95] for key in (x, "auc")]
            look = {"color": style.line(rank)["color"], "marker": style.MARKERS[(rank + rank // 7) % 7]}
            axes.errorbar(
                row[x].value, row["auc"].value, xerr=ends[0], yerr=ends[1], label=style.caption(name), ls="",
                capsize=2, markersize=6, **look,
            )  # fmt: skip
        axes.set_xlabel(label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    first, last = figure.axes
    first.set_ylabel("AUC against downstream jets\n(0.5: aligned)")
    first.invert_yaxis()
    last.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_observables(samples: dict[str, JetTable]) -> Figure:
    """Distribution of every observable; the downstream jets, under the empty name, as grey areas."""
    figure = style.new_figure(11.0, 5.2)
    panels = figure.subplots(2, 4).ravel()
    for column, (axes, name) in enumerate(zip(panels, samples[""].observables, strict=False)):
        values = {subset: jets.values_BO[:, column] for subset, jets in samples.items()}
        bins = _bins(np.concatenate(list(values.values())), whole=OBSERVABLES[name].is_count)
        axes.hist(values[""], bins, density=True, color="0.85", label="downstream")
        for rank, (subset, jets) in enumerate((subset, jets) for subset, jets in values.items() if subset):
            axes.hist(
                jets, bins, density=True, histtype="step", label=style.caption(subset), **style.line(rank)
            )
        axes.set_xlabel(OBSERVABLES[name].label)
        axes.set_yticks([])
    panels[0].set_ylabel("jets, normalised")
    panels[-1].axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center")
    return figure


def _bins(values: style.Array, *, whole: bool) -> style.Array:
    """Edges of about 40 bins; of whole numbers for counts."""
    low, high = np.quantile(values, [0.002, 0.99]).tolist()
    if not whole:
        return np.linspace(low, high, 41)
    step = max(1.0, (high - low) // 40)
    return np.arange(np.floor(low) - 0.5, high + step, step)
