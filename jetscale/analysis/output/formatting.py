"""Numbers of results.json as text, for tables and sentences."""

from __future__ import annotations

import math
from typing import Any

from jetscale.analysis.fitting.numbers import Quantity

SYMBOLS = {"alpha": "α", "beta": "β", "L_inf": "L∞"}


def number(value: float | None, digits: int = 4) -> str:
    """Number for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}g}"


def amount(value: float | None) -> str:
    """Count of jets, parameters or FLOPs to three digits: 10,200; 1.2e12."""
    if value is None:
        return "–"
    if abs(value) >= 1e9:
        front, _, power = f"{value:.2e}".partition("e")
        return f"{float(front):g}e{int(power)}"
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 10 else f"{value:.3g}"


def interval(entry: dict[str, Any] | None) -> str:
    """Value ± sd [95% interval] of an entry of results.json."""
    if entry is None or entry["value"] is None:
        return "–"
    ends = entry["ci95"]
    return str(Quantity(entry["value"], entry["sd"], None if ends is None else (ends[0], ends[1])))


def brief(entry: dict[str, Any], *, signed: bool = False) -> str:
    """Value [95% interval] of an exponent or a difference of two, to the digits that the interval warrants.

    Parameters
    ----------
    entry : of results.json, with a value.
    signed : write the sign of positive numbers too.
    """
    value, ends = entry["value"], entry["ci95"]
    sign = "+" if signed else ""
    if ends is None:
        return f"{value:{sign}.2f} (no interval)"
    digits = places(ends)
    while digits < 4 and any(end and not round(end, digits) for end in ends):
        digits += 1  # an end just off 0 must not read as 0
    low, high = (f"{end:{sign}.{digits}f}" for end in ends)
    return f"{value:{sign}.{digits}f} [{low}, {high}]"


def places(ends: list[float]) -> int:
    """Decimal places that show two digits of the half-width of an interval, 2 to 4."""
    half = 0.5 * abs(ends[1] - ends[0])
    return 2 if half <= 0 else min(4, max(2, 1 - math.floor(math.log10(half))))


def amounts(entry: dict[str, Any]) -> str:
    """Value [95% interval] of a count."""
    if entry["ci95"] is None:
        return f"{amount(entry['value'])} (no interval)"
    low, high = map(amount, entry["ci95"])
    return f"{amount(entry['value'])} [{low}, {high}]"


def cell(value: Any) -> str:
    """A text, a number or an entry of results.json, for a table."""
    if value is None or isinstance(value, dict):
        return interval(value)
    return value if isinstance(value, str) else number(value, 2)


def symbol(name: str) -> str:
    """Name of a quantity as formulas write it."""
    return SYMBOLS.get(name, name)


def share(value: float | None) -> str:
    """Part of a whole, such as a coverage."""
    return "–" if value is None else f"{value:.2f}"


def percent(entry: dict[str, Any] | None) -> str:
    """Difference of ln L as a change of L in %, with its 95% interval."""
    if entry is None or entry["value"] is None:
        return "–"
    value, *ends = (f"{100 * math.expm1(x):+.1f}%" for x in (entry["value"], *(entry["ci95"] or ())))
    return f"{value} [{', '.join(ends)}]" if ends else value


def size_of(entry: dict[str, Any]) -> str:
    """Width of a gain's entry, or its N where the table has no widths."""
    return f"width {entry['dim']:g}" if "dim" in entry else f"N = {amount(entry['n_params'])}"


def joined(parts: list[str]) -> str:
    """One, two and three."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
