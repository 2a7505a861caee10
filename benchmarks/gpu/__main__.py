"""Measure training on a GPU, in at most six minutes, into ``gpu.json``.

    python -m benchmarks.gpu                # tests, steps of all widths, floors, runs, runs that share it
    python -m benchmarks.gpu --quick        # some widths and shorter runs, in two minutes
    python -m benchmarks.gpu --agreement    # only loss curves: captured, eager, float32; five minutes

It makes its jets, and needs neither a network nor anything beyond the project and Triton. The file is written
after every part, so a run that is stopped keeps what it has measured. A part that fails is recorded with its
error, and the others go on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from jetscale.common.files import write_json

OUT = Path(__file__).parents[1] / "gpu.json"
TARGETS = {8: 0.25, 16: 0.25, 24: 0.25, 32: 0.25, 48: 0.25, 64: 0.25, 128: 0.40, 256: 0.80, 512: 1.7}
"""Milliseconds a step of `python -m jetscale.train` with all its tracking, batch 128."""

Part = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some widths and shorter runs, in two minutes")
    parser.add_argument("--agreement", action="store_true", help="compare loss curves, nothing else")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help=f"default: {OUT}")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is False; on a CPU run python -m benchmarks step")
    from benchmarks.gpu import agreement, card, runs, steps

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        parts: dict[str, Part] = {"card": card.card}
        if arguments.agreement:
            parts["agreement"] = lambda: agreement.run(work)
        else:
            quick = arguments.quick
            parts |= {
                "steps": lambda: steps.run(quick),
                "runs": lambda: runs.run(work, quick),
                "grid": lambda: runs.grid(results["steps"], results["runs"]),
                "tests": card.tests,
                "shared": lambda: runs.shared(work, quick),
            }
        for name, part in parts.items():
            results[name] = _measured(name, part)
            write_json(arguments.out, results)
    if isinstance(results.get("runs"), dict) and isinstance(results.get("steps"), dict):
        Console(width=140).print(_table(results["steps"], results["runs"]))
    print(f"written: {arguments.out}")


def _measured(name: str, part: Part) -> Any:
    start = time.monotonic()
    try:
        found = part()
    except Exception as error:  # the other parts go on: a card is lent for minutes
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return found


def _table(steps: dict[str, Any], runs: dict[str, Any]) -> Table:
    columns = (
        *("width", "eager, ms", "graph, ms", "run, ms", "target", "kernels", "products, ms", "launches, ms"),
        *("evaluation / products", "memory, MiB", "start, s"),
    )
    table = Table(*columns)
    for dim, row in steps.items():
        if not dim.isdigit():
            continue
        run, floors = runs.get(dim, {}), row.get("floors", {})
        cells = (
            *(row.get("eager_ms"), row.get("graph_ms"), run.get("ms"), TARGETS.get(int(dim))),
            *(row.get("kernels"), floors.get("products_ms"), floors.get("launches_ms")),
            *(row.get("evaluation_ratio"), run.get("memory_mib"), run.get("start_s")),
        )
        table.add_row(dim, *("" if cell is None else f"{cell:.4g}" for cell in cells))
    return table


if __name__ == "__main__":
    main()
