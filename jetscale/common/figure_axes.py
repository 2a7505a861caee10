"""Logarithmic axes whose labels stay apart, on one decade as on ten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import Locator, MaxNLocator, NullLocator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

STEPS = (
    (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    (1.0, 2.0, 5.0),
    (1.0, 3.0),
    (1.0,),
)
"""Labels within a decade, the densest first."""
FEWEST = 3
"""With fewer labels than this in sight the range is narrow, and round numbers of a linear axis serve."""
CLOSEST = 0.09
"""Part of the axis that two labels are apart at least."""


class LogTicks(Locator):
    """Round numbers on a logarithmic axis: as many as have room.

    Parameters
    ----------
    most : labels on one axis.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self) -> list[float]:
        """Ticks of the range in sight."""
        assert self.axis is not None
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Ticks between two positive numbers, ascending."""
        low, high = sorted((float(vmin), float(vmax)))
        if not 0 < low < high < np.inf:
            return []
        for steps in STEPS:
            ticks = _inside(_of_decades(low, high, steps), low, high)
            if len(ticks) <= self.most:
                break
        if len(ticks) > self.most:
            ticks = ticks[:: -(-len(ticks) // self.most)]
        if len(ticks) < FEWEST and high < 10 * low:
            linear = MaxNLocator(self.most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
            ticks = _apart(_inside(np.asarray(linear), low, high), CLOSEST * np.log(high / low))
        return [float(tick) for tick in ticks]


def log_axis(axes: Axes, which: str) -> None:
    """Make the x or the y axis (`which`) logarithmic, with labels that stay apart on any range."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogTicks(5 if which == "x" else 7))
    axis.set_major_formatter(lambda value, _: short(value))
    axis.set_minor_locator(NullLocator())


def short(value: float) -> str:
    """Number for the label of a tick: 0.75, 320, 10k, 2.5M; powers of ten where those are too long."""
    if value == 0:
        return "0"
    exponent = int(np.floor(np.log10(abs(value)) + 1e-9))
    if exponent >= 9 or exponent < -3:
        front = value / 10.0**exponent
        times = "" if abs(front - 1) < 1e-6 else rf"{front:.3g} \times "
        return f"${times}10^{{{exponent}}}$"
    if exponent >= 6:
        return f"{value / 1e6:.4g}M"
    return f"{value / 1e3:.4g}k" if exponent >= 4 else f"{value:.4g}"


def _of_decades(low: float, high: float, steps: tuple[float, ...]) -> Array:
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    return np.multiply.outer(decades, steps).ravel()


def _inside(ticks: Array, low: float, high: float) -> Array:
    return ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]


def _apart(ticks: Array, distance: float) -> Array:
    """Those that are at least so far in ln from the one kept before."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or np.log(tick / kept[-1]) >= distance:
            kept.append(float(tick))
    return np.array(kept)
