"""figures/ and report.html of a fit: self-contained, opens offline, every number from results.json."""

from __future__ import annotations

import base64
import math
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetscale.analysis.checks import coverage, misfit
from jetscale.analysis.checks.multiverse import shown_quantities
from jetscale.analysis.fitting.approach import approaches
from jetscale.analysis.fitting.numbers import Quantity, plain
from jetscale.analysis.fitting.surface import FORMS, form_named
from jetscale.common import figure_style as style
from jetscale.common.files import atomic_path, file_name

if TYPE_CHECKING:
    from jetscale.analysis.answers.fit_result import FitResult

SYMBOLS = {"alpha": "α", "beta": "β", "L_inf": "L∞"}

# Exponents published in arXiv:2606.19781, tables 1 (approach 2) and 2 (approach 3), for comparison only.
# subset: approach: (a, its error, b, its error); errors from 100 samples of 80% of the test jets
PUBLISHED: dict[str, dict[int, tuple[float, float, float, float]]] = {
    "scratch": {2: (0.517, 0.002, 0.483, 0.002), 3: (0.539, 0.001, 0.461, 0.001)},
    "qcd": {2: (0.526, 0.004, 0.474, 0.004), 3: (0.425, 0.002, 0.575, 0.002)},
    "qcd_res2p": {2: (0.265, 0.005, 0.735, 0.005), 3: (0.288, 0.009, 0.712, 0.009)},
    "qcd_res34p": {2: (0.283, 0.005, 0.717, 0.005), 3: (0.311, 0.005, 0.689, 0.005)},
    "bsm_all": {2: (0.224, 0.005, 0.776, 0.005), 3: (0.249, 0.005, 0.751, 0.005)},
}


def write_report(result: FitResult, out: Path) -> Path:
    """Draw the figures into `out`/figures and write `out`/report.html; its path is returned."""
    import jinja2

    figures = draw_figures(result, out / "figures")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = number
    environment.filters["interval"] = interval
    environment.filters["cell"] = cell
    environment.filters["symbol"] = symbol
    environment.filters["share"] = share
    environment.filters["percent"] = percent
    environment.filters["in_words"] = misfit.described
    here = files("jetscale.analysis.output")
    template = environment.from_string(here.joinpath("report.html.j2").read_text())
    results = plain(result.to_json())
    form = form_named(result.settings["approach3"]["form"])
    page = template.render(
        results=results,
        names=style.ordered(list(result.subsets)),
        figures={name: _embedded(path) for name, path in figures.items()},
        approaches=approaches(),
        published={
            name: {f"approach{number}": values for number, values in of.items()}
            for name, of in PUBLISHED.items()
        },
        shown=shown_quantities(form),
        formula=form.formula,
        other_forms={name: form_named(name).formula for name in FORMS.names()[1:]},
        coverage=coverage.table(),
    )
    with atomic_path(out / "report.html") as aside:
        aside.write_text(page)
    return out / "report.html"


def draw_figures(result: FitResult, out: Path) -> dict[str, Path]:
    """SVG and PNG of every figure; names to SVG paths."""
    from jetscale.analysis.output.figures.gain import draw_gain
    from jetscale.analysis.output.figures.losses import draw_losses
    from jetscale.analysis.output.figures.subset import draw_residuals, draw_subset

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


def cell(value: Any) -> str:
    """A text, a number or an entry of results.json, for a table."""
    if value is None or isinstance(value, dict):
        return interval(value)
    return value if isinstance(value, str) else number(value, 2)


def symbol(name: str) -> str:
    """Name of a quantity as formulas write it."""
    return SYMBOLS.get(name, name)


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
