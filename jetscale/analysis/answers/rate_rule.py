"""Best learning rates of every subset and width, and the power law through them.

1. ln L of the last evaluation of each run = effect of its rate + effect of its seed, by least squares inside
   each (subset, width): rates that lack a seed are compared fairly. What is left is the scatter of runs: one
   variance, pooled over all widths and subsets.
2. A parabola in ln(rate) through the lowest rate and its two neighbours; its vertex is the best rate. A
   lowest rate at the end of the grid is a bound, no optimum.
3. ln(best) = ln(base) + power ln(d / d0), by weighted least squares over the widths with an optimum inside
   the grid; where the widths scatter about the line by more than their errors, these are stretched to fit
   (chi2 / dof = 1). For each subset and for all together; an F test says whether the subsets differ.

Shapes: K rates of a width, W widths.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import Quantity
from jetscale.analysis.fitting.outliers import FEW, MIN_DOF, SIGMAS, SMALLEST

Array = NDArray[np.float64]

TIE = 1e-6  # of a residual: nearer ones are alike
PAPER_RATE = 1e-3  # arXiv:2606.19781, for every width


@dataclass(frozen=True)
class Scan:
    """One (subset, width): mean ln L of every rate.

    Attributes
    ----------
    rates : (K,), ascending.
    log_L : (K,), each at the average seed.
    covariance : (K, K), to be multiplied by the variance of a run.
    residuals : (R,) of ln L of the runs, in their order.
    dof : degrees of freedom of the residuals.
    seeds : runs of each rate.
    """

    subset: str
    dim: int
    rates: Array
    log_L: Array
    covariance: Array
    residuals: Array
    dof: int
    seeds: list[int]


@dataclass(frozen=True)
class Best:
    """The best rate of a scan.

    Attributes
    ----------
    status : "interior", "edge" (the lowest loss is at an end of the grid: `rate` is a bound) or "one rate".
    log_rate, log_rate_sd : ln of the rate, and its error (None where the scatter of runs is not known).
    penalty : ln L at the paper's rate less ln L at the best; None where that rate was not run. At an edge it
        is a lower bound.
    parabola : its second derivative and lowest ln L.
    """

    scan: Scan
    status: str
    log_rate: float
    log_rate_sd: float | None = None
    penalty: Quantity = field(default_factory=lambda: Quantity(None))
    parabola: tuple[float, float] | None = None

    def rate(self, dof: int) -> Quantity:
        """Best rate with its error; `dof` of the variance of a run."""
        return _exponential(_quantity(self.log_rate, self.log_rate_sd, dof))

    @property
    def side(self) -> str:
        """Where the optimum lies if it is not inside: "below" or "above" the grid; else ""."""
        if self.status != "edge":
            return ""
        return "below" if self.log_rate == np.log(self.scan.rates[0]) else "above"


@dataclass(frozen=True)
class Rule:
    """``lr = base (d / dim)^power``; chi2 and its dof are those of the fit before stretching."""

    base: Quantity
    dim: int
    power: Quantity
    widths: list[int]
    chi2: float
    dof: int

    @property
    def override(self) -> str:
        """What to paste into a command line, in quotes: a shell would take the braces apart."""
        assert self.base.value is not None
        assert self.power.value is not None
        spec = f"{{base:{self.base.value:.4g},dim:{self.dim},power:{self.power.value:.4g}}}"
        return f"'finetune.lr={spec}'"


def scan(subset: str, dim: int, rate_R: Array, seed_R: list[str], log_L_R: Array) -> Scan:
    """Separate the effects of rates and seeds; plain means where the runs do not allow it.

    Parameters
    ----------
    rate_R, seed_R, log_L_R : rate, seed and last ln L of each run.
    """
    rates, of_rate = np.unique(rate_R, return_inverse=True)
    names, of_seed = np.unique(seed_R, return_inverse=True)
    K, S = len(rates), len(names)
    effects = np.eye(S)[of_seed]
    design = np.hstack([np.eye(K)[of_rate], (effects - 1 / S)[:, 1:]])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        design = design[:, :K]
    inverse = np.linalg.inv(design.T @ design)
    solution = inverse @ design.T @ log_L_R
    residual = log_L_R - design @ solution
    return Scan(
        subset=subset,
        dim=dim,
        rates=rates,
        log_L=solution[:K],
        covariance=np.asarray(inverse[:K, :K], dtype=np.float64),
        residuals=np.asarray(residual, dtype=np.float64),
        dof=len(log_L_R) - design.shape[1],
        seeds=[int(count) for count in np.bincount(of_rate)],
    )


def run_variance(scans: list[Scan]) -> tuple[float | None, int]:
    """Variance of ln L of a run, pooled, and its degrees of freedom; None where no rate has two seeds."""
    dof = sum(one.dof for one in scans)
    squares = sum(float(one.residuals @ one.residuals) for one in scans)
    return (squares / dof if dof else None), dof


def far_off(scans: list[Scan]) -> list[tuple[int, list[int], float]]:
    """Runs that no effect of rate and seed explains: scan, runs of it, and largest residual of ln L.

    A run that is off pulls on the whole of its scan, so each scan is judged by the scatter in the others: by
    the median of the absolute residuals, which other runs that are off do not move, and the limit of
    `jetscale.analysis.fitting.outliers`. Of each scan only the farthest run is named; of two seeds both,
    since they are as far from their mean.
    """
    found = []
    for number, one in enumerate(scans):
        others = [other for other in scans if other is not one and other.dof > 0]
        dof = sum(other.dof for other in others)
        if one.dof == 0 or dof < MIN_DOF:
            continue
        every = np.abs(np.concatenate([other.residuals for other in others]))
        sigma = float(np.median(every) / 0.6745 * np.sqrt(len(every) / dof))
        off = np.abs(one.residuals)
        if off.max() > max(SIGMAS * (1 + FEW / dof) * sigma, SMALLEST):
            runs = np.flatnonzero(off > (1 - TIE) * off.max())
            found.append((number, [int(run) for run in runs], float(off.max())))
    return found


def best(one: Scan, variance: float | None, dof: int) -> Best:
    """Vertex of the parabola through the lowest rate and its neighbours.

    Parameters
    ----------
    one : the scan of a width.
    variance, dof : of ln L of a run, pooled; None where it is not known.
    """
    x, lowest = np.log(one.rates), int(one.log_L.argmin())
    paper = np.flatnonzero(np.isclose(one.rates, PAPER_RATE, rtol=1e-6))
    at_paper = np.zeros(len(x))
    at_paper[paper] = 1.0
    at_best = np.eye(len(x))[lowest]
    status, position, sd, parabola = "one rate", float(x[lowest]), None, None
    if len(x) > 1:
        status = "edge"
    if 0 < lowest < len(x) - 1:
        near = slice(lowest - 1, lowest + 2)
        y = one.log_L[near]
        slopes, bends = _derivatives(x[near])  # of the parabola at the middle, as weights of y
        bend = float(bends @ y)
        status, position = "interior", float(x[lowest] - (slopes @ y) / bend)
        shift = position - x[lowest]
        at_best = np.zeros(len(x))
        at_best[near] = np.array([0.0, 1.0, 0.0]) + shift * slopes + shift**2 / 2 * bends
        gradient = np.zeros(len(x))
        gradient[near] = -(slopes + shift * bends) / bend
        parabola = (bend, float(at_best @ one.log_L))
        if variance is not None:
            sd = float(np.sqrt(variance * gradient @ one.covariance @ gradient))
    penalty = Quantity(None)
    if len(paper) and len(x) > 1:
        contrast = at_paper - at_best
        error = None if variance is None else np.sqrt(variance * contrast @ one.covariance @ contrast)
        penalty = _quantity(float(contrast @ one.log_L), None if error is None else float(error), dof)
    return Best(one, status, position, sd, penalty, parabola)


def rule(found: list[Best], dof: int, dim: int) -> Rule | None:
    """Power law through the optima inside the grid; None for fewer than two widths.

    Parameters
    ----------
    dof : of the variance of a run.
    dim : reference width d0.
    """
    inside = [one for one in found if one.status == "interior"]
    widths = sorted({one.scan.dim for one in inside})
    if len(widths) < 2:
        return None
    known = all(one.log_rate_sd for one in inside)
    weight = np.array([1 / (one.log_rate_sd or 1.0) ** 2 if known else 1.0 for one in inside])
    design = np.stack([np.ones(len(inside)), np.log([one.scan.dim / dim for one in inside])], axis=1)
    y = np.array([one.log_rate for one in inside])
    covariance = np.linalg.inv(design.T @ (design * weight[:, None]))
    solution = covariance @ design.T @ (weight * y)
    chi2 = float(weight @ (y - design @ solution) ** 2)
    free = len(inside) - 2
    errors: Array | None = None
    if known:
        errors = np.sqrt(np.diag(covariance) * max(1.0, chi2 / free if free else 1.0))
    elif free:
        errors, dof = np.sqrt(np.diag(covariance) * chi2 / free), free
    log_base = _quantity(float(solution[0]), None if errors is None else float(errors[0]), dof)
    power = _quantity(float(solution[1]), None if errors is None else float(errors[1]), dof)
    return Rule(_exponential(log_base), dim, power, widths, chi2, free)


def reference_width(found: list[Best]) -> int:
    """The middle one of the widths with an optimum inside: base and power are then nearly independent."""
    widths = sorted({one.scan.dim for one in found if one.status == "interior"})
    centre = np.mean(np.log(widths)) if widths else 0.0
    return min(widths, key=lambda dim: abs(np.log(dim) - centre), default=1)


def subsets_differ(groups: list[list[Best]], dof: int, dim: int) -> dict[str, Any] | None:
    """F test of one law for all groups against one law each; None where fewer than two groups have a law.

    Against the errors of the optima, with the `dof` of the variance of a run; where these are not known,
    against the scatter about the laws.
    """
    from scipy.stats import f

    rules = [(group, rule(group, dof, dim)) for group in groups]
    together = rule([one for group, found in rules if found for one in group], dof, dim)
    apart = [found for _, found in rules if found]
    if together is None or len(apart) < 2:
        return None
    chi2, free = sum(one.chi2 for one in apart), sum(one.dof for one in apart)
    more, scale = together.dof - free, 1.0
    if dof == 0:
        scale, dof = (chi2 / free if free else 0.0), free
    if not scale:
        return None
    ratio = (together.chi2 - chi2) / more / scale
    return {"F": ratio, "dof": [more, dof], "p_value": float(f.sf(ratio, more, dof))}


def _derivatives(x: Array) -> tuple[Array, Array]:
    """Slope at the middle and bend of the parabola through three points, as weights of their heights."""
    left, right = x[1] - x[0], x[2] - x[1]
    bends = 2 * np.array([1 / left, -1 / left - 1 / right, 1 / right]) / (left + right)
    slopes = np.array([-1 / left, 1 / left, 0.0]) + left / 2 * bends
    return slopes, bends


def _quantity(value: float, sd: float | None, dof: int) -> Quantity:
    from scipy.stats import t

    if sd is None or dof < 1:
        return Quantity(value)
    reach = float(t.ppf(0.975, dof)) * sd
    return Quantity(value, sd, (value - reach, value + reach))


def _exponential(log: Quantity) -> Quantity:
    assert log.value is not None
    value = float(np.exp(log.value))
    if log.sd is None or log.ci95 is None:
        return Quantity(value)
    return Quantity(value, value * log.sd, (float(np.exp(log.ci95[0])), float(np.exp(log.ci95[1]))))
