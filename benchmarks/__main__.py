"""``python -m benchmarks [NAME ...]``: run the benchmarks and write ``benchmarks/results.json``.

Each module here has ``run() -> {NAME: {"ratio", "target", "met", "ours", "reference", "unit"}}``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jetscale.files import write_json

HERE = Path(__file__).parent
MODULES = ("step", "loop", "jets", "simulate", "fit")


def main(names: list[str]) -> None:
    unknown = sorted(set(names) - set(MODULES))
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are {', '.join(MODULES)}")
    results = {}
    for name in names or MODULES:
        results.update(importlib.import_module(f"benchmarks.{name}").run())
    table = Table("benchmark", "ratio", "target", "met", "ours", "reference", "unit")
    for name, entry in results.items():
        row = (entry[key] for key in ("ratio", "target", "met", "ours", "reference", "unit"))
        table.add_row(name, *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row))
    Console().print(table)
    if not names:
        write_json(HERE / "results.json", results)


if __name__ == "__main__":
    main(sys.argv[1:])
