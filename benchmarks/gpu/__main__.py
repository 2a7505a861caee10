"""Measure training on a GPU into a JSON file; meant to take at most six minutes, and stopped then.

    python -m benchmarks.gpu                # kernels, tests, steps and floors, runs, starts, shared card
    python -m benchmarks.gpu --quick        # some widths and shorter runs; stopped after two minutes
    python -m benchmarks.gpu --agreement    # only loss curves: captured, eager, float32; after five minutes

It makes its jets, and needs neither a network nor anything beyond the project and Triton. The file is written
after every row, so a call that is stopped keeps what it has measured. A row that fails is recorded with its
error, one for which no time was left as such, and the others go on. Each call writes a new file, gpu.json,
gpu_quick.json or gpu_agreement.json beside this folder, with a number where these are there already; --out
names another, and one of that name is replaced.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gpu.commands import ROOT, Bench, Running, jets, running
from benchmarks.gpu.session import Session, measured

FOLDER = Path(__file__).parents[1]
TARGETS = {8: 0.25, 16: 0.25, 24: 0.25, 32: 0.25, 48: 0.25, 64: 0.25, 128: 0.40, 256: 0.80, 512: 1.7}
"""Milliseconds a step of `python -m jetscale.train` with all its tracking, batch 128."""
SECONDS, QUICK_SECONDS, AGREEMENT_SECONDS = 360.0, 120.0, 300.0
TESTS = 0.36
"""Share of the time by which the tests have ended, or are stopped."""


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some widths and shorter runs, two minutes")
    parser.add_argument("--agreement", action="store_true", help="compare loss curves, nothing else")
    parser.add_argument("--out", type=Path, metavar="FILE", help="written, or replaced; default: a new file")
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is False; on a CPU run python -m benchmarks step")
    name, limit = _kind(arguments)
    out = arguments.out or new_file(FOLDER, name)
    session = Session(out, limit, begun)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        bench = Bench(session, work, jets(work))
        with running([] if arguments.agreement else [_tests()]) as tests:
            # empty, and not the tests': compiling is measured too, and compiled kernels are counted
            os.environ["TRITON_CACHE_DIR"] = str(work / "triton")
            for name, part in _parts(bench, tests, arguments).items():
                session.part(name, part)
    console = Console(width=140)
    if not arguments.agreement:
        console.print(_table(session.results))
    print(f"written: {out}")


def _kind(arguments: argparse.Namespace) -> tuple[str, float]:
    """Name of the results without its ending, and seconds."""
    if arguments.agreement:
        return "gpu_agreement", AGREEMENT_SECONDS
    return ("gpu_quick", QUICK_SECONDS) if arguments.quick else ("gpu", SECONDS)


def new_file(folder: Path, name: str) -> Path:
    """Make an empty file, so that no call writes over what another has measured.

    Parameters
    ----------
    folder : where to
    name : without its ending

    Returns
    -------
    The first of ``name.json``, ``name_2.json``, ``name_3.json``, ... that was not there.
    """
    number, path = 1, folder / f"{name}.json"
    while path.exists():
        number += 1
        path = folder / f"{name}_{number}.json"
    path.touch(exist_ok=False)
    return path


def _tests() -> tuple[list[str], Path]:
    """The command that runs the tests that need a card, and where."""
    from benchmarks.gpu import card

    return card.command_of_tests(card.files_of_tests()), ROOT


def _parts(
    bench: Bench, tests: Sequence[Running], arguments: argparse.Namespace
) -> dict[str, Callable[[], object]]:
    """The parts in the order in which they are measured: what the table needs comes first.

    The tests run beside the compiling, which is on the CPU, and end before anything is timed.
    """
    from benchmarks.gpu import agreement, card, grid, imports, kernels, runs, steps

    session, results, quick = bench.session, bench.session.results, arguments.quick
    first: dict[str, Callable[[], object]] = {"card": lambda: results["card"].update(card.card())}
    if arguments.agreement:
        return {**first, "agreement": lambda: agreement.run(bench)}
    dims = steps.QUICK if quick else steps.DIMS
    trained = runs.QUICK if quick else runs.STEPS
    return {
        **first,
        "kernels": lambda: kernels.run(bench, dims, tuple(trained)),
        "tests": lambda: session.record("tests", "gpu", lambda: card.ended(tests[0], session.until(TESTS))),
        "steps": lambda: steps.run(session, dims),
        "runs": lambda: runs.run(bench, trained),
        "start": lambda: (runs.start(bench, runs.START_QUICK if quick else runs.START), imports.run(bench)),
        "shared": lambda: runs.shared(bench, runs.SHARED_QUICK if quick else runs.SHARED),
        "grid": lambda: results["grid"].update(grid.hours(results)),
    }


def _table(results: dict[str, Any]) -> Table:
    columns = (
        *("width", "eager, ms", "graph, ms", "run, ms", "target", "kernels", "products, ms", "launches, ms"),
        *("evaluation / products", "memory, MiB", "start, s"),
    )
    table = Table(*columns)
    steps, runs, starts = (measured(results.get(part, {})) for part in ("steps", "runs", "start"))
    for dim in sorted({*steps, *runs, *starts}):
        step, run, start = (rows.get(dim, {}) for rows in (steps, runs, starts))
        floors = step.get("floors", {})
        cells = (
            *(step.get("eager_ms"), step.get("graph_ms"), run.get("ms"), TARGETS.get(dim)),
            *(step.get("kernels"), floors.get("products_ms"), floors.get("launches_ms")),
            *(step.get("evaluation_ratio"), run.get("memory_mib"), start.get("start_s")),
        )
        table.add_row(str(dim), *("" if cell is None else f"{cell:.4g}" for cell in cells))
    return table


if __name__ == "__main__":
    main()
