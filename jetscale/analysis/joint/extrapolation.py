"""How laws of transfer extrapolate: fitted below a cut in D or N, they predict what lies above it.

Shapes: P points of a group, T held-out points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.numbers import levelled
from jetscale.analysis.fitting.surface_fit import Undetermined
from jetscale.analysis.joint.data import JointData
from jetscale.analysis.joint.sharing import Points
from jetscale.analysis.joint.transfer import TransferModel, held_for

Array = NDArray[np.float64]

HELD_OUT = 0.7  # share of the points, in order of D or N, that is fitted
SURE = 2.0  # standard errors by which one law must predict better than another


@dataclass(frozen=True)
class HeldOut:
    """Errors of ln L beyond a cut of D or N that was not fitted.

    Attributes
    ----------
    cut : of D or N. error_T : predicted less observed ln L. curve_T : number of its curve.
    """

    cut: float
    error_T: Array
    curve_T: NDArray[np.intp]

    def to_json(self) -> dict[str, Any]:
        """Entry of results.json."""
        error = np.expm1(self.error_T)
        return {
            "cut": self.cut,
            "points": len(error),
            "rms_error": float(np.sqrt((error**2).mean())),
            "mean_error": float(error.mean()),
        }


def law_held_out(
    model: TransferModel, points: Mapping[str, Points], axis: str, data: JointData
) -> HeldOut | None:
    """Fit below a cut and predict above it; None where what is left does not determine the fit."""
    cut = cut_of(points, axis)
    below = {name: _of_axis(p, axis) <= cut for name, p in points.items()}
    kept = {name: p.of(below[name]) for name, p in points.items()}
    enough = _carries(kept, len(model.model.names)) and held_for(kept) == model.held
    if not enough or all(mask.all() for mask in below.values()):
        return None
    fitted = TransferModel.of(model.law, kept, model.scratch, model.compositions, model.model.objective)
    fit, certificate = fitted.point(kept, starts=2)
    if certificate.flat:
        return None
    surfaces = fitted.model.surfaces(fit.phi)
    predicted = {
        name: surfaces[name].log_loss(p.log_N[~below[name]], p.log_D[~below[name]])[0]
        for name, p in points.items()
    }
    return held_out_errors(data, points, predicted, below, cut)


def held_out_errors(
    data: JointData,
    points: Mapping[str, Points],
    predicted: Mapping[str, Array],
    below: Mapping[str, NDArray[np.bool_]],
    cut: float,
) -> HeldOut:
    """Errors of the predictions at the points that are not below the cut, with their curves."""
    errors, curves, first = [], [], 0
    for name, p in points.items():
        cell = data.tasks[name].curves.cell
        errors.append(predicted[name] - p.log_L[~below[name]])
        curves.append(first + cell[~below[name]])
        first += int(cell.max()) + 1
    return HeldOut(float(np.exp(cut)), np.concatenate(errors), np.concatenate(curves))


def separate_held_out(data: JointData, axis: str) -> HeldOut | None:
    """The same for every group fitted alone; None where one of them cannot be."""
    points, cut = data.points, cut_of(data.points, axis)
    below = {name: _of_axis(p, axis) <= cut for name, p in points.items()}
    predicted = {}
    for name, p in points.items():
        mask, task = below[name], data.tasks[name]
        try:
            surfaces = task.fitter.of(mask).point(p.log_L[mask])[0].surfaces
        except Undetermined:
            return None
        predicted[name] = surfaces.log_loss(p.log_N[~mask], p.log_D[~mask])[0]
    return held_out_errors(data, points, predicted, below, cut)


def cut_of(points: Mapping[str, Points], axis: str) -> float:
    """Ln D or ln N up to which 70% of all points lie; below the largest value."""
    values = levelled(np.concatenate([_of_axis(p, axis) for p in points.values()]))
    smaller = values[values < values.max()]
    highest = float(smaller.max()) if len(smaller) else float(values.max())
    return min(float(np.quantile(values, HELD_OUT, method="lower")), highest)


def _of_axis(points: Points, axis: str) -> Array:
    return levelled(points.log_D if axis == "D" else points.log_N)


def _carries(points: Mapping[str, Points], parameters: int) -> bool:
    lengths = [len(p.log_L) for p in points.values()]
    return min(lengths) > 2 and sum(lengths) > 2 * parameters


@dataclass(frozen=True)
class Compared:
    """Laws by their errors beyond a cut of one axis.

    Attributes
    ----------
    axis : D or N. rms : of the errors, by law. best : the lowest. worse : surely worse than it, in order;
        alike : the others.
    """

    axis: str
    rms: dict[str, float]
    best: str
    worse: list[str]
    alike: list[str]

    def __str__(self) -> str:
        text = f"at larger {self.axis} {self.best} predicts best ({100 * self.rms[self.best]:.2g}% rms)"
        text += f", worse are {self._named(self.worse)}" if self.worse else ""
        return text + (f", not distinguishable from it {self._named(self.alike)}" if self.alike else "")

    def _named(self, names: list[str]) -> str:
        return ", ".join(f"{name} {100 * self.rms[name]:.2g}%" for name in names)


@dataclass(frozen=True)
class Verdict:
    """Which law predicts held-out losses best.

    Attributes
    ----------
    best : in D and in N together; None where none could be compared.
    compared : by axis; empty where fewer than two laws could be fitted below a cut.
    """

    best: str | None
    compared: list[Compared]

    def __str__(self) -> str:
        if not self.compared:
            return "no law could be fitted below a cut in D or N: they are not compared"
        return "; ".join(map(str, self.compared))


def verdict(laws: Mapping[str, Mapping[str, HeldOut | None]]) -> Verdict:
    """The law that predicts held-out losses best, in D and in N together, and how surely.

    Squared errors are averaged by curve, whose points are correlated; one law is worse than another where
    the mean difference over curves is beyond two of its standard errors.

    Parameters
    ----------
    laws : errors by law and axis.
    """
    axes = [axis for axis in ("D", "N") if sum(held.get(axis) is not None for held in laws.values()) > 1]
    score: dict[str, list[Array]] = {}
    for name, held in laws.items():
        errors = [held.get(axis) for axis in axes]
        if axes and all(one is not None for one in errors):
            score[name] = [_by_curve(one) for one in errors if one is not None]
    whole = {name: float(np.sqrt(np.mean([one.mean() for one in each]))) for name, each in score.items()}
    compared = [
        _compared({name: each[at] for name, each in score.items()}, axis) for at, axis in enumerate(axes)
    ]
    return Verdict(min(whole, key=lambda name: whole[name], default=None), compared)


def _compared(score: Mapping[str, Array], axis: str) -> Compared:
    """Laws in order of their errors beyond a cut of one axis."""
    mean = {name: float(value.mean()) for name, value in score.items()}
    best = min(mean, key=lambda name: mean[name])
    alike: list[str] = []
    worse: list[str] = []
    for name in sorted(mean, key=lambda name: mean[name]):
        if name != best:
            difference = score[name] - score[best]
            error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
            sure = difference.mean() > SURE * error
            (worse if sure else alike).append(name)
    return Compared(axis, {name: float(np.sqrt(value)) for name, value in mean.items()}, best, worse, alike)


def _by_curve(held: HeldOut) -> Array:
    """Mean squared error of every curve."""
    count = np.bincount(held.curve_T)
    total = np.bincount(held.curve_T, weights=held.error_T**2)
    return np.asarray((total / np.maximum(count, 1))[count > 0])
