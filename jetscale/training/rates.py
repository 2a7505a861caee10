"""Learning rate by width and by step: pure functions, so that resuming needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SCHEDULES = ("constant", "cosine")


def learning_rate(spec: Any, dim: int) -> float:
    """Peak rate for width `dim`.

    Parameters
    ----------
    spec : a number; ``{"table": {dim: rate}}``; or ``{"base": r, "dim": d0, "power": p}`` for r * (dim /
        d0)^p

    Raises
    ------
    ValueError
        A width the table lacks, a rate that is not positive, or another form.
    """
    if isinstance(spec, Mapping) and set(spec) == {"table"}:
        table = {int(width): float(rate) for width, rate in spec["table"].items()}
        if dim not in table:
            raise ValueError(f"the table has no rate for dim={dim}, only for {sorted(table)}")
        rate = table[dim]
    elif isinstance(spec, Mapping) and set(spec) == {"base", "dim", "power"}:
        rate = float(spec["base"]) * (dim / float(spec["dim"])) ** float(spec["power"])
    elif isinstance(spec, (int, float, str)) and not isinstance(spec, bool):
        rate = float(spec)
    else:
        forms = "a number, {table: {8: 3e-3}} or {base: 1e-3, dim: 64, power: -0.5}"
        raise ValueError(f"{spec!r} is no learning rate; give {forms}")
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"the rate {rate} is not positive and finite")
    return rate


def rate_at(step: int, peak: float, warmup: int, steps: int, schedule: str) -> float:
    """Rate of optimiser step number `step` (counted from 0) out of `steps`.

    Linear warm-up, then the schedule.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return peak


def evaluation_steps(steps: int, every: int, log_points: int) -> frozenset[int]:
    """Steps after which the test loss is taken: multiples of `every`, log-spaced ones, and the last."""
    chosen = {*range(every, steps + 1, every), steps}
    if log_points > 1:
        first = min(10, steps)
        chosen |= {round(first * (steps / first) ** (i / (log_points - 1))) for i in range(log_points)}
    return frozenset(chosen)
