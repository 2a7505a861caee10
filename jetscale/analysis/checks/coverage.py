"""How often intervals hold the truth in simulations, and which stop to where the form of the law is wrong.

``benchmarks/coverage.py`` simulates and writes coverage.json.
A lack of fit that residuals show is compared with the simulated designs in which the form misses the loss by
about as much: a quantity whose nominal 95% interval held the truth too seldom there is named in a warning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

TOO_SELDOM = 0.9  # of nominal 95%
SMALLEST = 0.005  # lack of fit, as a share of the loss, that is compared: half of the smallest simulated
FAR = "next run, 10 C"  # of the columns: a run near the optimum of ten times the largest budget
WRONG = re.compile(r"wrong by ([\d.]+)%$")


@lru_cache(maxsize=2)
def simulated(package: str) -> dict[str, Any]:
    """Content of the coverage.json of a package: ``checks`` (single fits) or ``joint``."""
    text = files(f"jetscale.analysis.{package}").joinpath("coverage.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def table() -> dict[str, Any]:
    """Columns (quantities) and rows (design, errors, trials, values) of the simulations of single fits."""
    return simulated("checks")


def shown(shares: Mapping[str, float]) -> str:
    """How often intervals held the truth, by quantity: ``alpha 0%; next run at 10 C 0%``."""
    return "; ".join(f"{readable(name)} {100 * share:.0f}%" for name, share in shares.items())


def readable(name: str) -> str:
    """A quantity as a list names it; columns have commas in their names."""
    return name.replace(", approach", " of approach").replace(", 10 C", " at 10 C")


def where_wrong(missed: float) -> tuple[float, dict[str, float]]:
    """Lowest coverage of every quantity in the simulated designs whose form misses nearest to `missed`.

    Parameters
    ----------
    missed : rms of ln L that the form misses.

    Returns
    -------
    What the form misses in these designs, and the coverage by quantity.
    """
    rows = [(float(found[1]) / 100, row) for row in table()["rows"] if (found := WRONG.search(row["design"]))]
    levels = sorted({level for level, _ in rows})
    nearest = min(levels, key=lambda level: abs(np.log(level / missed)))
    lowest: dict[str, float] = {}
    for level, row in rows:
        if level == nearest and row["errors"] == "wild":
            for name, value in zip(table()["columns"], row["values"], strict=True):
                if value is not None:
                    lowest[name] = min(value, lowest.get(name, 1.0))
    return nearest, lowest


def warning(missed: float) -> str:
    """Say which intervals no longer hold the truth where the form misses so much; empty where all do.

    Parameters
    ----------
    missed : rms of ln L that the form misses (the bends of the residuals).
    """
    if missed < SMALLEST:
        return ""
    level, lowest = where_wrong(missed)
    failing = {name: value for name, value in lowest.items() if value < TOO_SELDOM}
    if not failing:
        return ""
    holding = "; ".join(readable(name) for name in lowest if name not in failing)
    return (
        f"the form misses the loss by {100 * missed:.2g}% (rms of the bends of the residuals). In simulated"
        f" tables whose form is wrong by {100 * level:.2g}%, nominal 95% intervals held the truth only this"
        f" often: {shown(failing)}"
        + (f". Those of {holding} still did" if holding else "")
        + ": do not read the former as 95% intervals"
    )


def far_outside(missed: float) -> str:
    """Say so where the form misses so much that a prediction far outside the runs does not hold them.

    Parameters
    ----------
    missed : rms of ln L that the form misses.

    Returns
    -------
    One sentence; empty where such intervals held in the simulations.
    """
    if missed < SMALLEST:
        return ""
    level, lowest = where_wrong(missed)
    held = lowest.get(FAR, 1.0)
    if held >= TOO_SELDOM:
        return ""
    return (
        f"the form misses the loss by {100 * missed:.2g}%: in simulated tables whose form is wrong by"
        f" {100 * level:.2g}%, 95% intervals this far outside held {100 * held:.0f}% of the runs"
    )
