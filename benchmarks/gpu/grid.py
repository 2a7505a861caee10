"""Hours of one card for the paper's grid, from the rows of the other parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.gpu.session import measured
from jetscale.common.paper import WIDTHS

# conf/sweep/paper.yaml and conf/budget/paper.yaml, at each width: five seeds of five subsets, of which all
# but scratch are pretrained
FINETUNINGS, PRETRAININGS = 25, 20
FINETUNE_STEPS, PRETRAIN_STEPS, CHECKPOINT_EVERY = 600_000, 200_000, 5_000
EVALUATIONS = 149
"""Test losses of a fine-tuning, each of 100,000 jets."""
STEPS = FINETUNINGS * FINETUNE_STEPS + PRETRAININGS * PRETRAIN_STEPS
CHECKPOINTS = STEPS // CHECKPOINT_EVERY
MS_AN_HOUR = 3.6e6


def hours(results: Mapping[str, Any]) -> dict[str, Any]:
    """Hours of the grid by width: one run after another, and several at once.

    A quantity that was not measured at a width is interpolated in the logarithm of the width, or taken from
    the nearest width beyond the ends; the gain by sharing is taken nowhere beyond its ends.

    Parameters
    ----------
    results : parts ``steps``, ``runs``, ``start`` and ``shared``, as far as they are there

    Returns
    -------
    ``hours``, ``total``, ``shared_hours``, ``shared_total``: None where they cannot be told; by quantity, the
    widths at which it was measured (``measured_at``); and what is assumed.
    """
    steps, runs = (measured(results.get(part, {})) for part in ("steps", "runs"))
    known: dict[str, dict[int, float]] = {
        "run_ms": {dim: row["ms"] for dim, row in runs.items()},
        "graph_ms": {dim: row["graph_ms"] for dim, row in steps.items()},
        "checkpoint_ms": {
            dim: row["checkpoint_ms"] for dim, row in runs.items() if row["checkpoint_ms"] is not None
        },
        "evaluation_ms": {dim: row["evaluation_ms"] for dim, row in steps.items()},
        "start_s": {dim: row["start_s"] for dim, row in measured(results.get("start", {})).items()},
        "gain": gains(results.get("shared", {}), runs),
    }
    alone = {dim: _alone(known, dim) for dim in WIDTHS}
    together = {dim: _together(alone[dim], known["gain"], dim) for dim in WIDTHS}
    return {
        "hours": alone,
        "total": _total(alone),
        "shared_hours": together,
        "shared_total": _total(together),
        "measured_at": {name: sorted(values) for name, values in known.items()},
        "assumed": (
            "at widths that are not in measured_at, a quantity is interpolated in the logarithm of the width "
            "(run_ms: what it is beyond graph_ms, which is measured there); an evaluation takes the time of "
            "its graphs, files and W&B not included; the measured runs keep an average of the weights, which "
            "the paper's do not; runs that share the card gain as much in evaluations, checkpoints, starts "
            "as in steps"
        ),
    }


def gains(shared: Mapping[str, Any], runs: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    """Steps a second of several runs at once over those of one alone, the best number of runs, by width.

    Parameters
    ----------
    shared : rows of the part
    runs : rows of runs alone, by width
    """
    best: dict[int, float] = {}
    for row in shared.values():
        if isinstance(row, dict) and "steps_per_second" in row and row["dim"] in runs:
            gain = row["steps_per_second"] * runs[row["dim"]]["ms"] / 1e3
            best[row["dim"]] = max(gain, best.get(row["dim"], 1.0))  # one alone is a way to share too
    return best


def _alone(known: Mapping[str, Mapping[int, float]], dim: int) -> float | None:
    step = known["run_ms"].get(dim)
    if step is None:
        graphs = known["graph_ms"]
        extra = {at: ms - graphs[at] for at, ms in known["run_ms"].items() if at in graphs}
        if dim not in graphs or not extra:
            return None
        step = graphs[dim] + _between(extra, dim)
    if not all(known[name] for name in ("checkpoint_ms", "evaluation_ms", "start_s")):
        return None
    milliseconds = (
        STEPS * step
        + CHECKPOINTS * _between(known["checkpoint_ms"], dim)
        + FINETUNINGS * EVALUATIONS * _between(known["evaluation_ms"], dim)
        + FINETUNINGS * 1e3 * _between(known["start_s"], dim)
    )
    return milliseconds / MS_AN_HOUR


def _together(alone: float | None, gain: Mapping[int, float], dim: int) -> float | None:
    if alone is None or not gain or not min(gain) <= dim <= max(gain):
        return None
    return alone / _between(gain, dim)


def _total(by_width: Mapping[int, float | None]) -> float | None:
    found = [value for value in by_width.values() if value is not None]
    return math.fsum(found) if len(found) == len(by_width) else None


def _between(known: Mapping[int, float], dim: int) -> float:
    """Linear in the logarithm of the width, constant beyond the ends."""
    dims = sorted(known)
    low = max([d for d in dims if d <= dim], default=dims[0])
    high = min([d for d in dims if d >= dim], default=dims[-1])
    if low == high or dim < dims[0] or dim > dims[-1]:
        return known[low if dim >= dims[0] else dims[0]]
    share = math.log(dim / low) / math.log(high / low)
    return known[low] + share * (known[high] - known[low])
