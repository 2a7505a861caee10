"""Every benchmark, into ``benchmarks/results.json``.

    python -m benchmarks [NAME ...] [--compare OLD.json]

Each module here has ``run() -> {NAME: {"ratio", "target", "met", "ours", "reference", "unit"}}``. With names,
only these run, and only their entries of the file are replaced. ``--compare`` shows how each ratio changed
since another results file (``git show COMMIT:benchmarks/results.json > old.json``).
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jetscale.common.files import write_json

RESULTS = Path(__file__).parent / "results.json"
MODULES = ("step", "loop", "jets", "runs", "simulate", "fit", "predict", "growth")
KEYS = ("ratio", "target", "met", "ours", "reference", "unit")
CHANGED = 0.05
"""Relative change of a ratio from which ``--compare`` marks it; medians of a quiet machine repeat to 2-3%."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; all by default")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="an older results.json")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(MODULES)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(MODULES)}")
    old = {} if arguments.compare is None else json.loads(arguments.compare.read_text())
    console = Console()
    kept = json.loads(RESULTS.read_text()) if arguments.names and RESULTS.exists() else {}
    results = {}
    for name in arguments.names or MODULES:
        start = time.monotonic()
        results.update(importlib.import_module(f"benchmarks.{name}").run())
        console.print(f"{name}: {time.monotonic() - start:.0f} s")
        write_json(RESULTS, kept | results)  # one that fails does not take the others with it
    console.print(_table(results, old))


def _table(results: dict[str, dict[str, Any]], old: dict[str, dict[str, Any]]) -> Table:
    table = Table("benchmark", *KEYS, *(["before", "change"] if old else []))
    for name, entry in results.items():
        cells = [f"{v:.3g}" if isinstance(v := entry[key], float) else str(v) for key in KEYS]
        if old:
            cells += _change(entry, old.get(name))
        table.add_row(name, *cells)
    return table


def _change(entry: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    if before is None:
        return ["-", "new"]
    change = entry["ratio"] / before["ratio"] - 1
    return [f"{before['ratio']:.3g}", f"{change:+.1%}" + (" !" if abs(change) > CHANGED else "")]


if __name__ == "__main__":
    main()
