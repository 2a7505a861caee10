"""The report: answers that come from the numbers, every warning, figures whose labels stay apart."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from jetscale.analysis import FitResult, FitSettings, LossTable, fit, load_losses
from jetscale.analysis.__main__ import _DRAWN
from jetscale.analysis.checks.synthetic import Noise, curves_table
from jetscale.analysis.fitting.numbers import plain
from jetscale.analysis.output.caveats import GROUPS, all_of, grouped
from jetscale.analysis.output.figures.overview import lowest
from jetscale.analysis.output.formatting import amount, brief
from jetscale.analysis.output.report import Drawing, page, write_report
from jetscale.analysis.output.sentences import answers
from jetscale.analysis.settings import UncertaintySettings
from jetscale.common import figure_style as style
from jetscale.common.figure_axes import LogTicks, short
from tests.analysis.conftest import surface

STUDY = Path(__file__).resolve().parents[2] / "studies/laptop"
FOLDERS = sorted(path.parent for path in STUDY.glob("*/results.json"))
Results = dict[str, Any]

pytestmark = pytest.mark.xdist_group("report")  # the fit of several subsets that they share takes long


@pytest.fixture(scope="module")
def result() -> FitResult:
    """Three subsets of a small sweep, every part of the report in it."""
    exponents = {"scratch": 0.5, "qcd": 0.48, "bsm_all": 0.4}
    losses = curves_table(
        {name: surface(a) for name, a in exponents.items()},
        Noise(test_jets=20_000),
        np.random.default_rng(1),
        widths=(8, 16, 24, 32),
        seeds=2,
        evaluations=14,
    )
    pretrained = losses.frame["subset"] != "scratch"
    frame = losses.frame.assign(
        pretrain_jets=np.where(pretrained, 1e6, 0.0),
        pretrain_constituents=np.where(pretrained, 4e7, 0.0),
        pretrain_n_params=losses.frame["n_params"],
    )
    losses = LossTable(**{**vars(losses), "frame": frame})
    return fit(losses, FitSettings(uncertainty=UncertaintySettings(replicates=24)))


@dataclass(frozen=True)
class Written:
    """A report, and what it took to write it.

    Attributes
    ----------
    out : its folder.
    drawn : figures in the order in which they were drawn.
    printed : figures in the order in which they were printed as SVG.
    """

    out: Path
    drawn: list[Figure]
    printed: list[Figure]

    @property
    def html(self) -> str:
        return (self.out / "report.html").read_text()

    def figure(self, file: str) -> Figure:
        """The figure that was saved under this name."""
        files = sorted((self.out / "figures").glob("*.svg"), key=lambda path: path.stat().st_mtime_ns)
        return self.printed[[path.stem for path in files].index(file)]


@pytest.fixture(scope="module")
def written(result: FitResult, tmp_path_factory: pytest.TempPathFactory) -> Written:
    found = Written(tmp_path_factory.mktemp("report"), [], [])
    draw, print_svg = FigureCanvasAgg.draw, FigureCanvasSVG.print_svg

    def counted(self: FigureCanvasAgg) -> None:
        found.drawn.append(self.figure)
        draw(self)

    def kept(self: FigureCanvasSVG, *to: Any, **how: Any) -> None:
        found.printed.append(self.figure)
        print_svg(self, *to, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "draw", counted)
        patch.setattr(FigureCanvasSVG, "print_svg", kept)
        write_report(result, found.out)
    return found


@pytest.fixture(scope="module")
def old() -> tuple[Results, LossTable]:
    """Results that an earlier version wrote, without a joint fit."""
    folder = STUDY / "tuned_rate"
    results = json.loads((folder / "results.json").read_text())
    for key in ("joint", "transfer", "transfer_laws"):
        results.pop(key, None)
    return results, load_losses(folder / "losses.parquet")


def text_of(html: str) -> str:
    """What a reader sees of the page, in one line."""
    seen: list[str] = []

    class Reader(HTMLParser):
        hidden = False

        def handle_starttag(self, tag: str, attrs: object) -> None:
            del attrs
            self.hidden = tag in ("style", "title")

        def handle_endtag(self, tag: str) -> None:
            if tag in ("style", "title"):
                self.hidden = False

        def handle_data(self, data: str) -> None:
            if not self.hidden:
                seen.append(data)

    Reader().feed(html)
    return " ".join(" ".join(seen).split())


def sentence(results: Results, losses: LossTable, question: int) -> str:
    return answers(results, losses)[question].sentence


# --- answers


def test_a_question_has_one_sentence_and_they_come_first(written: Written, result: FitResult) -> None:
    seen = text_of(written.html)
    found = answers(plain(result.to_json()), result.losses)
    assert len(found) == 5
    places = [seen.index(" ".join(one.sentence.split())) for one in found]
    assert places == sorted(places)
    assert places[-1] < seen.index("warnings" if result.to_json()["warnings"] else "Exponents")
    for one in found:
        assert one.question.endswith("?")
        assert one.sentence.endswith(".")


def test_the_answers_of_an_old_study_are_its_numbers(old: tuple[Results, LossTable]) -> None:
    results, losses = old
    said = [one.sentence for one in answers(results, losses)]
    difference = results["differences"]["bsm_all - scratch"]["approach3.a"]
    assert said[0].startswith("Perhaps: 1 of 4 differences")
    assert brief(difference, signed=True) in said[0]
    ends = difference["ci95"]
    largest = max(
        (group["approach3.a"]["ci95"][1] - group["approach3.a"]["ci95"][0]) / 2
        + 0.8416 * group["approach3.a"]["sd"]
        for group in results["differences"].values()
    )
    assert f"{largest:.2f}" in said[1]
    assert ends[1] - ends[0] > 0
    best = min(
        point["difference"]["value"]
        for entries in results["gain"].values()
        for entry in entries
        for point in entry["curve"]
        if point["difference"]["ci95"] and point["difference"]["ci95"][1] < 0
    )
    assert f"{100 * np.expm1(best):+.1f}%" in said[2]
    assert "no joint test is in these results" in answers(results, losses)[0].detail.lower()


def test_a_changed_number_changes_its_sentence(old: tuple[Results, LossTable]) -> None:
    results, losses = copy.deepcopy(old[0]), old[1]
    before = [one.sentence for one in answers(results, losses)]
    results["differences"]["bsm_all - scratch"]["approach3.a"]["ci95"] = [-0.4, 0.1]
    assert sentence(results, losses, 0).startswith("No difference was found")
    assert sentence(results, losses, 1) != before[1]
    for entries in results["gain"].values():
        for entry in entries:
            for point in entry["curve"]:
                point["difference"] |= {"value": 0.01, "ci95": [-0.1, 0.12]}
                point["multiplier"] |= {"value": None, "ci95": None}
    assert sentence(results, losses, 2).startswith("No gain is seen")
    assert sentence(results, losses, 3).startswith("Not known")
    surface_of = results["subsets"]["bsm_all"]["approach3"]["surface"]
    surface_of["log_B"] += 0.1
    assert sentence(results, losses, 4) != before[4]


def test_the_joint_fit_and_the_transfer_law_are_told_by_their_numbers(result: FitResult) -> None:
    results, losses = copy.deepcopy(plain(result.to_json())), result.losses
    test = results["joint"]["tests"]["same_exponents"]
    assert f"p = {test['p']:.2g}" in sentence(results, losses, 0)
    test |= {"p": 0.5, "p_sd": 0.0, "verdict": "not distinguishable"}
    assert sentence(results, losses, 0) == (
        "No difference was found: the exponents of the 3 subsets are not distinguishable (p = 0.5)."
    )
    test |= {"p": 0.002, "verdict": "differs: a", "differs": ["bsm_all"]}
    test["contrasts"]["bsm_all - scratch"]["a"] |= {"value": -0.2, "ci95": [-0.31, -0.09], "detectable": 0.17}
    assert sentence(results, losses, 0) == (
        "Yes: the exponents of the 3 subsets differ (p = 0.002); a differs by bsm_all - scratch: "
        "-0.20 [-0.31, -0.09]."
    )
    assert "0.17 (bsm_all - scratch)" in sentence(results, losses, 1)
    worth = results["transfer"]["bsm_all"]["D_T"]
    worth |= {"value": 41234.0, "ci95": [30000.0, 52000.0]}
    assert "bsm_all 41,200 [30,000, 52,000]" in sentence(results, losses, 3)
    worth["value"] = None
    assert "bsm_all" not in sentence(results, losses, 3)
    assert "Not determined: bsm_all" in answers(results, losses)[3].detail
    test |= {"p": None, "problem": "too few runs"}
    assert "No joint test: too few runs" in answers(results, losses)[0].detail


def test_one_subset_is_not_asked_what_needs_two(old: tuple[Results, LossTable]) -> None:
    results, losses = copy.deepcopy(old[0]), old[1]
    results["subsets"] = {"scratch": results["subsets"]["scratch"]}
    results |= {"differences": {}, "gain": {}}
    said = [one.sentence for one in answers(results, losses)]
    assert said[0] == ("Not asked: these losses are of one subset, with a = 0.44 [0.29, 0.67] (approach 3).")
    assert all(text.startswith("Not known") for text in said[1:4])
    results["subsets"]["scratch"]["approach3"]["a"]["value"] = None
    assert sentence(results, losses, 4) == "Not known: no subset has a fitted law."


@pytest.mark.parametrize(("number", "text"), [(1.2e12, "1.2e12"), (20843.0, "20,800"), (3.14159, "3.14")])
def test_amounts_have_three_digits(number: float, text: str) -> None:
    assert amount(number) == text


# --- warnings and older results


def test_every_warning_is_there_once_ranked(written: Written, result: FitResult) -> None:
    html = written.html
    warnings = result.to_json()["warnings"]
    assert warnings
    items = [unescape(item) for item in re.findall(r"<li>(.*?)</li>", html, flags=re.DOTALL)]
    assert sorted(items) == sorted(warnings)
    titles = [title for title, _ in GROUPS]
    found = [group.title for group in grouped(warnings)]
    assert found == sorted(found, key=titles.index)


def test_what_changes_an_answer_is_ranked_first(old: tuple[Results, LossTable]) -> None:
    groups = grouped(old[0]["warnings"])
    assert groups[0].title == "Can change the answers"
    first = ["lack of fit with a large effect", "the form misses the loss by"]
    assert [next(what for what in first if what in text) for text in groups[0].texts] == sorted(
        2 * first, key=first.index
    )
    assert sum(len(group.texts) for group in groups) == len(old[0]["warnings"])
    results = {"warnings": ["a"], "joint": {"warnings": ["b"]}, "transfer_laws": {"warnings": ["a", "c"]}}
    assert all_of(results) == ["a", "b", "c"]
    assert [group.title for group in grouped(["column 'd' is read as D"])] == ["What was read, and how"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_committed_results_are_readable(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    html = page(results, load_losses(folder / "losses.parquet"), {})
    assert all(text in unescape(html) for text in results["warnings"])
    # these runs record their accuracy, and which simulator made the jets
    later = folder.name in ("decays", "simulator_2")
    assert ("not recorded" in html) == (not later)
    assert ("simulator, version 2" in html) == later


def test_results_without_later_keys_are_readable(old: tuple[Results, LossTable]) -> None:
    results, losses = copy.deepcopy(old[0]), old[1]
    for key in ("gain", "multiverse"):
        del results[key]
    for entry in results["subsets"].values():
        for key in ("lack_of_fit", "windows"):
            entry.pop(key, None)
        entry["approach3"].pop("surface")
    html = page(results, losses, {})
    assert "no scratch to compare with" in html
    assert "no subset has a fitted law" in html


# --- figures


def texts_of(figure: Figure) -> dict[str, Any]:
    """Boxes in pixels of all labels of axes and ticks, and of titles, of a figure that is drawn."""
    found = {}
    for number, axes in enumerate(figure.axes):
        if not axes.axison:
            continue
        labels = [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
            labels += [label for place, label in ticks if low <= place <= high]
        for label in labels:
            if label.get_visible() and label.get_text():
                found[f"{number}: {label.get_text()} ({len(found)})"] = label.get_window_extent()
    return found


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of labels that share more than a pixel."""
    boxes = texts_of(figure)
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(boxes.items(), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


def cut_off(figure: Figure) -> list[str]:
    """Labels that are not whole on the figure."""
    across, down = figure.get_size_inches() * figure.dpi
    return [
        label
        for label, box in texts_of(figure).items()
        if min(box.x0, box.y0) < -1 or box.x1 > across + 1 or box.y1 > down + 1
    ]


def test_no_label_lies_on_another_or_leaves_the_figure(written: Written) -> None:
    names = [path.stem for path in (written.out / "figures").glob("*.svg")]
    assert {"forest", "overview", "losses", "gain", "multiverse", "subset_bsm_all"} <= set(names)
    assert {name: overlaps(written.figure(name)) for name in names} == {name: [] for name in names}
    assert {name: cut_off(written.figure(name)) for name in names} == {name: [] for name in names}


def test_overlaps_and_cut_labels_are_found() -> None:
    figure = style.new_figure(2.0, 2.0)
    axes = figure.subplots()
    axes.set_xticks(np.linspace(0, 1, 30), [f"{x:.4f}" for x in np.linspace(0, 1, 30)])
    axes.set_title("far longer than the figure is wide, and therefore cut off at both ends")
    style.lay_out(figure)
    assert overlaps(figure)
    assert cut_off(figure)


@given(st.floats(-12, 18), st.floats(0.02, 9), st.integers(3, 8))
def test_ticks_of_a_log_axis_are_few_and_apart(start: float, decades: float, most: int) -> None:
    low, high = 10.0**start, 10.0 ** (start + decades)
    ticks = np.array(LogTicks(most).tick_values(low, high))
    assert 2 <= len(ticks) <= most + 1
    assert (ticks >= low * (1 - 1e-6)).all()
    assert (ticks <= high * (1 + 1e-6)).all()
    assert np.diff(np.log(ticks)).min() > 0.05 * np.log(high / low)
    assert len({short(tick) for tick in ticks}) == len(ticks)


def test_the_lowest_loss_has_a_gap_where_the_best_size_ends() -> None:
    small = {"n_params": 1e3, "jets": [1e2, 1e3, 1e4], "loss": [2.0, 1.5, 1.2]}
    large = {"n_params": 1e4, "jets": [1e2, 1e3], "loss": [2.2, 1.0]}
    D, loss = lowest(pd.concat([pd.DataFrame(small), pd.DataFrame(large)]))
    gap = np.flatnonzero(np.isnan(loss))
    assert len(gap) == 1
    assert D[gap[0] - 1] <= 1e3 <= D[gap[0] + 1]
    assert loss[gap[0] - 1] < 1.1 < loss[gap[0] + 1]
    np.testing.assert_allclose(loss[[0, -1]], [2.0, 1.2])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.75, "0.75"), (320, "320"), (1e4, "10k"), (2.5e6, "2.5M"), (1e12, "$10^{12}$"),
     (3e11, r"$3 \times 10^{11}$")],
)  # fmt: skip
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


def test_a_figure_is_drawn_once_and_shown_as_saved(written: Written) -> None:
    files = sorted((written.out / "figures").glob("*.svg"))
    assert len(files) == len(written.drawn) == len(set(map(id, written.drawn)))
    assert written.printed == written.drawn
    for file in files:
        assert any(fnmatch(file.stem, name) for name in _DRAWN)  # a later fit removes it
        assert file.with_suffix(".png").is_file()
        assert written.html.count(base64.b64encode(file.read_bytes()).decode()) == 1


def test_the_page_needs_no_network(written: Written) -> None:
    assert "http" not in re.sub(r"data:[^\"]*", "", written.html)


def test_panels_hold_their_labels_and_no_other_panel(written: Written) -> None:
    figure = written.figure("subset_bsm_all")
    panels = style.panels_of(figure)
    assert [panel.title for panel in panels] == [
        "loss L(N, D)", "isoFLOP slices", "compute-optimal size and data"
    ]  # fmt: skip
    ends = [(panel.left, panel.left + panel.width) for panel in panels]
    assert all(one[1] <= other[0] + 0.01 for one, other in itertools.pairwise(ends))
    bars = [axes.get_tightbbox().x1 for axes in figure.axes if axes.get_label() == "<colorbar>"]
    across = figure.get_size_inches()[0] * figure.dpi
    assert len(bars) == 2
    assert sorted(bar / across for bar in bars) == pytest.approx([end for _, end in ends[:2]], abs=0.01)


def test_a_panel_is_shown_as_its_part_of_the_figure(tmp_path: Path) -> None:
    file = tmp_path / "f.svg"
    file.write_text("<svg/>")
    panel = style.Panel("x", 0.5, 0.25, 0.25, 0.5, 1.5, 300.0)
    drawing = Drawing(file, [panel])
    assert base64.b64decode(drawing.embedded.partition(",")[2]) == b"<svg/>"


# --- the command


def test_without_a_report_no_figure_is_drawn(sweep: Callable[..., Path], tmp_path: Path) -> None:
    """And none of what draws is imported; the report of an earlier fit does not stay."""
    path = sweep({"scratch": 0.5}, widths=(8, 16, 24, 32), seeds=2, evaluations=8)
    out = tmp_path / "out"
    out.mkdir()
    (out / "figures").mkdir()
    for name in ("report.html", "figures/gain.svg", "figures/subset_x.png", "figures/of_the_user.png"):
        (out / name).write_text("of an earlier fit")
    arguments = [f"path={path}", f"out={out}", "report=false", "multiverse=false",
                 "uncertainty.replicates=20", "uncertainty.profile=false"]  # fmt: skip
    code = (
        "import sys; from jetscale.analysis.__main__ import main; main(sys.argv[1:]);"
        "print([name for name in sys.modules if name.split('.')[0] in ('matplotlib', 'jinja2')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.splitlines()[-1] == "[]"
    assert "report.html" not in found.stdout
    assert (out / "results.json").is_file()
    assert not (out / "report.html").exists()
    assert [path.name for path in (out / "figures").iterdir()] == ["of_the_user.png"]
