"""One look for every figure: colours that survive colour blindness, marks that survive grey."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.common.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# Okabe and Ito's palette, ordered so that neighbours differ in lightness; told apart by dash and marker too
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 2, 2)), (0, (3, 1)), (0, (2, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SUBSET_ORDER = ("scratch", "qcd", "qcd_res2p", "qcd_res34p", "bsm_all")
LOSS_MAP = "viridis"

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


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this."""
    import matplotlib as mpl

    with mpl.rc_context(_RC):  # type: ignore[arg-type]  # the stubs list keys
        yield


def new_figure(width: float, height: float) -> Figure:
    """Figure of the given size in inches, laid out by constraints."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


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


def save(figure: Figure, out: Path, name: str) -> Path:
    """Write NAME.svg (the same bytes each time) and NAME.png; the SVG's path is returned."""
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        with style(), atomic_path(out / f"{name}{suffix}") as aside:
            figure.savefig(aside, dpi=150, metadata=metadata)
    return out / f"{name}.svg"


def panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """Figure of `count` panels that share the x axis."""
    across = min(columns, count)
    down = -(-count // across)
    figure = new_figure(3.4 * across, 2.9 * down + 0.5)
    drawn = list(np.atleast_1d(figure.subplots(down, across, squeeze=False, sharex=True)).ravel())
    for spare in drawn[count:]:
        spare.set_axis_off()
    return figure, drawn[:count]


def ordered(subsets: list[str]) -> list[str]:
    """The paper's order first, then the alphabet."""
    return [s for s in SUBSET_ORDER if s in subsets] + sorted(s for s in subsets if s not in SUBSET_ORDER)


def caption(name: str) -> str:
    """Text of a user's name: ``$`` starts no formula, and a legend leaves out no ``_``."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
