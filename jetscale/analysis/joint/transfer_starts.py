"""Starting points of laws of transfer: what each pretrained group alone would have, given scratch's law.

Shapes: R replicates, P points of a group, Q parameters of a form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.starts import projected_starts
from jetscale.analysis.joint.model import Group, Losses
from jetscale.analysis.joint.transfer_forms import WithExtraData

Array = NDArray[np.float64]


def pooled_nodes(groups: tuple[Group, ...], log_L: Losses, weight: Losses, count: int) -> Array:
    """The best nodes of the additive form for these groups pooled, (count, R, 5), centred."""
    R = max(len(losses[group.name]) for group in groups for losses in (log_L, weight))
    x_P, y_P = (np.concatenate([getattr(group, axis) for group in groups]) for axis in ("x_P", "y_P"))
    pooled, weights = (
        np.concatenate([np.broadcast_to(of[group.name], (R, len(group.x_P))) for group in groups], axis=1)
        for of in (log_L, weight)
    )
    return np.moveaxis(projected_starts(x_P, y_P, pooled, weights, count), 1, 0)


def alone(group: Group, common_R5: Array, common: int, log_L_RP: Array, weight_RP: Array) -> Array:
    """Parameters (R, Q) of one group, given those that it shares with scratch."""
    if isinstance(group.form, WithExtraData):
        return _scanned(group, common_R5, log_L_RP, weight_RP)
    # ln of what is left of L without the floor and the term of N is linear in ln N and ln D
    log_A, _, log_E, alpha, _ = common_R5.T[:, :, None]
    L_RP = np.exp(log_L_RP)
    left = L_RP - np.exp(log_E) - np.exp(log_A - alpha * group.x_P)
    design = np.stack([np.ones_like(group.x_P), -group.x_P, -group.y_P], axis=1)
    inverse = np.linalg.pinv(design)
    found = np.log(np.maximum(left, 0.02 * L_RP)) @ inverse.T
    free_q = bool((group.matrix[group.form.column("q")] != 0).any())
    q = found[:, 1] if free_q else 0.0 * found[:, 1]
    shared_beta = not (group.matrix[group.form.column("beta"), common:] != 0).any()
    of_D = common_R5[:, 4] if shared_beta else np.maximum(found[:, 2], 0.02)
    return np.column_stack([common_R5[:, 0], found[:, 0], common_R5[:, 2:4], of_D, q])


def _scanned(group: Group, common_R5: Array, log_L_RP: Array, weight_RP: Array) -> Array:
    """The best of a grid of D_T = T N^q."""
    R = len(common_R5)
    best, value = np.zeros((R, 2)), np.full(R, np.inf)
    powers = (0.0, -0.5, 0.5, 1.0) if (group.matrix[group.form.column("q")] != 0).any() else (0.0,)
    size_P = weight_RP / weight_RP.sum(axis=1, keepdims=True)
    for log_T in np.linspace(group.y_P.min() - 3.0, group.y_P.max() + 3.0, 14):
        for q in powers:
            theta = np.column_stack([common_R5, np.full(R, log_T), np.full(R, q)])
            off = np.abs(group.form.log_loss(theta, group.x_P, group.y_P) - log_L_RP)
            tried = (off * size_P).sum(axis=1)
            lower = tried < value
            best[lower], value[lower] = (log_T, q), tried[lower]
    return np.column_stack([common_R5, best])
