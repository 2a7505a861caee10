"""Where the time before a run's own first line goes: imports, and the card's context.

    python -m benchmarks.gpu.imports

prints seconds of each as one JSON object, in the order in which a run needs them, so that what an earlier
import brings along is counted there. ``with_bytecode`` is the share of the imported Python files whose
byte-code was stored already: without it, every start compiles them anew.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetscale.common.imports import quick_imports

if TYPE_CHECKING:
    from benchmarks.gpu.commands import Bench

MODULES = ("hydra", "torch", "lightning", "jetscale.training.run", "wandb", "triton")


def run(bench: Bench) -> None:
    """One row: seconds of the imports of a run, in a process of its own.

    Parameters
    ----------
    bench : where, and how commands are started
    """
    bench.session.row("start", "imports", partial(_row, bench))


def _row(bench: Bench) -> dict[str, Any]:
    from benchmarks.gpu.commands import running, succeed  # here: it imports what is to be timed

    begun = time.monotonic()
    with running([([sys.executable, "-m", "benchmarks.gpu.imports"], bench.work)], bench.start) as processes:
        succeed(processes[0], bench.session.left)
        lines = [line for line in processes[0].printed().splitlines() if line.startswith("{")]
    return {"process_s": time.monotonic() - begun, **json.loads(lines[-1])}


def main() -> None:
    """Import, and print the seconds."""
    found: dict[str, float] = {}
    start = time.time()
    with quick_imports():  # as a run has it
        for name in MODULES:
            begun = time.monotonic()
            try:
                importlib.import_module(name)
            except ImportError:
                continue
            found[name] = round(time.monotonic() - begun, 3)
    cached = [getattr(module, "__cached__", None) for module in list(sys.modules.values())]
    stored = [_is_older(Path(path), start) for path in cached if isinstance(path, str)]
    found["with_bytecode"] = round(sum(stored) / len(stored), 3)
    begun = time.monotonic()
    import torch

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda").item()
        found["context"] = round(time.monotonic() - begun, 3)
    print(json.dumps(found))


def _is_older(path: Path, moment: float) -> bool:
    return path.is_file() and path.stat().st_mtime < moment


if __name__ == "__main__":
    main()
