"""What the law itself misses: bends in ln N and ln D that no parameters of a joint model can make.

A difference between groups that is real in the losses may still be no difference of exponents, where the form
does not fit: free exponents then follow bends. So a gain of free parameters is also compared with what other
smooth terms of the same number would gain, (ln N)^2, ln N ln D and (ln D)^2 in every group.

Shapes: P points of a group, Q parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.checks.lack_of_fit import SIGNIFICANT, bend_test
from jetscale.analysis.fitting.approach3 import surfaces_of
from jetscale.analysis.joint.data import JointData
from jetscale.analysis.joint.model import JointModel

Array = NDArray[np.float64]

INDEPENDENT = 1e-3  # of the longest: a shorter direction is one that the parameters make already


@dataclass(frozen=True)
class Bends:
    """Squared residuals that smooth terms besides the law would take away.

    Attributes
    ----------
    square : mean over the terms. terms : how many there are, in all groups together.
    """

    square: float
    terms: int

    def p_value(self, gain: float, parameters: int) -> float:
        """Chance that so many of such terms take away this much (F).

        Parameters
        ----------
        gain : squared residuals taken away. parameters : that did it.
        """
        from scipy.special import fdtrc

        return float(fdtrc(parameters, self.terms, gain / parameters / max(self.square, 1e-300)))


def bends_left(data: JointData, model: JointModel, phi_F: Array) -> Bends | None:
    """Bends that a joint model leaves; None where there are too few points to see one.

    Parameters
    ----------
    data : the groups.
    model, phi_F : a joint model and its fit of the data.
    """
    total, terms = 0.0, 0
    for group in model.groups:
        log_L = data.tasks[group.name].log_L_P
        fitted, J_RQP, _ = group.form.derivatives(group.theta(phi_F[None]), group.x_P, group.y_P)
        residual, J_QP = fitted[0] - log_L, J_RQP[0]
        if model.objective.residual == "raw":
            residual, J_QP = np.exp(fitted[0]) - np.exp(log_L), J_QP * np.exp(fitted[0])
        # without outliers, which are no bends
        root = np.sqrt(data.tasks[group.name].fitter.weights) * data.tasks[group.name].regular
        residual, J_QP = residual * root, J_QP * root
        basis, _ = np.linalg.qr(J_QP.T)
        x, y = (axis / max(float(axis.std()), 1e-12) for axis in (group.x_P, group.y_P))
        bends = np.stack([x**2, x * y, y**2], axis=1) * root[:, None]
        bends = bends - basis @ (basis.T @ bends)
        directions, length, _ = np.linalg.svd(bends, full_matrices=False)
        directions = directions[:, length > INDEPENDENT * max(float(length[0]), 1e-300)]
        if len(log_L) > len(J_QP) + directions.shape[1]:
            total += float(((directions.T @ residual) ** 2).sum())
            terms += directions.shape[1]
    return Bends(total / terms, terms) if terms else None


def lacks_of_fit(data: JointData) -> dict[str, dict[str, Any] | None]:
    """The test for bends of every group fitted alone; None where it cannot be made."""
    found: dict[str, dict[str, Any] | None] = {}
    for name, task in data.tasks.items():
        assert task.surface is not None
        c, regular, surface = task.curves, task.regular, task.surface
        x, y = c.log_N[regular], c.log_D[regular]
        of_replicates, dof, one = None, np.inf, data.replicates[name]
        if c.is_curve:
            drawn = surfaces_of(data.draws[name], surface.form) if data.draws.get(name) else None
            if one is None or drawn is None:
                found[name] = None
                continue
            of_replicates, dof = one.log_L_RP[:, regular] - drawn.log_loss(x, y), one.dof
        residual = task.log_L_P[regular] - surface.log_loss(x, y)[0]
        weight = None if c.weight is None else c.weight[regular]
        found[name] = bend_test(surface, x, y, residual, of_replicates, dof, weight)
    return found


def misses(lacks: dict[str, dict[str, Any] | None]) -> list[str]:
    """Groups whose losses bend by more than their scatter explains."""
    return [name for name, test in lacks.items() if test is not None and test["p_value"] < SIGNIFICANT]
