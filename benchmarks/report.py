"""Rewrite the tables of ``docs/performance.md`` and their figure from ``benchmarks/results.json``.

    python -m benchmarks.report

Everything between a pair of markers ``<!-- NAME -->`` and ``<!-- end NAME -->`` is replaced; the rest of the
page is prose and stays.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.__main__ import RESULTS
from benchmarks.growth import PREFIX, draw
from benchmarks.predict import PEAKS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
# by the start of an entry's name: stage, what it is compared with, and its floor in operations or bytes
STAGES = {
    "step_dim(8|32|128)_vs_padded": (
        "training step, width {0}", "padded to 128 constituents", "products at GEMM rate, vector operations"
    ),
    "step_dim(8|32|128)_vs_longest": ("training step, width {0}", "padded to the longest jet", "the same"),
    r"arithmetic_dim(\d+)": ("arithmetic, width {0}", "weight products alone, fastest routine", "1"),
    "prepare": (
        "prepare, ROOT to store", "uproot reading the needed branches, nothing else",
        "reading; 765 B a jet written twice"
    ),
    "loader_share": ("loader, ms a batch of 128", "a step of 10 ms", ""),
    "batches": ("store to batches, all classes mixed", "weaver-core 0.5.3 at its fastest, same files", ""),
    "batches_by_class": ("store to batches, by class", "the same", ""),
    "batches_17": ("store to batches, its own 17 inputs", "the same", ""),
    "chunks": ("store to chunks for a GPU", "a million jets/s, the rate asked for", ""),
    "loop_dim8": ("Lightning loop, all tracking on", "bare loop of the same step", "the bare loop"),
    "start_to_first_step": ("start of a run to its first step", "1 s", "imports of the libraries alone"),
    "help": ("slowest `--help`", "1 s", "Python and Hydra"),
    "sweep_of_small_runs": (
        "sweep of 16 small runs",
        "sum of their step times",
        "the step times, imports, one composition a run",
    ),
    "evaluation_blocks": ("test evaluation with 1,000 blocks", "the same without", "the same without"),
    r"fit_(\d+)": ("point fit and {0} refits", "the time allowed", ""),
    "fit_joint_100": ("joint fit of five subsets and 100 refits, CPU", "the time allowed", ""),
    "fit_laptop_study": ("the laptop study without figures, CPU", "the time allowed", ""),
    "fit_point_vs_lbfgsb": ("point fit", "4,500 starts of L-BFGS-B, extrapolated", ""),
    "fit_point_vs_nnls_grid": ("point fit", "grid of non-negative least squares", ""),
    r"predict_dim(\d+)": (
        "predict, width {0}, files to scores", "the forward pass alone", "the forward pass alone"
    ),
    "predict_million": (
        "predict a million jets, width 8, files to scores", "the forward pass alone", "the forward pass alone"
    ),
    "predict_memory": ("predict a million jets, peak of memory", "the same of 300,000 jets", ""),
    "simulate_(jetclass2?)_per_event": (
        "simulate {0}, two workers", "Pythia's own time for the events", "Pythia with its initialisation"
    ),
}  # fmt: skip
COMMANDS = {
    "predict": "predict",
    "step": "step",
    "arithmetic": "step",
    "loop": "loop",
    "simulate": "simulate",
    "growth": "growth",
}
COMMANDS |= dict.fromkeys(("start", "help", "sweep", "evaluation"), "runs") | {"fit": "fit"}


def main() -> None:
    results = json.loads(RESULTS.read_text())
    page = PAGE.read_text()
    ratios = {name: entry for name, entry in results.items() if not name.startswith(PREFIX)}
    slopes = {name: entry for name, entry in results.items() if name.startswith(PREFIX)}
    page = _between(page, "ratios", _ratios(ratios))
    page = _between(page, "growth", _slopes(slopes))
    page = _between(page, "predict", _peaks(results[PEAKS]))
    draw(results)
    PAGE.write_text(page)


def _between(page: str, name: str, text: str) -> str:
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE}: the markers of {name!r} are missing")
    return pattern.sub(lambda found: found[1] + text + found[2], page)


def _ratios(entries: dict[str, dict[str, Any]]) -> str:
    rows = ["stage | peer | floor | peer's time | ours | ratio | target | met | `python -m benchmarks`"]
    rows.append("|".join(["---"] * 9))
    for name, entry in entries.items():
        stage, peer, floor = _stage(name)
        least = f"{floor}: {_number(entry['floor'])}" if "floor" in entry else floor
        met = "yes" if entry["met"] else "**no**"
        command = COMMANDS.get(name.split("_")[0], "jets")
        cells = [stage, peer, least, f"{_number(entry['reference'])} {entry['unit']}", _number(entry["ours"])]
        rows.append(" | ".join([*cells, _number(entry["ratio"]), _number(entry["target"]), met, command]))
    return "".join(f"| {row} |\n" for row in rows)


def _slopes(entries: dict[str, dict[str, Any]]) -> str:
    rows = ["cost | grows with | from | to | slope | at most", "---|---|---|---|---|---"]
    for entry in entries.values():
        ends = (
            f"{x:,g}: {_number(seconds)} s"
            for x, seconds in ((entry["x"][0], entry["reference"]), (entry["x"][-1], entry["ours"]))
        )
        rows.append(
            " | ".join(
                [entry["quantity"], entry["per"], *ends, f"{entry['ratio']:.2f}", f"{entry['target']:g}"]
            )
        )
    return "".join(f"| {row} |\n" for row in rows)


def _peaks(entry: dict[str, Any]) -> str:
    rows = ["jets | seconds | jets a second | peak of resident memory, MiB", "---|---|---|---"]
    for jets, seconds, peak in zip(entry["jets"], entry["seconds"], entry["MiB"], strict=True):
        rows.append(f"{jets:,} | {_number(seconds)} | {jets / seconds:,.0f} | {peak:,.0f}")
    return "".join(f"| {row} |\n" for row in rows)


def _stage(name: str) -> tuple[str, str, str]:
    for pattern, texts in STAGES.items():
        if found := re.fullmatch(pattern, name):
            stage, peer, floor = texts
            return stage.format(*found.groups()), peer, floor
    return name.replace("_", " "), "see the benchmark", ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
