"""Does L = E + A/N^alpha + B/D^beta describe the data? A test of what it leaves behind, outliers apart.

The residuals are regressed on the fit's own five directions and on three bends, (ln N)^2, ln N ln D and
(ln D)^2: a surface of another form leaves bends, noise does not. Final losses are independent: F test. Points
of one curve are not: Wald test with the covariance of the bends over replicates, in Hotelling's form.

Shapes: R replicates, P points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.surface import Surfaces

Array = NDArray[np.float64]

BENDS = 3
SIGNIFICANT = 0.01
DEPENDENT = 1e-10  # of the longest: a shorter direction is rounding
ROUNDING = 1e-7  # of ln L: smaller bends are no lack of fit


def _bends(log_N: Array, log_D: Array, of_N: Array, of_D: Array) -> Array:
    """(P, 3) at the points (log_N, log_D), in units of the spread of (of_N, of_D)."""
    pairs = ((log_N, of_N), (log_D, of_D))
    x, y = ((value - of.mean()) / max(float(of.std()), 1e-12) for value, of in pairs)
    return np.stack([x**2, x * y, y**2], axis=1)


def _spanned(directions_PQ: Array) -> Array:
    """Orthonormal columns that span these, (P, rank): with alpha held, A and L_inf are one direction less."""
    length_Q = np.linalg.norm(directions_PQ, axis=0)
    basis, singular, _ = np.linalg.svd(directions_PQ / np.maximum(length_Q, 1e-300), full_matrices=False)
    return np.asarray(basis[:, singular > DEPENDENT * singular[0]])


def bend_surface(
    surface: Surfaces, log_N: Array, log_D: Array, residual_P: Array
) -> Callable[[Array, Array], Array] | None:
    """Return the correction of ln L that the residuals' bends make; None where they are not known.

    Beyond the points the bends stay as at the nearest one.

    Parameters
    ----------
    surface : the fitted one.
    log_N, log_D : (P,) the points.
    residual_P : (P,) observed minus fitted ln L.

    Returns
    -------
    Function of ln N and ln D (T,) to the correction (T,).
    """
    directions, bends = surface.directions(log_N, log_D), _bends(log_N, log_D, log_N, log_D)
    design = np.hstack([directions, bends])
    if len(residual_P) < design.shape[1] + 2:
        return None
    coefficients, _, rank, _ = np.linalg.lstsq(design, residual_P, rcond=1e-10)
    if rank < design.shape[1]:
        return None

    Q = directions.shape[1]

    def correction(x: Array, y: Array) -> Array:
        x, y = np.clip(x, log_N.min(), log_N.max()), np.clip(y, log_D.min(), log_D.max())
        along = surface.directions(x, y, log_N, log_D) @ coefficients[:Q]
        return np.asarray(along + _bends(x, y, log_N, log_D) @ coefficients[Q:])

    return correction


def bend_test(
    surface: Surfaces,
    log_N: Array,
    log_D: Array,
    residual_P: Array,
    replicate_residual_RP: Array | None,
    dof: float,
    weight_P: Array | None = None,
) -> dict[str, Any] | None:
    """Test the residuals for bends.

    Parameters
    ----------
    surface : the fitted one.
    residual_P : observed minus fitted ln L.
    replicate_residual_RP : those of the replicates, for correlated points; None for independent ones.
    dof : degrees of freedom of the replicates.
    weight_P : how much each point counts; None: all alike.

    Returns
    -------
    test ("F" or "Hotelling"), p_value, bend_rms (the part of the loss that bends explain, relative),
    residual_rms; None where there are too few points, runs or replicates to tell.
    """
    from scipy.special import fdtrc

    directions, bends = surface.directions(log_N, log_D), _bends(log_N, log_D, log_N, log_D)
    if weight_P is not None:  # weighted least squares, in units of a point of weight 1
        root_P = np.sqrt(weight_P)
        directions, bends, residual_P = (
            directions * root_P[:, None],
            bends * root_P[:, None],
            residual_P * root_P,
        )
        if replicate_residual_RP is not None:
            replicate_residual_RP = replicate_residual_RP * root_P
    basis = _spanned(directions)
    bends = bends - basis @ (basis.T @ bends)
    left = residual_P - basis @ (basis.T @ residual_P)
    gram = bends.T @ bends
    Q = basis.shape[1]
    if len(residual_P) < Q + BENDS + 2 or np.linalg.cond(gram) > 1e10:
        return None
    project = np.linalg.solve(gram, bends.T)
    bend = project @ left
    shape = bends @ bend
    if replicate_residual_RP is None:
        free = len(residual_P) - Q - BENDS
        ratio = (shape @ shape / BENDS) / max(((left - shape) ** 2).sum() / free, 1e-300)
        name, p_value = "F", float(fdtrc(BENDS, free, ratio))
    else:
        dof = min(dof, len(replicate_residual_RP) - 1)  # the covariance is that of so many draws
        if not dof > BENDS:
            return None
        draws = (replicate_residual_RP - (replicate_residual_RP @ basis) @ basis.T) @ project.T
        covariance = np.cov(draws.T)
        statistic = float(bend @ np.linalg.solve(covariance, bend))
        ratio = statistic / BENDS if not np.isfinite(dof) else statistic * (dof - BENDS + 1) / (BENDS * dof)
        name, p_value = "Hotelling", float(fdtrc(BENDS, min(dof - BENDS + 1, 1e9), ratio))
    bend_rms = float(np.sqrt((shape**2).mean()))
    return {
        "test": name,
        "p_value": p_value if bend_rms > ROUNDING else 1.0,
        "bend_rms": bend_rms,
        "residual_rms": float(np.sqrt((residual_P**2).mean())),
    }
