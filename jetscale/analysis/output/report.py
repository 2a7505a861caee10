"""figures/ and report.html of a fit: self-contained, opens offline, every number from results.json."""

from __future__ import annotations

import base64
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetscale.analysis.checks import misfit
from jetscale.analysis.fitting.numbers import Quantity, plain
from jetscale.analysis.output.published import PUBLISHED
from jetscale.common import figure_style as style
from jetscale.common.files import atomic_path, file_name

if TYPE_CHECKING:
    from jetscale.analysis.answers.fit_result import FitResult


def write_report(result: FitResult, out: Path) -> Path:
    """Draw the figures into `out`/figures and write `out`/report.html; its path is returned."""
    import jinja2

    figures = draw_figures(result, out / "figures")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = number
    environment.filters["interval"] = interval
    environment.filters["share"] = share
    environment.filters["percent"] = percent
    environment.filters["in_words"] = misfit.described
    here = files("jetscale.analysis.output")
    template = environment.from_string(here.joinpath("report.html.j2").read_text())
    results = plain(result.to_json())
    page = template.render(
        results=results,
        names=style.ordered(list(result.subsets)),
        figures={name: _embedded(path) for name, path in figures.items()},
        published=PUBLISHED,
        coverage=json.loads(here.joinpath("coverage.json").read_text()),
    )
    with atomic_path(out / "report.html") as aside:
        aside.write_text(page)
    return out / "report.html"


def draw_figures(result: FitResult, out: Path) -> dict[str, Path]:
    """SVG and PNG of every figure; names to SVG paths."""
    from jetscale.analysis.output.figures.gain import draw_gain
    from jetscale.analysis.output.figures.losses import draw_losses
    from jetscale.analysis.output.figures.residuals import draw_residuals
    from jetscale.analysis.output.figures.subset import draw_subset

    sample = result.losses.sample
    paths: dict[str, Path] = {}
    with style.style():
        for name, subset in result.subsets.items():
            safe = file_name(name)
            if subset.task is None:
                continue
            paths[f"subset {name}"] = style.save(draw_subset(subset, sample), out, f"subset_{safe}")
            residuals = draw_residuals(subset, sample)
            if residuals is not None:
                paths[f"residuals {name}"] = style.save(residuals, out, f"residuals_{safe}")
        losses = draw_losses(result)
        if losses is not None:
            paths["losses"] = style.save(losses, out, "losses")
        gain = draw_gain(result)
        if gain is not None:
            paths["gain"] = style.save(gain, out, "gain")
    return paths


def number(value: float | None, digits: int = 4) -> str:
    """Number for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}g}"


def interval(entry: dict[str, Any] | None) -> str:
    """Value ± sd [95% interval] of an entry of results.json."""
    if entry is None or entry["value"] is None:
        return "–"
    ends = entry["ci95"]
    return str(Quantity(entry["value"], entry["sd"], None if ends is None else (ends[0], ends[1])))


def share(value: float | None) -> str:
    """Part of a whole, such as a coverage."""
    return "–" if value is None else f"{value:.2f}"


def percent(entry: dict[str, Any] | None) -> str:
    """Difference of ln L as a change of L in %, with its 95% interval."""
    if entry is None or entry["value"] is None:
        return "–"
    value, *ends = (f"{100 * math.expm1(x):+.1f}%" for x in (entry["value"], *(entry["ci95"] or ())))
    return f"{value} [{', '.join(ends)}]" if ends else value


def _embedded(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
