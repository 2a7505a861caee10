"""Differences between groups with what could have been seen, and the verdict of a test in words.

Shapes: R replicates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import Quantity, Scale, summarise
from jetscale.analysis.joint.data import JointData

Array = NDArray[np.float64]
Values = dict[str, dict[str, Array]]  # by group and quantity, (R,)

LEVEL = 0.05
POWER = 0.8
SAME = 0.95  # of a difference that is seen: one that is smaller by less is not told apart
LARGEST_FACTOR = 100.0  # in ln: a scale that is less sure than this is not known at all
RATIOS = ("L_inf", "A", "B")  # compared by their ratio


@dataclass(frozen=True)
class Estimates:
    """Quantities of the larger model by the objective of the fit, for the differences that are reported.

    Attributes
    ----------
    values : of the data, (1,), by group and name. drawn : of the replicates, (R,); None without any.
    """

    values: Values
    drawn: Values | None


def contrast(name: str, one: Array, other: Array) -> Array:
    """Difference, or ratio for a scale, (R,)."""
    return one / other if name in RATIOS else one - other


def contrasts_of(
    data: JointData,
    compared: tuple[str, ...],
    estimates: Estimates,
    reference: str,
    spread: dict[str, dict[str, Array]] | None,
    wider: float,
) -> dict[str, dict[str, Any]]:
    """Differences from the reference in the larger model, each with what could have been seen.

    Parameters
    ----------
    data : the groups.
    compared : names of the quantities.
    estimates : of the larger model.
    reference : group that the others are compared with.
    spread : of the differences where there is none, by group and quantity, (R,); None: not known.
    wider : factor on it for what the law itself misses.

    Returns
    -------
    By pair and quantity: value, sd, ci95; detectable: the difference that is seen with 80% power against the
    scatter and what the law misses, and detectable_by_runs against the scatter alone.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in data.names:
        if name == reference:
            continue
        entry: dict[str, Any] = {}
        for key in compared:
            value = contrast(key, *(estimates.values[group][key] for group in (name, reference)))
            draws = None
            if estimates.drawn is not None:
                draws = contrast(key, *(estimates.drawn[group][key] for group in (name, reference)))
            scale: Scale = "log" if key in RATIOS else "linear"
            quantity = summarise(float(value[0]), draws, data.method, data.dof, scale, data.levels)
            entry[key] = quantity.to_json() | dict.fromkeys(("detectable", "detectable_by_runs"))
            if spread is not None:
                sd = _sd(key, spread[name][key])
                entry[key] |= {
                    "detectable": _detectable(key, wider * sd, data.dof),
                    "detectable_by_runs": _detectable(key, sd, data.dof),
                }
        found[f"{name} - {reference}" if compared[0] not in RATIOS else f"{name} / {reference}"] = entry
    return found


def _sd(key: str, draws: Array) -> float:
    """Standard deviation by the quartiles, of the logarithm for ratios: a few wild draws do not count."""
    values = np.log(draws) if key in RATIOS else draws
    low, high = np.percentile(values[np.isfinite(values)], [25, 75])
    return float(high - low) / 1.349


def _detectable(key: str, sd: float, dof: float) -> float | None:
    """Difference (for a ratio: relative) that a two-sided test at 5% sees with a power of 80%; None: none."""
    from scipy.special import stdtrit

    dof = min(dof, 1e9)
    least = float(stdtrit(dof, 1 - LEVEL / 2) + stdtrit(dof, POWER)) * sd
    if key not in RATIOS:
        return least
    return float(np.expm1(least)) if least < LARGEST_FACTOR else None


def largest(contrasts: dict[str, dict[str, Any]], kind: str = "detectable") -> dict[str, float]:
    """The difference of each quantity that could have been seen in every group.

    Parameters
    ----------
    contrasts : from `contrasts_of`.
    kind : detectable or detectable_by_runs.
    """
    found: dict[str, float] = {}
    for entry in contrasts.values():
        for key, quantity in entry.items():
            if quantity[kind] is not None:
                found[key] = max(found.get(key, 0.0), quantity[kind])
    return found


def beyond(contrasts: dict[str, dict[str, Any]], reference: str) -> list[str]:
    """Groups whose own difference excludes none."""
    found = []
    for pair, entry in contrasts.items():
        name = _other(pair, reference)
        for key, quantity in entry.items():
            same = 1.0 if key in RATIOS else 0.0
            if quantity["ci95"] is not None and not quantity["ci95"][0] <= same <= quantity["ci95"][1]:
                found.append(name)
                break
    return found


def worded(
    said: str, compared: tuple[str, ...], entry: dict[str, Any], groups: int, reference: str
) -> dict[str, str]:
    """Verdict and sentence of a test.

    Parameters
    ----------
    said : what is the same under the null.
    compared : names of the quantities.
    entry : of the test.
    groups : how many there are.
    reference : group that the others are compared with.
    """
    capital = f"The {said} of the {groups} subsets"
    if entry["p"] is None:
        reason = "no replicates: the scatter between runs is not known"
        return {"verdict": "not tested", "sentence": f"{capital}: not tested ({reason})."}
    key, p = compared[0], f"p = {entry['p']:.2g} ± {entry['p_sd']:.1g}"
    seen, could = entry["detectable"].get(key), ""
    if seen is not None:
        size = f"a factor {1 + seen:.3g} in {key}" if key in RATIOS else f"{seen:.2g} in {key}"
        could = f"; this design sees a difference of {size} from {reference} with 80% power"
        alone = largest(entry["contrasts"], "detectable_by_runs")[key]
        if alone < SAME * seen:
            less = f"{1 + alone:.3g}" if key in RATIOS else f"{alone:.2g}"
            could += f", and {less} if the law missed nothing"
        if key == "a" and seen >= 1:  # between 0 and 1
            could = "; this design could have seen no difference in a"
    if entry["p"] >= LEVEL:
        but = ""
        if entry["p_runs"] < LEVEL:
            p = f"p = {entry['p']:.2g}"
            but = (
                f" They differ by more than runs and test jets scatter (p = {entry['p_runs']:.2g}), but by no"
                " more than the law itself misses the losses."
            )
        return {
            "verdict": "not distinguishable",
            "sentence": f"{capital} are not distinguishable ({p}{could}).{but}",
        }
    shown = []
    for pair, quantities in entry["contrasts"].items():
        if _other(pair, reference) in entry["differs"]:
            pairs = [f"{k} {pair} {Quantity(q['value'], q['sd'], q['ci95'])}" for k, q in quantities.items()]
            shown += pairs[:1] if key == "a" else pairs
    listed = "; ".join(shown) if shown else "no single one of them stands out"
    return {"verdict": f"differs: {listed}", "sentence": f"{capital} differ ({p}): {listed}{could}."}


def _other(pair: str, reference: str) -> str:
    """The group that a pair compares with the reference."""
    return pair.removesuffix(f" - {reference}").removesuffix(f" / {reference}")
