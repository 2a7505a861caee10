"""Loss relative to scratch against fine-tuning data: one panel a width, one line a subset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.common import figure_style as style
from jetscale.common.figure_axes import log_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jetscale.analysis.answers.fit_result import FitResult
    from jetscale.analysis.fitting.numbers import Quantity

COLUMNS = 3


def draw_gain(result: FitResult) -> Figure | None:
    """Draw every subset's difference from scratch in %, with its 95% band; None where there is no gain."""
    gain: dict[str, list[dict[str, Any]]] = result.details.get("gain", {})
    if not any(gain.values()):
        return None
    by_name = {name: gain.get(name, []) for name in style.ordered(list(result.subsets))}
    return draw_differences(by_name, "test loss relative to scratch (%)", result.losses.sample)


def draw_differences(by_name: dict[str, list[dict[str, Any]]], label: str, sample: str) -> Figure:
    """Draw differences of ln L in %, one line a name; entries as `answers.gain.gains` returns them.

    Parameters
    ----------
    label : of the y axis.
    sample : what D counts.
    """
    sizes = sorted({_size(entry) for entries in by_name.values() for entry in entries})
    figure, panels = style.panels(len(sizes), COLUMNS)
    for panel, size in zip(panels, sizes, strict=True):
        for rank, (name, entries) in enumerate(by_name.items()):
            for entry in entries:
                if _size(entry) == size:
                    jets = np.array([point["jets"] for point in entry["curve"]])
                    low, value, high = percent([point["difference"] for point in entry["curve"]])
                    line = style.line(rank)
                    panel.fill_between(jets, low, high, color=line["color"], alpha=0.15, lw=0)
                    panel.plot(jets, value, lw=1.5, label=style.caption(name), **line)
        panel.axhline(0, color="0.3", lw=0.8)
        log_axis(panel, "x")
        panel.set_title(f"{size[0].replace('n_params', 'N').replace('dim', 'width')} = {size[1]:,.0f}")
        panel.set(xlabel=f"fine-tuning data D ({sample}s)", ylabel=label)
    style.legend_above(figure)
    return figure


def percent(differences: list[Quantity]) -> tuple[list[float], list[float], list[float]]:
    """Low end, value and high end of differences of ln L, in %; NaN where there is none."""
    rows = []
    for quantity in differences:
        value = np.nan if quantity.value is None else quantity.value
        low, high = quantity.ci95 or (np.nan, np.nan)
        rows.append([100 * float(np.expm1(x)) for x in (low, value, high)])
    low_, value_, high_ = (list(column) for column in zip(*rows, strict=True))
    return low_, value_, high_


def _size(entry: dict[str, Any]) -> tuple[str, float]:
    return ("dim", entry["dim"]) if "dim" in entry else ("n_params", entry["n_params"])
