"""Figures of an evaluation: ROC curves and the confusion matrix.

Shapes: J jets, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jetscale.common import figure_style as style
from jetscale.common.roc import BACKGROUND, efficiency_of
from jetscale.tagger.metrics import Measures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CURVES = 20
"""Classes that one figure shows; 188 curves would hide each other."""
_POINTS = 500
_MOST_NUMBERS = 20
"""Classes up to which the confusion matrix has its numbers written in."""


def draw_roc(measures: Measures, out: Path) -> Path:
    """``roc.svg`` and ``roc.png``: background rejection against signal efficiency.

    Parameters
    ----------
    measures : of the jets
    out : folder

    Returns
    -------
    The SVG's path.
    """
    with style.style():
        return style.save(_roc(measures), out, "roc")


def _roc(measures: Measures) -> Figure:
    against_background = any(measures.against_background.values())
    chosen = measures.against_background if against_background else measures.against_rest
    curves = {name: one for name, one in chosen.items() if one}
    shown = dict(list(curves.items())[:MOST_CURVES])
    figure = style.new_figure(7.2, 4.6)
    axes = figure.subplots()
    for rank, (name, one) in enumerate(shown.items()):
        ones_J = np.ones(measures.n_jets)
        signal_S, background_S = one.efficiencies(ones_J)
        rows = np.unique(np.linspace(0, len(signal_S) - 1, _POINTS).astype(int))
        rows = rows[background_S[rows] > 0]  # without a background jet there is no point
        look = style.line(rank)
        axes.plot(signal_S[rows], 1 / background_S[rows], label=style.caption(name), lw=1.3, **look)
        kept = one.kept_background(ones_J, efficiency_of(name))
        if kept > 0 and against_background:
            axes.plot(efficiency_of(name), 1 / kept, "o", ms=3.5, color=look["color"])
    axes.set_xlabel("signal efficiency $\\varepsilon_S$")
    background = f"{BACKGROUND} rejection" if against_background else "rejection of all other jets"
    axes.set_ylabel(f"{background} 1/$\\varepsilon_B$")
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=1)
    more = f" (the first {MOST_CURVES} of {len(curves)})" if len(curves) > len(shown) else ""
    if shown:
        figure.legend(loc="outside right center", title=f"signal{more}")
    return figure


def draw_confusion(counts_KK: npt.NDArray[np.int64], names: Sequence[str], out: Path) -> Path:
    """``confusion.svg`` and ``confusion.png``: share of each class's jets by most probable class.

    Parameters
    ----------
    counts_KK : (K, K) jets by class and most probable class
    names : of the classes
    out : folder

    Returns
    -------
    The SVG's path.
    """
    with style.style():
        return style.save(_confusion(counts_KK, names), out, "confusion")


def _confusion(counts_KK: npt.NDArray[np.int64], names: Sequence[str]) -> Figure:
    n_classes = len(names)
    jets_K = counts_KK.sum(axis=1, keepdims=True)
    share_KK = np.divide(counts_KK, jets_K, out=np.full(counts_KK.shape, np.nan), where=jets_K > 0)
    size = min(3.0 + 0.45 * n_classes, 22.0)
    figure = style.new_figure(size + 0.8, size)
    axes = figure.subplots()
    image = axes.imshow(share_KK, cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the class's jets", shrink=0.8)
    captions = [style.caption(name) for name in names]
    font = 8 if n_classes <= _MOST_NUMBERS else 4
    axes.set_xticks(range(n_classes), captions, rotation=90, fontsize=font)
    axes.set_yticks(range(n_classes), captions, fontsize=font)
    axes.set_xlabel("most probable class")
    axes.set_ylabel("class")
    axes.grid(visible=False)
    if n_classes <= _MOST_NUMBERS:
        for row, column in np.ndindex(share_KK.shape):
            share = share_KK[row, column]
            if np.isfinite(share):
                colour = "black" if share > 0.5 else "white"
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=7, color=colour)
    return figure
