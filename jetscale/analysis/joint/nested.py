"""Tests of nested joint models: is what the smaller one shares the same in all groups.

Points of a curve are correlated, so no F or chi-square table applies. The smaller model (the null) is fitted
to the data; data are made from that fit and the scatter of runs and test jets, the same draws in all groups;
both models are fitted to each, and p is the share of these data, and the real ones, in which the larger model
gains as much as it does on the real data (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
chapter 4). A form that misses the data by more than runs scatter lets the larger model gain by fitting what
is missed. So a difference that the runs show is tested again with the residuals about the null themselves,
whole curves with random signs (wild bootstrap; Cameron, Gelbach and Miller 2008), and must stand there too.

Shapes: R replicates, P points of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import Quantity, summarise
from jetscale.analysis.joint.data import JointData
from jetscale.analysis.joint.model import JointFit
from jetscale.analysis.joint.projection import projected
from jetscale.analysis.joint.sharing import SharedModel

Array = NDArray[np.float64]
Values = dict[str, dict[str, Array]]  # by group and quantity, (R,)

LEVEL = 0.05
POWER = 0.8
EXPONENTS = frozenset({"alpha", "beta"})


@dataclass(frozen=True)
class Nested:
    """A test: what is shared under the null, and what still is under the alternative.

    Attributes
    ----------
    null, alternative : shared parameters; those of the alternative are among those of the null.
    said : what the null says of the groups, as the end of "... of the 5 subsets".
    compared : quantities whose differences (of scales: ratios) from the reference are given.
    """

    null: frozenset[str]
    alternative: frozenset[str]
    said: str
    compared: tuple[str, ...]


_GIVEN = " (given common exponents)"
TESTS = {
    "same_exponents": Nested(EXPONENTS, frozenset(), "exponents alpha and beta", ("a", "alpha", "beta")),
    "offset_only": Nested(EXPONENTS | {"A", "B"}, EXPONENTS, f"scales A and B{_GIVEN}", ("A", "B")),
    "same_A": Nested(EXPONENTS | {"A"}, EXPONENTS, f"scales A{_GIVEN}", ("A",)),
    "same_B": Nested(EXPONENTS | {"B"}, EXPONENTS, f"scales B{_GIVEN}", ("B",)),
    "same_L_inf": Nested(EXPONENTS | {"L_inf"}, EXPONENTS, f"floors L_inf{_GIVEN}", ("L_inf",)),
}  # fmt: skip
RATIOS = ("L_inf", "A", "B")  # compared by their ratio


@dataclass(frozen=True)
class Fitted:
    """A joint model with its fit of the data and of the replicates.

    Attributes
    ----------
    model, fit : of the data.
    values : by group, L_inf, A, B, alpha, beta, a and b of the data, (1,).
    drawn : the same of the replicates, (R,); None where there are none.
    """

    model: SharedModel
    fit: JointFit
    values: Values
    drawn: Values | None


def fitted_model(data: JointData, shared: frozenset[str], *, draws: bool) -> Fitted:
    """Fit a joint model to the data, and to the replicates where asked.

    Parameters
    ----------
    data : the groups.
    shared : names of the parameters in common.
    draws : whether replicates are fitted too.
    """
    model = SharedModel.of(data.points, shared, data.objective)
    fit, _ = model.point(data.points)
    drawn = None
    if draws and data.has_replicates:
        drawn = values_of(data, model, model.replicates(*data.drawn(), warm_F=fit.phi[0]).phi)
    return Fitted(model, fit, values_of(data, model, fit.phi), drawn)


def values_of(data: JointData, model: SharedModel, phi_RF: Array) -> Values:
    """L_inf, A, B, alpha, beta, and the exponents a and b for the cost of every group, (R,) by group."""
    found = {}
    for name, surfaces in model.model.surfaces(phi_RF).items():
        a, b = data.tasks[name].exponents(surfaces)
        found[name] = surfaces.form.values(surfaces.theta) | {"a": a, "b": b}
    return found


def contrast(name: str, one: Array, other: Array) -> Array:
    """Difference, or ratio for a scale, (R,)."""
    return one / other if name in RATIOS else one - other


def run_test(
    data: JointData, test: Nested, null: Fitted, alternative: Fitted, reference: str
) -> dict[str, Any]:
    """One test, as in results.json.

    Parameters
    ----------
    data : the groups.
    test : what is compared.
    null, alternative : fits of both models.
    reference : group that the others are compared with.
    """
    gained = max(float(null.fit.objective[0] - alternative.fit.objective[0]), 0.0)
    fitted = null.model.model.fitted(null.fit.phi)
    p_runs, p_misfit, spreads = None, None, []
    noise = data.noise()
    if noise is not None:
        p_runs, spread = _bootstrap(data, fitted, noise, test, null, alternative, gained, reference)
        spreads.append(spread)
    if data.method != "none" and (p_runs is None or p_runs < LEVEL):
        noise = data.flipped(fitted, len(null.model.model.names))
        p_misfit, spread = _bootstrap(data, fitted, noise, test, null, alternative, gained, reference)
        spreads.append(spread)
    found = [p for p in (p_runs, p_misfit) if p is not None]
    p = max(found, default=None)
    contrasts = _contrasts(data, test, alternative, reference, spreads)
    differs = [] if p is None or p >= LEVEL else _beyond(contrasts, reference)
    entry = {
        "question": f"are the {test.said} the same in all {len(data.names)} subsets?",
        "null": sorted(test.null),
        "alternative": sorted(test.alternative),
        "p": p,
        "p_sd": None if p is None else float(np.sqrt(p * (1 - p) / data.rows)),
        "p_runs": p_runs,
        "p_misfit": p_misfit,
        "statistic": gained,
        "replicates": data.rows,
        "contrasts": contrasts,
        "detectable": _smallest(contrasts),
        "differs": differs,
    }
    return entry | _worded(test, entry, len(data.names), reference)


def _bootstrap(
    data: JointData,
    fitted: Mapping[str, Array],
    noise: Mapping[str, Array],
    test: Nested,
    null: Fitted,
    alternative: Fitted,
    gained: float,
    reference: str,
) -> tuple[float, dict[str, dict[str, Array]]]:
    """P-value of the gain, and the contrasts of the larger model where the null is true, by group, (R,)."""
    log_L = {name: fitted[name] + noise[name] for name in data.names}
    ones = data.ones()
    small = null.model.replicates(log_L, ones, null.fit.phi[0])
    # the larger model also starts where the smaller one ended: it can never come out worse
    within = _embedded(null.model, alternative.model, small.phi)
    starts = projected(alternative.model.model, log_L, ones, alternative.model.exponents)
    large = alternative.model.model.best(np.concatenate([starts, within[None]]), log_L, ones)
    gains = small.objective - large.objective
    p = float((1 + (gains >= gained).sum()) / (1 + len(gains)))
    values = values_of(data, alternative.model, large.phi)
    return p, {
        name: {key: contrast(key, values[name][key], values[reference][key]) for key in test.compared}
        for name in data.names
        if name != reference
    }


def _embedded(small: SharedModel, large: SharedModel, phi_RF: Array) -> Array:
    """Parameters of the larger model with the same surfaces, (R, F)."""
    theta = np.concatenate([group.theta(phi_RF) for group in small.model.groups], axis=1)
    inverse = np.linalg.pinv(np.concatenate([group.matrix for group in large.model.groups]))
    return np.asarray(theta @ inverse.T)


def _contrasts(
    data: JointData,
    test: Nested,
    alternative: Fitted,
    reference: str,
    spreads: list[dict[str, dict[str, Array]]],
) -> dict[str, dict[str, Any]]:
    """Differences from the reference in the larger model, each with what could have been seen."""
    found: dict[str, dict[str, Any]] = {}
    for name in data.names:
        if name == reference:
            continue
        entry: dict[str, Any] = {}
        for key in test.compared:
            value = contrast(key, *(alternative.values[group][key] for group in (name, reference)))
            draws = None
            if alternative.drawn is not None:
                draws = contrast(key, *(alternative.drawn[group][key] for group in (name, reference)))
            scale = "log" if key in RATIOS else "linear"
            quantity = summarise(float(value[0]), draws, data.method, data.dof, scale)  # type: ignore[arg-type]
            sd = max((_sd(key, spread[name][key]) for spread in spreads), default=None)
            entry[key] = quantity.to_json() | {
                "detectable": None if sd is None else _detectable(key, sd, data.dof)
            }
        found[f"{name} - {reference}" if test.compared[0] not in RATIOS else f"{name} / {reference}"] = entry
    return found


def _sd(key: str, draws: Array) -> float:
    """Standard deviation by the quartiles, of the logarithm for ratios: a few wild draws do not count."""
    values = np.log(draws) if key in RATIOS else draws
    low, high = np.percentile(values[np.isfinite(values)], [25, 75])
    return float(high - low) / 1.349


def _detectable(key: str, sd: float, dof: float) -> float:
    """Difference (for a ratio: relative) that a two-sided test at 5% sees with a power of 80%."""
    from scipy.stats import t

    dof = min(dof, 1e9)
    least = float(t.ppf(1 - LEVEL / 2, dof) + t.ppf(POWER, dof)) * sd
    return float(np.expm1(least)) if key in RATIOS else least


def _smallest(contrasts: dict[str, dict[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in contrasts.values():
        for key, quantity in entry.items():
            if quantity["detectable"] is not None:
                found[key] = min(found.get(key, np.inf), quantity["detectable"])
    return found


def _beyond(contrasts: dict[str, dict[str, Any]], reference: str) -> list[str]:
    """Groups whose own difference excludes none."""
    found = []
    for pair, entry in contrasts.items():
        name = pair.removesuffix(f" - {reference}").removesuffix(f" / {reference}")
        for key, quantity in entry.items():
            same = 1.0 if key in RATIOS else 0.0
            if quantity["ci95"] is not None and not quantity["ci95"][0] <= same <= quantity["ci95"][1]:
                found.append(name)
                break
    return found


def _worded(test: Nested, entry: dict[str, Any], groups: int, reference: str) -> dict[str, str]:
    """Verdict and sentence."""
    capital = f"The {test.said} of the {groups} subsets"
    if entry["p"] is None:
        reason = "one run of each size, or no replicates: the scatter between runs is not known"
        return {
            "verdict": "not tested",
            "sentence": f"{capital}: not tested ({reason}).",
        }
    p = f"p = {entry['p']:.2g} ± {entry['p_sd']:.1g}"
    key = test.compared[0]
    seen = entry["detectable"].get(key)
    could = ""
    if seen is not None:
        size = f"a factor {1 + seen:.3g} in {key}" if key in RATIOS else f"{seen:.2g} in {key}"
        could = f"; this design sees a difference of {size} from {reference} with 80% power"
    if entry["p"] >= LEVEL:
        but = ""
        if entry["p_runs"] is not None and entry["p_runs"] < LEVEL:
            but = (
                f" They differ by more than runs and test jets scatter (p = {entry['p_runs']:.2g}),"
                " but by no more than the law itself misses the losses."
            )
        return {
            "verdict": "not distinguishable",
            "sentence": f"{capital} are not distinguishable ({p}{could}).{but}",
        }
    shown = []
    for pair, quantities in entry["contrasts"].items():
        name = pair.removesuffix(f" - {reference}").removesuffix(f" / {reference}")
        if name in entry["differs"]:
            shown += [
                f"{key} {pair} {Quantity(q['value'], q['sd'], q['ci95'])}" for key, q in quantities.items()
            ][: 1 if key == "a" else None]
    listed = "; ".join(shown) if shown else "no single one of them stands out"
    return {
        "verdict": f"differs: {listed}",
        "sentence": f"{capital} differ ({p}): {listed}{could}.",
    }
