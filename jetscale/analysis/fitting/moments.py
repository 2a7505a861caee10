"""The objective of a surface at many points, with its derivatives by the parameters of the form.

Shapes: R replicates, P points, Q parameters of the form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import SurfaceForm

Array = NDArray[np.float64]

BLOCK = 10_000  # replicates x points a time: the Jacobian of so many stays in a processor's cache


def moments(
    form: SurfaceForm,
    theta_RQ: Array,
    x_P: Array,
    y_P: Array,
    log_L_RP: Array,
    weight_RP: Array,
    objective: Objective,
    *,
    curved: bool = True,
) -> tuple[Array, ...]:
    """Objective and its derivatives; infinite, with derivatives of 0, where a term overflows.

    Replicates are taken in blocks: 1,000 of 106 points at once take 2.4 times as long.

    Parameters
    ----------
    form : of the surface.
    theta_RQ : (R, Q) its parameters.
    x_P, y_P : (P,) or (R, P) ln N and ln D.
    log_L_RP, weight_RP : (R, P) or (1, P) observed ln L and weights.
    objective : what is minimised.
    curved : whether the second derivatives are wanted, which cost as much as all the rest.

    Returns
    -------
    Objective (R,); in Huber's units J' W r (R, Q), J' W J and, where wanted, the second derivatives
    (R, Q, Q).
    """
    R, P = len(theta_RQ), x_P.shape[-1]
    rows = max(1, BLOCK // max(P, 1))
    if rows >= R:
        return _block(form, theta_RQ, x_P, y_P, log_L_RP, weight_RP, objective, curved)
    parts = []
    for begin in range(0, R, rows):
        block = slice(begin, begin + rows)
        x, y = (axis[block] if axis.ndim > 1 else axis for axis in (x_P, y_P))
        log_L, weight = (value[block] if len(value) > 1 else value for value in (log_L_RP, weight_RP))
        parts.append(_block(form, theta_RQ[block], x, y, log_L, weight, objective, curved))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _block(
    form: SurfaceForm,
    theta_RQ: Array,
    x_P: Array,
    y_P: Array,
    log_L_RP: Array,
    weight_RP: Array,
    objective: Objective,
    curved: bool,
) -> tuple[Array, ...]:
    with np.errstate(all="ignore"):  # far from the data terms overflow: such a step is not taken
        fitted_RP, J_RQP, bend = form.derivatives(theta_RQ, x_P, y_P)
        residual_RP, raw = fitted_RP - log_L_RP, objective.residual == "raw"
        if raw:
            fitted_RP = np.exp(fitted_RP)
            residual_RP, J_RQP = fitted_RP - np.exp(log_L_RP), J_RQP * fitted_RP[:, None]
        value = objective.value(residual_RP, weight_RP)
        beyond_RP = np.abs(residual_RP) / objective.corner
        weight_RP = weight_RP / np.maximum(1.0, beyond_RP)
        psi_RP = weight_RP * residual_RP
        gradient = (J_RQP @ psi_RP[:, :, None])[:, :, 0]
        transposed = J_RQP.transpose(0, 2, 1)
        bound = (J_RQP * weight_RP[:, None]) @ transposed
        found = [value, gradient, bound]
        if curved:
            inside_RP = weight_RP * (beyond_RP <= 1.0)
            # second derivatives of ln L are those of L over L, less J J'
            curvature = (J_RQP * (inside_RP if raw else inside_RP - psi_RP)[:, None]) @ transposed
            curvature += bend(psi_RP * fitted_RP if raw else psi_RP)
            found.append(curvature)
    overflown = ~np.isfinite(value)
    if overflown.any():
        value[overflown] = np.inf
        for derivative in found[1:]:
            derivative[overflown] = 0.0
    return tuple(found)
