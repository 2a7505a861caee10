"""Losses that no law of this table explains: diverged runs, slips of a digit, another quantity in one row.

They are found by the residuals of a robust fit of the surface (Huber's penalty, whatever the fit asked for
uses), against a scale that they do not move: the median of the absolute residuals. They stay in approach 3,
whose penalty bounds their pull; approach 2 and the test of fit do without them, approach 1 without those
below the fit.

Shapes: P points, E evaluations (rows of the loss table), S runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.curves import CurveSet
from jetscale.analysis.fitting.surface import Surfaces

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIGMAS = 6.0  # robust standard deviations, for many points
FEW = 2.0  # stretches the limit by 1 + FEW / dof: the scale of a few residuals is itself uncertain
MIN_DOF = 3
SMALLEST = 1e-4  # of ln L: below this it is rounding, whatever the scale
MAX_SHARE = 0.25  # of the points: more are no outliers, but another law
NAMED = 10
MIN_SEEDS = 3  # of two seeds it cannot be told which is off


@dataclass(frozen=True)
class Outliers:
    """Points beyond the limit.

    Attributes
    ----------
    points : (P,) which they are.
    below : (P,) those below the fit, which would make an envelope of their own.
    rows : for each, its run, N, D, loss, the loss the fit predicts and its distance in robust standard
        deviations; the farthest first.
    sigma : robust standard deviation of ln L about the fit.
    """

    points: Mask
    below: Mask
    rows: list[dict[str, Any]]
    sigma: float

    def warnings(self) -> list[str]:
        """One line that names them all, or the farthest of many."""
        if not self.rows:
            return []
        shown = "; ".join(_described(row) for row in self.rows[:NAMED])
        more = f"; and {len(self.rows) - NAMED} more" if len(self.rows) > NAMED else ""
        noun = "loss lies" if len(self.rows) == 1 else "losses lie"
        text = (
            f"{len(self.rows)} {noun} beyond {SIGMAS:g} robust standard deviations ({100 * self.sigma:.2g}%)"
            f" of the fit: {shown}{more}. Approach 2 and the test of fit leave them out (approach 1 those"
            " below the fit), approach 3 keeps them: check them, or leave them out with where=..."
        )
        return [text]


def _described(row: dict[str, Any]) -> str:
    return (
        f"{row['run']} (N = {row['N']:.4g}, D = {row['D']:.4g}): {row['loss']:.4g},"
        f" predicted {row['predicted']:.4g}"
    )


def none_of(points: int) -> Outliers:
    """No outlier among so many points."""
    return Outliers(np.zeros(points, dtype=bool), np.zeros(points, dtype=bool), [], float("nan"))


def limit(dof: int) -> float:
    """Distance in robust standard deviations beyond which a point is an outlier."""
    return SIGMAS * (1 + FEW / max(dof, 1))


def robust_sigma(residual_P: Array, parameters: int) -> float:
    """Standard deviation by the median; the smallest residuals, as many as parameters, are the fit's own.

    Parameters
    ----------
    residual_P : (P,).
    parameters : of the fit.
    """
    return float(np.median(np.sort(np.abs(residual_P))[parameters:]) / 0.6745)


def find_outliers(
    curves: CurveSet, log_L_P: Array, log_L_E: Array, surface: Surfaces, parameters: int
) -> Outliers:
    """Find the outliers of one subset.

    Parameters
    ----------
    curves : the points. log_L_P, log_L_E : ln losses of the points and of the evaluations behind them.
    surface : robust fit to the points; parameters : how many it has.
    """
    fitted_P = surface.log_loss(curves.log_N, curves.log_D)[0]
    residual_P = log_L_P - fitted_P
    if curves.weight is not None:  # in units of a point of weight 1
        residual_P = residual_P * np.sqrt(curves.weight)
    dof = len(log_L_P) - parameters
    if dof < MIN_DOF:
        return none_of(len(log_L_P))
    sigma = robust_sigma(residual_P, parameters)
    distance_P = np.abs(residual_P) / max(sigma, 1e-300)
    far = (distance_P > limit(dof)) & (np.abs(residual_P) > SMALLEST)
    if far.mean() > MAX_SHARE:
        far = np.zeros_like(far)
    rows = [
        {
            "run": curves.name_of(point),
            "N": float(np.exp(curves.log_N[point])),
            "D": float(np.exp(curves.log_D[point])),
            "loss": float(np.exp(log_L_P[point])),
            "predicted": float(np.exp(fitted_P[point])),
            "sigmas": float(distance_P[point]),
        }
        for point in np.flatnonzero(far)[np.argsort(-distance_P[far], kind="stable")]
    ]
    cells, of_seeds = _seeds_apart(curves, log_L_E)
    of_cells = np.isin(curves.cell, cells)
    return Outliers(far | of_cells, (far & (residual_P < 0)) | of_cells, of_seeds + rows, sigma)


def _seeds_apart(curves: CurveSet, log_L_E: Array) -> tuple[list[int], list[dict[str, Any]]]:
    """Runs far from the other seeds of their cell, of which the mean would hide them: the cells, and rows."""
    found: list[tuple[int, int, float, float, float]] = []
    for cell, apart in curves.seeds_apart(log_L_E):
        found += [(cell, run, *values) for run, values in apart.items()]
    if len(found) < 2 * MIN_SEEDS:
        return [], []
    deviation = np.array([one[2] for one in found])
    sigma = robust_sigma(deviation, len({one[0] for one in found}))
    far = (np.abs(deviation) > limit(len(found) // 2) * sigma) & (np.abs(deviation) > 10 * SMALLEST)
    if far.mean() > MAX_SHARE:
        return [], []
    rows, cells = [], []
    for at in np.flatnonzero(far):
        cell, run, off, log_D, log_L = found[at]
        cells.append(cell)
        rows.append(
            {
                "run": curves.runs[run],
                "N": float(np.exp(curves.log_N[curves.cell == cell][0])),
                "D": float(np.exp(log_D)),
                "loss": float(np.exp(log_L)),
                "predicted": float(np.exp(log_L - off)),
                "sigmas": float(abs(off) / max(sigma, 1e-300)),
            }
        )
    return cells, rows
