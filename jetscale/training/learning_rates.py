"""Learning rate by width and by step: pure functions, so that resuming needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from jetscale.common.fields import Range, take

SCHEDULES = ("constant", "cosine")
_FORMS = "a number above 0, {table: {8: 3e-3}} or {base: 1e-3, dim: 64, power: -0.5}"


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
    spec = checked_rate(spec)
    if "table" in spec:
        if dim not in spec["table"]:
            raise ValueError(f"the table has no rate for dim={dim}, only for {sorted(spec['table'])}")
        rate = spec["table"][dim]
    else:
        rate = spec["base"] * (dim / spec["dim"]) ** spec["power"]
    return _positive(f"the rate of dim={dim}", rate)


def checked_rate(spec: Any) -> dict[str, Any]:
    """The specification of `learning_rate`, all its numbers checked; a plain number as a constant rule.

    Raises
    ------
    ValueError
        Another form, or a number out of its limits.
    """
    if isinstance(spec, (int, float, str)) and not isinstance(spec, bool):
        return {"base": _positive("the rate", spec), "dim": 1.0, "power": 0.0}
    if isinstance(spec, Mapping) and set(spec) == {"base", "dim", "power"}:
        power = take("power", Annotated[float, Range(-10, 10)], spec["power"])
        return {"base": _positive("base", spec["base"]), "dim": _positive("dim", spec["dim"]), "power": power}
    if isinstance(spec, Mapping) and set(spec) == {"table"} and isinstance(spec["table"], Mapping):
        table = {_width(width): _positive(f"{width}", one) for width, one in spec["table"].items()}
        if len(table) < len(spec["table"]):
            raise ValueError(f"the table has two rates for one width; its widths are {sorted(table)}")
        return {"table": table}
    raise ValueError(f"no learning rate; give {_FORMS}")


def _width(value: Any) -> int:
    width: int = take("a width of the table", Annotated[int, Range(1)], value)
    return width


def _positive(name: str, value: Any) -> float:
    number: float = take(name, Annotated[float, Range(0, without="low")], value)
    return number


def rate_at(step: int, peak: float, warmup: int, steps: int, schedule: str) -> float:
    """Rate of optimiser step number `step` (counted from 0) out of `steps`.

    Linear warm-up, then the schedule.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return peak
