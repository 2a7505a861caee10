"""The loss that a new run would have: `predict_loss`, with a prediction interval.

The interval holds the loss of one new run, not of the law: the error of the fit (its replicates), the scatter
of runs about it (with what the form of the law misses), and the noise of a test set as large as the runs'.

Shapes: R replicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers import laws as sources
from jetscale.analysis.answers.laws import Law, Laws, Line
from jetscale.analysis.checks import coverage
from jetscale.analysis.errors.scatter import Scatter
from jetscale.analysis.fitting.numbers import Quantity, student_reach, summarise
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.settings import check_amounts, check_levels
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    from jetscale.analysis.answers.fit_result import FitResult

Array = NDArray[np.float64]

LEVELS = (80.0, 90.0, 95.0)
NEAR = 0.05  # decades outside the runs that are no extrapolation
SAME = 1e-3  # of a logarithm
MUCH_THE_SAME = 1.1  # C / (k N D) of runs whose cost is not quite k N D
_BISECTIONS = 80


@dataclass(frozen=True)
class Prediction:
    """Predicted loss of one new run of one subset.

    Attributes
    ----------
    subset : name.
    at : N, D and C of the run, as far as the law needs them.
    loss : with the prediction interval.
    law : the loss of the law itself: its interval is that of a mean over many runs.
    run_sd, test_sd : standard deviations of ln loss of one run about the law, and by the test jets.
    flags : extrapolation and what is not known.
    """

    subset: str
    at: dict[str, float]
    loss: Quantity
    law: Quantity
    run_sd: float
    test_sd: float
    flags: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        where = ", ".join(f"{symbol} = {value:.4g}" for symbol, value in self.at.items())
        lines = [f"{self.subset}: {where}", f"  predicted loss of a new run = {self.loss}"]
        for level, low, high in self.loss.other_levels:
            lines.append(f"    {level:g}% of such runs: {low:.5g} to {high:.5g}")
        if self.loss.ci95 is not None:
            lines.append(f"    95% of such runs: {self.loss.ci95[0]:.5g} to {self.loss.ci95[1]:.5g}")
            lines.append(
                f"  of which the law itself {self.law}; one run about it {100 * self.run_sd:.2g}%, test jets"
                f" {100 * self.test_sd:.2g}%"
            )
        return "\n".join(lines + [f"  flag: {flag}" for flag in self.flags])


@dataclass(frozen=True)
class Predictions:
    """Predictions by subset; `missing` says why a subset has none."""

    predictions: dict[str, Prediction]
    missing: dict[str, str]

    def __str__(self) -> str:
        lines = [str(one) for one in self.predictions.values()]
        return "\n".join(lines + [f"{name}: no prediction ({why})" for name, why in self.missing.items()])


def predict_loss(
    fitted: FitResult | str | Path,
    *,
    N: float = 0.0,
    D: float = 0.0,
    C: float = 0.0,
    subset: str = "",
    levels: Sequence[float] = LEVELS,
) -> Predictions:
    """Predict the loss of a new run.

    Parameters
    ----------
    fitted : a fit, or the folder it was saved to.
    N, D : size of the run and its training examples; two of N, D and C say where on a surface it is, and the
        one of a law of one variable where that is all there is.
    C : its compute, FLOPs.
    subset : only this one; empty: all.
    levels : of the prediction intervals, in %; 95 is always given.

    Raises
    ------
    UsageError
        N, D or C that the law needs are missing, contradict it, or are no numbers from 0; unknown subset; no
        results.
    """
    check_amounts(N=N, D=D, C=C)
    check_levels(levels)
    laws = sources.of(fitted)
    sources.check_subset(laws, subset)
    asked = {symbol: value for symbol, value in (("N", N), ("D", D), ("C", C)) if value > 0}
    found, missing = {}, {}
    for name in [*laws.laws, *laws.lines, *laws.missing]:
        if subset not in ("", name):
            continue
        if name in laws.laws:
            found[name] = on_surface(laws.laws[name], laws.sample, asked, levels)
        elif name in laws.lines:
            found[name] = _on_line(laws.lines[name], laws, asked, levels)
        else:
            missing[name] = laws.missing[name]
    return Predictions(found, missing)


def on_surface(law: Law, sample: str, asked: dict[str, float], levels: Sequence[float]) -> Prediction:
    """Predict the loss of a run of one subset from its law of N and D.

    Parameters
    ----------
    law : of the subset.
    sample : what D counts.
    asked : two of N, D and C, by symbol.
    levels : of the prediction intervals, in %; 95 is always given.

    Raises
    ------
    UsageError
        Not two of them.
    """
    if set(asked) == {"N", "C"}:
        data = law.cost.log_data(np.log([asked["C"]]), np.log([asked["N"]]))
        asked = {"N": asked["N"], "D": float(np.exp(data[0]))}
    if set(asked) == {"D", "C"}:
        size = law.cost.log_size(float(np.log(asked["C"])), float(np.log(asked["D"])))
        asked = {"N": float(np.exp(size)), "D": asked["D"]}
    if set(asked) != {"N", "D"}:
        raise UsageError(f"{law.name}: give two of N=, D= and C=: its loss is a law of N and D")
    log_N, log_D = (np.log([asked[symbol]]) for symbol in ("N", "D"))
    C = float(np.exp(law.cost.log_flops(log_N, log_D)[0]))
    ranges = {"N": law.N_range, "D": law.D_range, "C": law.C_range}
    at = {**asked, "C": C}
    flags = [_beyond(symbol, at[symbol], ranges[symbol], sample) for symbol in ("N", "D", "C")]
    if any(flags):
        flags.append(coverage.far_outside(law.missed))
    return _prediction(
        law.name,
        at,
        law.surface,
        law.replicates,
        log_N,
        log_D,
        law.method,
        law.dof,
        law.scatter,
        flags,
        levels,
    )


def _on_line(line: Line, laws: Laws, asked: dict[str, float], levels: Sequence[float]) -> Prediction:
    """The law of one variable holds where the others are what they were in the runs, and nowhere else."""
    symbol = line.symbol
    if symbol == "C" and "C" not in asked and set(asked) == {"N", "D"} and not line.absent:
        asked = asked | {"C": float(line.k * asked["N"] * asked["D"])}
    if symbol not in asked:
        raise UsageError(f"{line.name}: its loss is a law of {symbol} alone ({line.reason}): give {symbol}=")
    flags = []
    if symbol != "C" and "C" in asked:
        raise UsageError(
            f"{line.name}: its loss is a law of {symbol} alone ({line.reason}), which says nothing of"
            f" C = {asked['C']:.4g}; leave C out"
        )
    if set(asked) == {"N", "D", "C"}:
        _refuse_other_budget(line, asked)
    for other, value in asked.items():
        if other == symbol or other == "C":
            continue
        low, high = line.ranges[other]
        if symbol != "C" and (other in line.absent or not low * (1 - SAME) <= value <= high * (1 + SAME)):
            raise UsageError(
                f"{line.name}: {other} = {value:.4g}, but its law of {symbol} says nothing of {other}"
                f" ({line.reason}); leave {other} out"
            )
    if symbol == "C" and {"N", "D"} <= set(asked):
        ratio, wanted = line.ratio, asked["D"] / asked["N"]
        if abs(np.log(wanted / ratio)) > 0.1:
            flags.append(
                f"D / N = {wanted:.4g}, but the runs have {ratio:.4g}: the law of C holds there only"
            )
    flags.append(_beyond(symbol, asked[symbol], line.ranges[symbol], laws.sample))
    x = np.log([asked[symbol]])
    at = {symbol: asked[symbol]}
    return _prediction(
        line.name, at, line.law, line.replicates, x, 0 * x, line.method, line.dof, line.scatter, flags, levels
    )


def _refuse_other_budget(line: Line, asked: dict[str, float]) -> None:
    """Refuse a C that is not the one of the N and D given beside it."""
    C = line.k * asked["N"] * asked["D"]
    if not line.absent and abs(np.log(asked["C"] / C)) > np.log(MUCH_THE_SAME):
        raise UsageError(
            f"{line.name}: C = {asked['C']:.4g} is not that of N = {asked['N']:.4g} and D = {asked['D']:.4g},"
            f" {C:.4g}; leave one of them out"
        )


def _prediction(
    name: str,
    at: dict[str, float],
    law: Surfaces,
    replicates: Surfaces | None,
    x: Array,
    y: Array,
    method: str,
    dof: float,
    scatter: Scatter | None,
    flags: list[str],
    levels: Sequence[float],
) -> Prediction:
    log_loss = float(law.log_loss(x, y)[0, 0])
    loss = float(np.exp(log_loss))
    draws = None if replicates is None else replicates.log_loss(x, y)[:, 0]
    of_law = summarise(loss, None if draws is None else np.exp(draws), method, dof, "log", levels)
    run_sd = float("nan") if scatter is None else scatter.run_sd
    test_sd = float("nan") if scatter is None else scatter.test_sd(loss)
    flags = [flag for flag in flags if flag]
    if scatter is None or draws is None or not np.isfinite(run_sd):
        flags.append("no prediction interval: the runs say nothing about their scatter")
        return Prediction(name, at, Quantity(loss), of_law, run_sd, test_sd, flags)
    if not np.isfinite(scatter.test_jets):
        flags.append("losses by test block are not known: the interval is for the runs' own test set")
    noise = float(np.hypot(run_sd, test_sd))
    around = draws - (log_loss if method == "runs" else np.median(draws))
    dof = min(dof, scatter.dof)

    def ends(level: float) -> tuple[float, float]:
        stretch = student_reach(level, dof) / student_reach(level, np.inf)
        low, high = (log_loss + stretch * _quantile(around, noise, share) for share in _tails(level))
        return float(np.exp(low)), float(np.exp(high))

    sd = loss * float(np.hypot(np.std(draws, ddof=1), noise))
    return Prediction(name, at, Quantity.of_levels(loss, sd, ends, levels), of_law, run_sd, test_sd, flags)


def _tails(level: float) -> tuple[float, float]:
    return 0.5 - level / 200, 0.5 + level / 200


def _quantile(draws_R: Array, noise: float, share: float) -> float:
    """Quantile of the sum of a draw and of normal noise: where the mean of their distributions is `share`."""
    from scipy.special import ndtr

    low, high = draws_R.min() - 10 * noise, draws_R.max() + 10 * noise
    if noise <= 0:
        return float(np.quantile(draws_R, share))
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if ndtr((middle - draws_R) / noise).mean() < share:
            low = middle
        else:
            high = middle
    return float(0.5 * (low + high))


def _beyond(symbol: str, value: float, ends: tuple[float, float], sample: str) -> str:
    """How far outside the runs a prediction is, in decades; empty inside them."""
    low, high = ends
    decades = max(np.log10(value / high), np.log10(low / value))
    if decades <= NEAR:
        return ""
    side = "above the largest" if value > high else "below the smallest"
    unit = {"N": "parameters", "D": f"{sample}s", "C": "FLOPs"}[symbol]
    end = high if value > high else low
    return f"extrapolated by {decades:.1f} decades in {symbol} ({side} fitted, {end:.3g} {unit})"
