"""Units of C, N and D: those that a column's name tells, and values that cannot be what a table says."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6 N D
PLAUSIBLE_COST = (0.5, 1e5)  # FLOPs a parameter and sample: 6 a token, 240 a jet, 12,000 a sequence of 2,048
PLAUSIBLE_DATA = (1e-3, 1e6)  # samples a parameter
USUAL_DATA = 20.0
MIXED = 30.0  # largest over smallest C / (N D)
COMPUTE_UNITS = {
    "kFLOPs": 1e3,
    "MFLOPs": 1e6,
    "GFLOPs": 1e9,
    "TFLOPs": 1e12,
    "PFLOPs": 1e15,
    "EFLOPs": 1e18,
    "ZFLOPs": 1e21,
    "PFLOP/s-days": 8.64e19,
}
SAMPLE_UNITS = {
    "thousands": 1e3,
    "millions": 1e6,
    "billions": 1e9,
    "trillions": 1e12,
    "10^15": 1e15,
    "10^18": 1e18,
}
MOST = {"N": 2e13, "D": 1e16, "C": 1e30, "D_pre": 1e16}
"""What no table has had more of: a unit in a name that leads beyond is not the unit of the numbers."""
POWERS = {
    "k": 1e3, "thousand": 1e3, "thousands": 1e3,
    "m": 1e6, "mio": 1e6, "million": 1e6, "millions": 1e6,
    "b": 1e9, "bn": 1e9, "g": 1e9, "billion": 1e9, "billions": 1e9,
    "t": 1e12, "trillion": 1e12, "trillions": 1e12,
}  # fmt: skip
_COUNTED = r"(?:params?|parameters?|tokens?|samples?|jets?|examples?|flops?|units?)"
_BRACKETED = re.compile(r"(.*?)[\s_,]*(?:[(\[]\s*(.+?)\s*[)\]]|/\s*(1e\+?\d+|10\^\d+|[KMBT]))")
_TRAILING = re.compile(r"(.*?)[\s_]+(?:in[\s_]+)?([kmb]|mio|bn|thousands?|(?:m|b|tr)illions?)", re.IGNORECASE)
_POWER_OF_TEN = re.compile(r"[x\u00d7*]?\s*(?:1e\+?|10\^|10\*\*)(\d+)")
_LOGARITHM = re.compile(r"(log_?10|log_?2|ln|log)[\s_(\[]*(.+?)[)\]]?", re.IGNORECASE)
_OF_LOSS = re.compile(r"(log_?10|log_?2|ln)[\s_(\[].*|log\s*[(\[].*", re.IGNORECASE)


@dataclass(frozen=True)
class NamedUnit:
    """What the name of a column says of its unit.

    Attributes
    ----------
    rest : the name without the unit.
    factor : of the numbers in the column.
    certain : whether the unit stands in brackets or behind a slash; a last letter may mean something else.
    logarithm : whether the column holds logarithms.
    most : values beyond which the unit cannot be meant.
    """

    rest: str
    factor: float = 1.0
    certain: bool = False
    logarithm: bool = False
    most: float = np.inf


def named_unit(name: str, symbol: str) -> NamedUnit:
    """Read the unit in the name of a column, such as Params (M), tokens_B, D [1e9], C (PFLOPs) or log10 N.

    Parameters
    ----------
    name : of the column.
    symbol : what it is read as: N, D, C, D_pre or loss; others have no unit.
    """
    if symbol == "loss":  # log_loss is the name of a loss
        return NamedUnit(name, logarithm=_OF_LOSS.fullmatch(name) is not None)
    if symbol not in MOST:
        return NamedUnit(name)
    if found := _LOGARITHM.fullmatch(name):
        return NamedUnit(name, logarithm=found[0][len(found[1])] in " _([0123456789" or found[2] == symbol)
    if found := _BRACKETED.fullmatch(name):
        factor = _factor(found[2] or found[3], symbol)
        return NamedUnit(found[1] if factor else name, factor or 1.0, certain=True, most=MOST[symbol])
    found = _TRAILING.fullmatch(name)
    if found and (len(found[1]) > 1 or not found[2].islower()):  # d_m may be a distance
        return NamedUnit(found[1], POWERS[found[2].lower()], most=0.1 * MOST[symbol])
    return NamedUnit(name)


def _factor(unit: str, symbol: str) -> float | None:
    """Factor of what stands in brackets; None where it is no unit (Params (non-embedding))."""
    text = unit.lower().replace("-", " ").strip()
    compute = {name.lower().replace("-", " "): factor for name, factor in COMPUTE_UNITS.items()}
    if symbol == "C":
        text = re.sub(r"^(pf|petaflops?|pflops?)(/s)? ?days?$", "pflop/s days", text)
        spelt = re.sub(r"flop$", "flops", text)
        if spelt in compute:
            return compute[spelt]
    plain = re.sub(rf"^in\s+|\s*(?:of\s+)?{_COUNTED}$", "", text).strip()
    power = _POWER_OF_TEN.fullmatch(plain)
    return 10.0 ** int(power[1]) if power else POWERS.get(plain)


def cost_per_sample(ratio_P: Array) -> float:
    """Median of C / (N D) over the rows where it is known.

    Parameters
    ----------
    ratio_P : (P,) C / (N D) of each row; NaN where it is not known.

    Returns
    -------
    FLOPs a parameter and sample; 6 where no row is known.
    """
    usable = ratio_P[np.isfinite(ratio_P) & (ratio_P > 0)]
    return float(np.median(usable)) if len(usable) else FLOPS_PER_PARAM_TOKEN


def mixed_unit_warnings(ratio_P: Array) -> list[str]:
    """Say so where C / (N D) spreads over more than any model's cost does.

    Parameters
    ----------
    ratio_P : (P,) C / (N D) of each row.
    """
    usable = ratio_P[np.isfinite(ratio_P) & (ratio_P > 0)]
    spread = float(usable.max() / usable.min()) if len(usable) else 1.0
    if spread <= MIXED:
        return []
    return [f"C / (N D) varies by a factor {spread:.3g}: are there two units in one column?"]


def _nearest(factor: float, units: dict[str, float]) -> str:
    """Name of the unit nearest to `factor`, in logarithm."""
    return min(units, key=lambda name: abs(np.log(units[name] / factor)))


def unit_warnings(k: float) -> list[str]:
    """What is odd about C / (N D) = k."""
    low, high = PLAUSIBLE_COST
    if low <= k <= high:
        return []
    start = f"C / (N D) is {k:.3g}, where about {FLOPS_PER_PARAM_TOKEN:g} is usual: "
    if k < low:
        name = _nearest(FLOPS_PER_PARAM_TOKEN / k, COMPUTE_UNITS)
        factor, what = COMPUTE_UNITS[name], "is C"
    else:
        name = _nearest(k / FLOPS_PER_PARAM_TOKEN, SAMPLE_UNITS)
        factor, what = SAMPLE_UNITS[name], "are N or D"
    end = "exponents stay, but N*, D* and every budget are in the units of the table"
    return [f"{start}{what} in {name}? Multiply by {factor:g}: {end}"]


def derived_unit_warnings(ratio_P: Array) -> list[str]:
    """What is odd about D / N where D was computed as C / (k N).

    Parameters
    ----------
    ratio_P : (P,) D / N of each row.
    """
    usable = ratio_P[np.isfinite(ratio_P) & (ratio_P > 0)]
    low, high = PLAUSIBLE_DATA
    middle = float(np.median(usable)) if len(usable) else 1.0
    if low <= middle <= high:
        return []
    start = f"D = C / (k N) is {middle:.3g} samples a parameter"
    if middle < low:
        name = _nearest(USUAL_DATA / middle, COMPUTE_UNITS)
        return [f"{start}: is C in {name}? Multiply it by {COMPUTE_UNITS[name]:g}, or give k or D"]
    name = _nearest(np.sqrt(middle / USUAL_DATA), SAMPLE_UNITS)  # D goes as 1 / N
    return [f"{start}: is N in {name}? Multiply it by {SAMPLE_UNITS[name]:g}, or give k or D"]
