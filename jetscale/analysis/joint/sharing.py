"""The joint fit of E + A / N^alpha + B / D^beta: which parameters all groups share, and which each has.

Shapes: R replicates, P points of a group, F parameters of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.constraints import Bounds
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import FLOOR_BOUND, form_named
from jetscale.analysis.joint.model import Group, JointCertificate, JointFit, JointModel, Losses
from jetscale.analysis.joint.projection import projected
from jetscale.common.usage import UsageError

Array = NDArray[np.float64]

COLUMNS = {"L_inf": "log_E", "A": "log_A", "B": "log_B", "alpha": "alpha", "beta": "beta"}
STARTS = 12


@dataclass(frozen=True)
class Points:
    """What is fitted of one group.

    Attributes
    ----------
    log_N, log_D, log_L : (P,).
    weight : (P,) how much each point counts; None: all alike.
    """

    log_N: Array
    log_D: Array
    log_L: Array
    weight: Array | None = None

    @property
    def weights(self) -> Array:
        """Weights of the points, (P,)."""
        return np.ones(len(self.log_L)) if self.weight is None else self.weight

    def of(self, chosen: NDArray[np.bool_]) -> Points:
        """Some of the points; `chosen`: (P,)."""
        weight = None if self.weight is None else self.weight[chosen]
        return Points(self.log_N[chosen], self.log_D[chosen], self.log_L[chosen], weight)


def checked_names(shared: Iterable[str]) -> frozenset[str]:
    """Names of parameters to share.

    Raises
    ------
    UsageError
        One that the form does not have.
    """
    names = list(shared)
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise UsageError(
            f"joint.shared={names}: {unknown[0]!r} is no parameter of L_inf + A / N^alpha + B / D^beta;"
            f" choose among {', '.join(COLUMNS)}"
        )
    return frozenset(names)


@dataclass(frozen=True)
class SharedModel:
    """A joint model that shares some parameters of the additive form.

    Attributes
    ----------
    model : the parameters and the groups.
    shared : names (L_inf, A, B, alpha, beta) of what all groups share.
    """

    model: JointModel
    shared: frozenset[str]

    @classmethod
    def of(cls, points: Mapping[str, Points], shared: Iterable[str], objective: Objective) -> SharedModel:
        """Model of these groups.

        Parameters
        ----------
        points : by group.
        shared : names of the parameters that all groups have in common.
        objective : what is minimised.
        """
        together, form = checked_names(shared), form_named("separate")
        centre = joint_centre(points)
        names = [name for name in COLUMNS if name in together]
        names += [f"{group}.{name}" for group in points for name in COLUMNS if name not in together]
        groups = []
        for group, p in points.items():
            where = {name: names.index(name if name in together else f"{group}.{name}") for name in COLUMNS}
            matrix = np.zeros((5, len(names)))
            for name, parameter in COLUMNS.items():
                matrix[form.column(parameter), where[name]] = 1.0
            # ln A at the centre is ln A - alpha mean(ln N): who shares A, but not alpha, shares ln A itself
            for scale, exponent, middle in (("A", "alpha", centre[0]), ("B", "beta", centre[1])):
                if scale in together and exponent not in together:
                    matrix[form.column(COLUMNS[scale]), where[exponent]] = -middle
            groups.append(Group(group, form, p.log_N - centre[0], p.log_D - centre[1], matrix, np.zeros(5)))
        bounds = _bounds(names, points)
        return cls(JointModel(tuple(names), tuple(groups), objective, bounds, centre), together)

    @property
    def exponents(self) -> frozenset[str]:
        """Which exponents are shared."""
        return self.shared & {"alpha", "beta"}

    def point(self, points: Mapping[str, Points], starts: int = STARTS) -> tuple[JointFit, JointCertificate]:
        """Fit the data, from several starts far apart.

        Parameters
        ----------
        points : by group.
        starts : nodes of the grid.
        """
        log_L, weight = losses_of(points)
        found = projected(self.model, log_L, weight, self.exponents, starts)[:, 0]
        return self.model.point(found, log_L, weight)

    def replicates(self, log_L: Losses, weight: Losses) -> JointFit:
        """Fit every replicate from its own best node of the whole grid.

        Parameters
        ----------
        log_L, weight : by group, (R, P) or (1, P).
        """
        starts = projected(self.model, log_L, weight, self.exponents)
        return self.model.best(starts, log_L, weight)

    def values(self, phi_RF: Array) -> dict[str, dict[str, Array]]:
        """L_inf, A, B, alpha and beta of every group, (R,) each."""
        return {
            name: surfaces.form.values(surfaces.theta)
            for name, surfaces in self.model.surfaces(phi_RF).items()
        }


def losses_of(points: Mapping[str, Points]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Ln L and weights of the data themselves, (1, P) by group."""
    return (
        {name: p.log_L[None] for name, p in points.items()},
        {name: p.weights[None] for name, p in points.items()},
    )


def joint_centre(points: Mapping[str, Points]) -> tuple[float, float]:
    """Mean ln N and ln D over the points of all groups."""
    return (
        float(np.concatenate([p.log_N for p in points.values()]).mean()),
        float(np.concatenate([p.log_D for p in points.values()]).mean()),
    )


def _bounds(names: list[str], points: Mapping[str, Points]) -> Bounds:
    form = form_named("separate")
    low, high = np.array([form.limit(COLUMNS[name.rpartition(".")[2]]) for name in names]).T
    for at, name in enumerate(names):
        group, _, parameter = name.rpartition(".")
        if parameter == "L_inf":
            of = [points[group]] if group else list(points.values())
            low[at] = np.log(FLOOR_BOUND) + min(float(p.log_L.min()) for p in of)
    return Bounds(low, high)
