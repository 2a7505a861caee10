"""Inject all faults, or some kinds, and count how the programs react.

    python -m benchmarks.faults [KIND ...] [--share 0.1] [--seed 0]

The exit status is 1 if a fault was accepted silently, or ended without the name of its file or key. When all
kinds run in full, the table goes into ``docs/reliability.md`` and ``benchmarks/faults.json`` too.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # not where it is imported: other programs that are started there would inherit it
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # children are forked: no threads

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.faults import bad_settings, flips
from benchmarks.faults.flips import VERDICTS, FilesKind, Tally
from benchmarks.faults.kinds import FILES
from jetscale.common.files import write_json

RESULTS = Path(__file__).parents[1] / "faults.json"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
MARKS = re.compile(r"(<!-- faults -->\n).*?(<!-- end faults -->)", re.DOTALL)


def tallies(names: list[str], share: float, seed: int) -> list[Tally]:
    """Inject a share of the faults of all kinds, or of those whose names hold one of `names`."""
    inject: dict[str, Callable[[], Tally]] = {
        **{kind.name: partial(_flip, kind, share, seed) for kind in FILES},
        **{program.name: partial(bad_settings.run, program, share) for program in bad_settings.programs()},
    }
    return [_timed(work) for name, work in inject.items() if not names or any(part in name for part in names)]


def _flip(kind: FilesKind, share: float, seed: int) -> Tally:
    with tempfile.TemporaryDirectory() as folder:
        return flips.run(kind, Path(folder), round(kind.flips * share), seed)


def _timed(inject: Callable[[], Tally]) -> Tally:
    start = time.monotonic()
    tally = inject()
    seconds = time.monotonic() - start
    sys.stderr.write(f"{tally.name}: {_faults(tally)}; {len(tally.bad)} bad, {seconds:.0f} s\n")
    for line in tally.bad[:10]:
        sys.stderr.write(f"  {line}\n")
    return tally


def _faults(tally: Tally) -> str:
    return ", ".join(f"{count:,} {fault}" for fault, count in tally.faults.items())


def _content(tally: Tally) -> dict[str, object]:
    return {"faults": dict(tally.faults), "verdicts": dict(tally.verdicts), "bad": tally.bad}


def table(found: list[Tally]) -> str:
    """The fault table in Markdown."""
    rows = ["| kind | faults | " + " | ".join(VERDICTS) + " |", "|---|" + "---|" * (1 + len(VERDICTS))]
    total = Tally("**all**")
    for tally in found:
        total.faults += tally.faults
        total.verdicts += tally.verdicts
    for tally in (*found, total):
        cells = [tally.name, _faults(tally), *(f"{tally.verdicts[verdict]:,}" for verdict in VERDICTS)]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="KIND", help="part of the name of a kind; all by default")
    parser.add_argument("--share", type=float, default=1.0, help="of the faults of each kind (default all)")
    parser.add_argument("--seed", type=int, default=0, help="which bits (default 0)")
    arguments = parser.parse_args()
    found = tallies(arguments.names, arguments.share, arguments.seed)
    sys.stdout.write(table(found))
    if not arguments.names and arguments.share == 1:
        PAGE.write_text(MARKS.sub(lambda marks: marks[1] + table(found) + marks[2], PAGE.read_text()))
        write_json(RESULTS, {tally.name: _content(tally) for tally in found})
    return int(any(tally.bad for tally in found))


if __name__ == "__main__":
    sys.exit(main())
