"""Tests of nested joint models: is what the smaller one shares the same in all groups.

Points of a curve are correlated, so no F or chi-square table applies. The smaller model (the null) is fitted
to the data; data are made from that fit and the scatter of runs and test jets, the same draws in all groups;
both models are fitted to each, and p is the share of these data, and the real ones, in which the larger model
gains as much as it does on the real data (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
chapter 4). With one seed, residuals about the null with random signs, one a curve, are the scatter (wild
bootstrap; Cameron, Gelbach and Miller 2008). Where the losses bend as the form cannot, the gain must also be
larger than that of other smooth terms (`bends`): the larger p decides.

Shapes: R replicates, P points of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.approach import part
from jetscale.analysis.fitting.approach3 import NAME
from jetscale.analysis.joint.bends import bends_left
from jetscale.analysis.joint.data import JointData
from jetscale.analysis.joint.model import JointFit
from jetscale.analysis.joint.sharing import SharedModel
from jetscale.analysis.joint.verdicts import (
    LEVEL,
    Estimates,
    Values,
    beyond,
    contrast,
    contrasts_of,
    largest,
    worded,
)

Array = NDArray[np.float64]

TEST_STARTS = 4  # far from delta the objective has hardly a second minimum
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


@dataclass(frozen=True)
class Fitted:
    """A joint model with its fit of the data.

    Attributes
    ----------
    model, fit : of the data.
    """

    model: SharedModel
    fit: JointFit

    @classmethod
    def of(cls, data: JointData, shared: frozenset[str]) -> Fitted:
        """Fit the data as the tests do.

        Parameters
        ----------
        data : the groups.
        shared : names of the parameters in common.
        """
        model = SharedModel.of(data.points, shared, data.test_objective)
        return cls(model, model.point(data.points, TEST_STARTS)[0])


def separate_estimates(data: JointData) -> Estimates:
    """Those of every group fitted alone, which are there already."""
    values, drawn = {}, {}
    for name, task in data.tasks.items():
        assert task.surface is not None
        a, b = task.exponents(task.surface)
        values[name] = task.surface.form.values(task.surface.theta) | {"a": a, "b": b}
        own = part(NAME, data.draws[name])
        drawn[name] = {key: own[key][: data.rows] for key in values[name] if key in own}
    complete = all(len(one) == len(values[name]) for name, one in drawn.items())
    return Estimates(values, drawn if complete and data.has_replicates else None)


def values_of(data: JointData, model: SharedModel, phi_RF: Array) -> Values:
    """L_inf, A, B, alpha, beta, and the exponents a and b for the cost of every group, (R,) by group."""
    found = {}
    for name, surfaces in model.model.surfaces(phi_RF).items():
        a, b = data.tasks[name].exponents(surfaces)
        found[name] = surfaces.form.values(surfaces.theta) | {"a": a, "b": b}
    return found


@dataclass(frozen=True)
class Bootstrap:
    """What data look like of which the smaller model is true.

    Attributes
    ----------
    p : share of them in which the larger model gains as much as on the real data.
    gains : (R,) of the larger model.
    spread : differences from the reference in the larger model, by group and quantity, (R,).
    """

    p: float
    gains: Array
    spread: dict[str, dict[str, Array]]


def run_test(
    data: JointData,
    test: Nested,
    null: Fitted,
    alternative: Fitted,
    estimates: Estimates,
    reference: str,
    misfits: list[str],
) -> dict[str, Any]:
    """One test, as in results.json.

    Parameters
    ----------
    data : the groups.
    test : what is compared.
    null, alternative : fits of both models.
    estimates : of the larger model, by the objective of the fit.
    reference : group that the others are compared with.
    misfits : groups whose losses bend as the form cannot.
    """
    gained = max(float(null.fit.objective[0] - alternative.fit.objective[0]), 0.0)
    found: Bootstrap | None = None
    if data.method != "none":
        fitted = null.model.model.fitted(null.fit.phi)
        noise = data.noise() or data.flipped(fitted, len(null.model.model.names))
        found = _bootstrap(data, fitted, noise, test, null, alternative, gained, reference)
    parameters = len(alternative.model.model.names) - len(null.model.model.names)
    bends = bends_left(data, alternative.model.model, alternative.fit.phi[0]) if misfits else None
    to_squares = 2 / data.test_objective.scale
    p_misfit = None if bends is None else bends.p_value(to_squares * gained, parameters)
    p_runs = None if found is None else found.p
    p = None if p_runs is None else max(p_runs, p_misfit or 0.0)
    # a difference is seen against the larger of the two scatters
    wider = 1.0
    if found is not None and bends is not None:
        of_runs = to_squares * float(np.median(found.gains)) / parameters
        wider = max(1.0, float(np.sqrt(bends.square / max(of_runs, 1e-300))))
    contrasts = contrasts_of(
        data, test.compared, estimates, reference, found.spread if found else None, wider
    )
    entry = {
        "question": f"are the {test.said} the same in all {len(data.names)} subsets?",
        "null": sorted(test.null),
        "alternative": sorted(test.alternative),
        "p": p,
        "p_sd": None if p_runs is None else float(np.sqrt(p_runs * (1 - p_runs) / data.rows)),
        "p_runs": p_runs,
        "p_misfit": p_misfit,
        "misfits": misfits,
        "statistic": gained,
        "replicates": data.rows,
        "contrasts": contrasts,
        "detectable": largest(contrasts),
        "detectable_by_runs": largest(contrasts, "detectable_by_runs"),
        "differs": [] if p is None or p >= LEVEL else beyond(contrasts, reference),
    }
    return entry | worded(test.said, test.compared, entry, len(data.names), reference)


def _bootstrap(
    data: JointData,
    fitted: Mapping[str, Array],
    noise: Mapping[str, Array],
    test: Nested,
    null: Fitted,
    alternative: Fitted,
    gained: float,
    reference: str,
) -> Bootstrap:
    """Fit both models to data made from the smaller one."""
    log_L = {name: fitted[name] + noise[name] for name in data.names}
    weight = data.weights()
    small, large = null.model.replicates(log_L, weight), alternative.model.replicates(log_L, weight)
    stuck = np.flatnonzero(large.objective > small.objective)
    if len(stuck):  # the larger model can end where the smaller one did: it never comes out worse
        start = _embedded(null.model, alternative.model, small.phi[stuck])[None]
        again = alternative.model.model.best(
            start,
            {name: value[stuck] for name, value in log_L.items()},
            weight,
        )
        large.phi[stuck], large.objective[stuck] = again.phi, again.objective
    gains = small.objective - large.objective
    values = values_of(data, alternative.model, large.phi)
    spread = {
        name: {key: contrast(key, values[name][key], values[reference][key]) for key in test.compared}
        for name in data.names
        if name != reference
    }
    return Bootstrap(float((1 + (gains >= gained).sum()) / (1 + len(gains))), gains, spread)


def _embedded(small: SharedModel, large: SharedModel, phi_RF: Array) -> Array:
    """Parameters of the larger model with the same surfaces, (R, F)."""
    theta = np.concatenate([group.theta(phi_RF) for group in small.model.groups], axis=1)
    inverse = np.linalg.pinv(np.concatenate([group.matrix for group in large.model.groups]))
    return np.asarray(theta @ inverse.T)
