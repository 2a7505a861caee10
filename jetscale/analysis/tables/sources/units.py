"""Units of C, N and D that cannot be what a table says they are, with the factor that would explain them."""

from __future__ import annotations

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
