"""One look for every figure: colours that survive colour blindness, marks that survive grey."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.common.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Array = NDArray[np.float64]

# Okabe and Ito's palette, ordered so that neighbours differ in lightness; told apart by dash and marker too
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 2, 2)), (0, (3, 1)), (0, (2, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SUBSET_ORDER = ("scratch", "qcd", "qcd_res2p", "qcd_res34p", "bsm_all")
LOSS_MAP = "viridis"
PNG_DPI = 150
EDGE = 3.0
"""Pixels around a panel that is shown alone."""

_RC: dict[str, Any] = {
    "font.size": 9.0,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "axes.titlesize": 10.0,
    "legend.fontsize": 8.0,
    "legend.framealpha": 0.9,
    "svg.hashsalt": "jetscale",
    "svg.fonttype": "path",
    "figure.dpi": 100.0,
}


def line(rank: int) -> dict[str, Any]:
    """Colour and dash of the line of number `rank`: 49 that differ."""
    turn = rank // len(COLOURS)
    return {"color": COLOURS[rank % len(COLOURS)], "ls": DASHES[(rank + turn) % len(DASHES)]}


def mark(rank: int) -> dict[str, Any]:
    """Colour and marker of the points of number `rank`."""
    return {"color": COLOURS[rank % len(COLOURS)], "marker": MARKERS[rank % len(MARKERS)]}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this."""
    import matplotlib as mpl

    with mpl.rc_context(_RC):  # type: ignore[arg-type]  # the stubs list keys
        yield


def new_figure(width: float, height: float) -> Figure:
    """Figure of the given size in inches, laid out by constraints.

    Its canvas can measure text: without one, every measurement prints the whole figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    return FigureCanvasAgg(Figure(figsize=(width, height), layout="constrained")).figure


def coloured_points(
    axes: Axes, log_x: Array, y: Array, value: Array, label: str, *, log_y: bool = True
) -> None:
    """Scatter exp(log_x) against y (or exp(y)), coloured by `value` unless that is constant."""
    height = np.exp(y) if log_y else y
    if np.ptp(value) <= 1e-9 * np.abs(value).max():
        axes.plot(np.exp(log_x), height, ".", color=COLOURS[2])
        return
    dots = axes.scatter(np.exp(log_x), height, c=value, s=12, cmap=LOSS_MAP, edgecolors="none")
    axes.figure.colorbar(dots, ax=axes, label=label)


def lay_out(figure: Figure) -> None:
    """Draw the figure, which places everything in it: what is asked for or written afterwards finds it there.

    Parameters
    ----------
    figure : of `new_figure`.
    """
    figure.set_dpi(PNG_DPI)
    figure.canvas.draw()
    figure.set_layout_engine("none")


def save(figure: Figure, out: Path, name: str) -> Path:
    """Draw the figure once, and write it as NAME.svg (the same bytes each time) and NAME.png.

    Matplotlib's own `savefig` draws it twice for each format, after a layout for each.

    Parameters
    ----------
    figure : of `new_figure`.
    out, name : folder and name of the files.

    Returns
    -------
    Path of the SVG.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.image import imsave

    with style():
        lay_out(figure)
        drawn: Any = figure.canvas
        with atomic_path(out / f"{name}.png") as aside:
            facts: Any = {"Software": None}  # the stubs know no entry that is left out
            imsave(aside, drawn.buffer_rgba(), dpi=PNG_DPI, format="png", metadata=facts)
        with atomic_path(out / f"{name}.svg") as aside:
            vector: Any = FigureCanvasSVG(figure)
            vector.print_svg(aside, metadata={"Date": None})
        figure.set_dpi(PNG_DPI)  # SVG has its own
        figure.set_canvas(drawn)
    return out / f"{name}.svg"


@dataclass(frozen=True)
class Panel:
    """Part of a figure that can be shown alone: axes with their labels, legend and colour bar.

    Attributes
    ----------
    title : of the axes.
    left, top, width, height : as parts of the figure's width and height, from its upper left corner.
    aspect : width over height on paper.
    pixels : width at 96 to the inch, the size at which its text is that of the figure.
    """

    title: str
    left: float
    top: float
    width: float
    height: float
    aspect: float
    pixels: float


def panels_of(figure: Figure) -> list[Panel]:
    """Where the panels of a figure are, once it is drawn (`lay_out`), in reading order."""
    across, down = (size * figure.dpi for size in figure.get_size_inches())
    found = []
    for axes, boxes in _with_bars(figure).items():
        x0, y0 = (min(getattr(box, end) for box in boxes) - EDGE for end in ("x0", "y0"))
        x1, y1 = (max(getattr(box, end) for box in boxes) + EDGE for end in ("x1", "y1"))
        x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, across), min(y1, down)
        width, height = (x1 - x0) / across, (y1 - y0) / down
        aspect, pixels = (x1 - x0) / (y1 - y0), 96 * (x1 - x0) / figure.dpi
        found.append(Panel(axes.get_title(), x0 / across, 1 - y1 / down, width, height, aspect, pixels))
    return found


def _with_bars(figure: Figure) -> dict[Axes, list[Any]]:
    """Axes in sight with their bounding boxes in pixels; a colour bar goes to the axes left of it."""
    boxes = {axes: axes.get_tightbbox() for axes in figure.axes if axes.axison}
    bars = [axes for axes in boxes if axes.get_label() == "<colorbar>"]
    found = {axes: [box] for axes, box in boxes.items() if axes not in bars}
    for bar in bars:
        place = bar.get_position()
        row = [axes for axes in found if _same_height(axes.get_position(), place)]
        nearest = max(row, key=lambda axes: axes.get_position().x1)
        found[nearest].append(boxes[bar])
    return found


def _same_height(one: Bbox, bar: Bbox) -> bool:
    """Whether the axes lie left of the bar, and at its height."""
    return bool(one.x1 <= bar.x0 and one.y0 < 0.5 * (bar.y0 + bar.y1) < one.y1)


def panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """Figure of `count` panels that share the x axis, each with its own labels: they may be shown apart."""
    across = min(columns, count)
    down = -(-count // across)
    figure = new_figure(3.4 * across, 2.9 * down + 0.5)
    drawn = list(np.atleast_1d(figure.subplots(down, across, squeeze=False, sharex=True)).ravel())
    for spare in drawn[count:]:
        spare.remove()
    for panel in drawn[:count]:
        panel.tick_params(axis="x", labelbottom=True)
    return figure, drawn[:count]


def legend_above(figure: Figure) -> None:
    """One legend of all panels, each label once, above them."""
    drawn = [panel.get_legend_handles_labels() for panel in figure.axes]
    handles = {label: handle for pair in drawn for handle, label in zip(*pair, strict=True)}
    if handles:
        columns = min(len(handles), 5)
        figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=columns)


def ordered(subsets: list[str]) -> list[str]:
    """The paper's order first, then the alphabet."""
    return [s for s in SUBSET_ORDER if s in subsets] + sorted(s for s in subsets if s not in SUBSET_ORDER)


def caption(name: str) -> str:
    """Text of a user's name: ``$`` starts no formula, and a legend leaves out no ``_``."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
