"""Forest plot: a, b, gain and worth of pretraining by subset, with intervals and published values.

Drawn from the content of results.json alone.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.analysis.fitting.approach import approaches
from jetscale.analysis.output.formatting import size_of
from jetscale.analysis.output.published import published
from jetscale.common import figure_style as style
from jetscale.common.figure_axes import log_axis

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REACH = (-0.6, 1.6)
"""Exponents beyond are not drawn: an interval that long says that there is none."""
COMPLEMENT = 1e-6
"""Distance of a + b from 1 up to which b is 1 - a."""
SPREAD = 0.62
"""Part of a subset's row that its marks share."""


def draw_forest(results: dict[str, Any], names: list[str]) -> Figure | None:
    """Draw a, b, gain and worth, one panel for each that the results have; None where they have none.

    Parameters
    ----------
    results : content of results.json.
    names : of the subsets, from the top down.
    """
    shown = approaches()
    drawn: list[tuple[Callable[..., None], Any]] = []
    for key, column in (("a", 0), ("b", 2)):
        if any(
            fit[one.name][key]["value"] is not None for fit in results["subsets"].values() for one in shown
        ):
            drawn.append((_exponents, (key, column)))
    if results.get("gain"):
        drawn.append((_gains, None))
    if any(_worth_of(results.get("transfer") or {}, name) for name in names):
        drawn.append((_worth, None))
    if not drawn:
        return None
    height = 1.9 + 0.5 * len(names)
    figure = style.new_figure(3.0 * len(drawn), height)
    for axes, (draw, which) in zip(np.atleast_1d(figure.subplots(1, len(drawn))), drawn, strict=True):
        labels = [textwrap.fill(style.caption(name), 16) for name in names]
        axes.set_yticks(np.arange(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        draw(axes, results, names, which)
    return figure


def _exponents(axes: Axes, results: dict[str, Any], names: list[str], which: tuple[str, int]) -> None:
    key, column = which
    shown = approaches()
    for rank, one in enumerate(shown):
        look = style.mark(1 + rank)
        for row, name in enumerate(names):
            y = row + _offset(rank, len(shown))
            _other_choices(axes, results, name, f"{one.name}.{key}", y)
            _mark(axes, results["subsets"][name][one.name][key], y, look)
            found = published(name).get(one.name)
            if found is not None:
                axes.plot(found[column], y, "o", color="k", mfc="none", ms=7, mew=0.9, zorder=4)
        axes.plot([], [], ls="none", label=one.label, **look)
    if any(published(name) for name in names):
        axes.plot([], [], "o", color="k", mfc="none", ms=7, mew=0.9, ls="none", label="published")
    if results.get("multiverse"):
        axes.plot([], [], color="0.8", lw=7, solid_capstyle="butt", label="other choices")
    _shared(axes, results, key)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, REACH[0]), min(high, REACH[1]))
    power = r"$N^*\propto C^a$" if key == "a" else r"$D^*\propto C^b$"
    axes.set(xlabel=f"{key} of {power}", title=f"exponent {key}")
    _legend_below(axes)


def _shared(axes: Axes, results: dict[str, Any], key: str) -> None:
    """The exponent that one joint fit gives to all subsets."""
    found = ((results.get("joint") or {}).get("shared") or {}).get(key)
    if not found or found["value"] is None:
        return
    axes.axvline(found["value"], color="0.35", lw=1.0, ls="--", label="joint fit, one for all", zorder=1)
    if found["ci95"] is not None:
        axes.axvspan(*found["ci95"], color="0.35", alpha=0.08, lw=0, zorder=0)


def _other_choices(axes: Axes, results: dict[str, Any], name: str, key: str, y: float) -> None:
    rows = (results.get("multiverse") or {}).get(name, [])
    known = [row[key] for row in rows if row.get(key) is not None]
    approach, _, exponent = key.partition(".")
    fit = results["subsets"][name][approach]
    a, b = fit["a"]["value"], fit["b"]["value"]
    if not known and exponent == "b" and b is not None and abs(a + b - 1) < COMPLEMENT:
        # choices tell the b of an approach only where it is more than 1 - a
        known = [1 - row[f"{approach}.a"] for row in rows if row.get(f"{approach}.a") is not None]
    if len(known) > 1:
        ends = np.clip([min(known), max(known)], *REACH)
        axes.plot(ends, [y, y], color="0.8", lw=7, solid_capstyle="butt", zorder=1)


def _gains(axes: Axes, results: dict[str, Any], names: list[str], which: None) -> None:
    del which
    sizes = sorted({_size(entry) for entries in results["gain"].values() for entry in entries})
    colours = _colours(len(sizes))
    labelled = set()
    for row, name in enumerate(names):
        for entry in results["gain"].get(name, []):
            rank = sizes.index(_size(entry))
            look = {"color": colours[rank], "marker": style.MARKERS[rank % 7]}
            label = size_of(entry) if rank not in labelled else None
            labelled.add(rank)
            end = entry["curve"][-1]["difference"]
            _mark(axes, _in_percent(end), row + _offset(rank, len(sizes)), look, label)
    axes.axvline(0, color="0.3", lw=0.8)
    axes.set(xlabel="loss against scratch (%)", title="gain at the end of curves")
    _legend_below(axes)


def _worth(axes: Axes, results: dict[str, Any], names: list[str], which: None) -> None:
    """D_T of every width of a group: a composition pretrained on so many jets."""
    del which
    found = {name: _worth_of(results["transfer"], name) for name in names}
    sizes = sorted({_size(one) for entries in found.values() for one in entries})
    colours = _colours(len(sizes))
    labelled = set()
    for row, entries in enumerate(found.values()):
        for one in entries:
            rank = sizes.index(_size(one))
            look = {"color": colours[rank], "marker": style.MARKERS[rank % 7]}
            label = size_of(one) if rank not in labelled else None
            labelled.add(rank)
            _mark(axes, one["D_T"], row + _offset(rank, len(sizes)), look, label)
    log_axis(axes, "x")
    sample = results["sample"]
    axes.set(xlabel=f"D_T ({sample}s)", title="worth of pretraining")
    _legend_below(axes)


def _worth_of(transfer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Entries of a group that can be drawn on a logarithmic axis."""
    own = [one for entry in transfer.values() for one in entry["by_width"] if one["group"] == name]
    return [one for one in own if one["D_T"]["value"] is not None and one["D_T"]["value"] > 0]


def _mark(
    axes: Axes, entry: dict[str, Any], y: float, look: dict[str, Any], label: str | None = None
) -> None:
    if entry["value"] is None:
        return
    ends = entry["ci95"]
    if ends is not None:
        axes.plot(ends, [y, y], color=look["color"], lw=1.3, zorder=2)
    axes.plot(entry["value"], y, ms=4.5, ls="none", zorder=3, label=label, **look)


def _in_percent(entry: dict[str, Any]) -> dict[str, Any]:
    value, ends = entry["value"], entry["ci95"]
    return {
        "value": None if value is None else 100 * float(np.expm1(value)),
        "ci95": None if ends is None else [100 * float(np.expm1(end)) for end in ends],
    }


def _offset(rank: int, count: int) -> float:
    return 0.0 if count < 2 else SPREAD * (rank / (count - 1) - 0.5)


def _size(entry: dict[str, Any]) -> tuple[str, float]:
    return ("dim", entry["dim"]) if entry.get("dim") is not None else ("n_params", entry["n_params"])


def _colours(count: int) -> Any:
    import matplotlib as mpl

    return mpl.colormaps[style.LOSS_MAP](np.linspace(0.0, 0.85, count))


def _legend_below(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        rows = len(axes.get_yticks())
        below = 0.5 / (0.5 * rows + 0.4)  # half an inch: rows are half an inch high
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -below), ncols=2, fontsize=7)
