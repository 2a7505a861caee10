"""figures/ and report.html of a fit: self-contained, opens offline, every number from results.json."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetscale.analysis.checks import coverage, misfit
from jetscale.analysis.checks.multiverse import shown_quantities
from jetscale.analysis.fitting.approach import approaches
from jetscale.analysis.fitting.numbers import plain
from jetscale.analysis.fitting.pins import pinned_form
from jetscale.analysis.fitting.surface import FORMS, form_named
from jetscale.analysis.output import caveats, formatting
from jetscale.analysis.output.figures.specification import moves
from jetscale.analysis.output.provenance import provenance
from jetscale.analysis.output.published import published
from jetscale.analysis.output.sentences import answers
from jetscale.common import figure_style as style
from jetscale.common.figure_style import Panel
from jetscale.common.files import atomic_path, file_name
from jetscale.common.progress import step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jetscale.analysis.answers.fit_result import FitResult
    from jetscale.analysis.tables.loss_table import LossTable

HERE = "jetscale.analysis.output"
DRAWN = 1.0
"""Time of the figures of a subset, over that of its fit (1.7 s both)."""


@dataclass(frozen=True)
class Drawing:
    """A figure as it was saved, and where its panels are: a phone shows them one below another.

    Attributes
    ----------
    path : the SVG.
    panels : in reading order.
    """

    path: Path
    panels: list[Panel]

    @property
    def embedded(self) -> str:
        """The file as a data address."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.path.read_bytes()).decode()


def write_report(result: FitResult, out: Path) -> Path:
    """Draw the figures into `out`/figures and write `out`/report.html; its path is returned."""
    results = plain(result.to_json())
    drawings = draw_figures(result, out / "figures")
    with atomic_path(out / "report.html") as aside:
        aside.write_text(page(results, result.losses, drawings))
    return out / "report.html"


def page(results: dict[str, Any], losses: LossTable, drawings: dict[str, Drawing]) -> str:
    """HTML of the report.

    Parameters
    ----------
    results : content of results.json, of this or of an earlier version.
    losses : the table behind it.
    drawings : figures by name, as `draw_figures` returns them; those that are missing are left out.
    """
    names = style.ordered(list(results["subsets"]))
    settings = results["settings"]["approach3"]
    form = pinned_form(settings["form"], settings.get("pin", {}))
    told = {
        "results": results,
        "names": names,
        "answers": answers(results, losses),
        "provenance": provenance(results, losses),
        "warnings": caveats.grouped(caveats.all_of(results)),
        "drawings": drawings,
        "order": {name: place for place, name in enumerate(drawings, start=1)},
        "lines": [_line(name, rank) for rank, name in enumerate(names)],
        "approaches": approaches(),
        "published": {name: published(name) for name in names if published(name)},
        "shown": shown_quantities(form),
        "moving": {name: moves(rows) for name, rows in (results.get("multiverse") or {}).items() if rows},
        "formula": form.formula,
        "other_forms": {name: form_named(name).formula for name in FORMS.names()[1:]},
        "coverage": coverage.table(),
    }
    return str(_environment().get_template("report.html.j2").render(told))


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    for name in ("number", "amount", "symbol", "share"):
        environment.filters[name] = getattr(formatting, name)
    for name in ("interval", "cell", "percent"):
        environment.filters[name] = _stacked(getattr(formatting, name))
    environment.filters["in_words"] = misfit.described
    return environment


def _stacked(told: Callable[[Any], str]) -> Callable[[Any], str]:
    """The same text with its interval below the value: narrow tables are not cut."""
    from markupsafe import Markup

    def tell(entry: Any) -> str:
        value, bracket, ends = told(entry).partition(" [")
        return Markup('{}<span class="ci">[{}</span>').format(value, ends) if bracket else value

    return tell


def _line(name: str, rank: int) -> dict[str, str]:
    """Line of a subset in the key of a figure, as SVG draws it."""
    look = style.line(rank)
    dashes = "" if look["ls"] == "-" else ",".join(f"{2 * length:g}" for length in look["ls"][1])
    return {"name": name, "color": look["color"], "dashes": dashes}


def draw_figures(result: FitResult, out: Path) -> dict[str, Drawing]:
    """Draw every figure once, save it as SVG and PNG, and return it by name."""
    with style.style():
        return {
            name: Drawing(style.save(figure, out, _file_of(name)), style.panels_of(figure))
            for name, figure in _figures(result)
        }


def _file_of(name: str) -> str:
    """Name of the files of a figure, without suffix."""
    kind, _, group = name.partition(" ")
    return f"{kind}_{file_name(group)}" if group else kind


def _figures(result: FitResult) -> Iterator[tuple[str, Figure]]:
    """Name and figure of all that can be drawn."""
    from jetscale.analysis.output.figures.forest import draw_forest
    from jetscale.analysis.output.figures.gain import draw_gain
    from jetscale.analysis.output.figures.losses import draw_losses
    from jetscale.analysis.output.figures.overview import draw_overview
    from jetscale.analysis.output.figures.specification import draw_specification
    from jetscale.analysis.output.figures.subset import draw_residuals, draw_subset

    results, losses = plain(result.to_json()), result.losses
    names = style.ordered(list(result.subsets))
    yield from _known("forest", draw_forest(results, names))
    yield "overview", draw_overview(results, losses, names)
    for number, name in enumerate(names, start=1):
        step(f"figures {number} of {len(names)}, {name}", DRAWN)
        if result.subsets[name].task is not None:
            yield f"subset {name}", draw_subset(result.subsets[name], losses.sample)
            yield from _known(f"residuals {name}", draw_residuals(result.subsets[name], losses.sample))
    yield from _known("losses", draw_losses(result))
    yield from _known("gain", draw_gain(result))
    yield from _known("multiverse", draw_specification(results, names))


def _known(name: str, figure: Figure | None) -> Iterator[tuple[str, Figure]]:
    if figure is not None:
        yield name, figure
