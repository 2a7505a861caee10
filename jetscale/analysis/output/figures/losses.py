"""The paper's figure 3: fine-tuning loss against data, one panel a width, one curve a subset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jetscale.analysis.tables.loss_table import names_of_groups
from jetscale.analysis.tables.selection import of_weights
from jetscale.common import figure_style as style
from jetscale.common.figure_axes import log_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jetscale.analysis.answers.fit_result import FitResult

COLUMNS = 4
MAX_PANELS = 16


def draw_losses(result: FitResult) -> Figure | None:
    """Draw every subset's seed-averaged curve, faint seeds behind; None for tables of final losses."""
    import pandas as pd

    groups = result.losses.groups().values()
    frame = pd.concat([of_weights(rows, result.settings["weights"], result.losses) for rows in groups])
    weights = " or ".join(sorted(frame["weights"].unique()))
    if frame["run"].nunique() == len(frame):
        return None
    sizes = np.sort(frame["n_params"].unique())
    if len(sizes) > MAX_PANELS:
        sizes = sizes[np.linspace(0, len(sizes) - 1, MAX_PANELS).round().astype(int)]
    figure, panels = style.panels(len(sizes), COLUMNS)
    names = style.ordered(list(result.subsets))
    for panel, size in zip(panels, sizes, strict=True):
        at_size = frame[frame["n_params"] == size]
        for rank, name in enumerate(names):
            runs = at_size[names_of_groups(at_size) == name]
            line = style.line(rank)
            for _, run in runs.groupby("run"):
                panel.plot(run["jets"], run["loss"], color=line["color"], lw=0.5, alpha=0.3)
            mean = runs.groupby("jets")["loss"].mean()
            panel.plot(mean.index, mean.to_numpy(), lw=1.5, label=style.caption(name), **line)
        dim = at_size["dim"].iloc[0]
        title = f"N = {size:,.0f}" if not np.isfinite(dim) else f"width = {dim:.0f} (N = {size:,.0f})"
        log_axis(panel, "x")
        log_axis(panel, "y")
        panel.set(xlabel=f"fine-tuning data D ({result.losses.sample}s)", title=title)
        panel.set_ylabel(f"test loss (nats, {weights} weights)")
    style.legend_above(figure)
    return figure
