"""Loss curves to the points that are fitted: the protocol of the paper, each step an option.

Binned, smoothed, averaged over seeds, made monotone by a running minimum, the first steps dropped
(arXiv:2606.19781); besides, where a plateau at the class prior is seen it is cut, since the end of warm-up
does not end it. With every step off, each row is a point.
Everything but the running minimum is linear in ln L, so one `CurveSet` serves the data and every replicate.

Shapes: R replicates, E evaluations (rows of the loss table), S runs, K bins of a curve, P points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.local_lines import plateau_end, smoother
from jetscale.analysis.fitting.numbers import SAME_VALUE, TIE, same_values
from jetscale.analysis.settings import CurveSettings, CurveSteps
from jetscale.analysis.tables.loss_table import WEIGHT

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Matrix: TypeAlias = "Array | csr_array"

DENSE = 40_000  # elements of a matrix up to which calls of a sparse one take longer than its zeros do


@dataclass(frozen=True)
class _Curve:
    """One cell (a size, with all its seeds): how its evaluations become points."""

    rows: list[Index]  # evaluations of each run
    runs: list[int]  # position of each run in the set
    operators: list[Matrix]  # (K, evaluations of the run)
    holds: NDArray[np.bool_]  # (runs, K): the run has evaluations in the bin
    log_D_K: Array
    log_C_K: Array
    chosen: Index  # bins that become points

    def apply(self, log_L_RE: Array, weight_RS: Array, monotone: bool) -> Array:
        """(R, K) ln of the curve."""
        total = np.zeros((max(len(log_L_RE), len(weight_RS)), len(self.log_D_K)))
        norm = np.zeros_like(total)
        for rows, run, operator, holds in zip(self.rows, self.runs, self.operators, self.holds, strict=True):
            weight = weight_RS[:, [run]] * holds
            total += weight * (operator @ log_L_RE[:, rows].T).T
            norm += weight
        curve = total / np.where(np.abs(norm) > 1e-12, norm, np.nan)
        return np.minimum.accumulate(curve, axis=1) if monotone else curve


@dataclass(frozen=True)
class CurveSet:
    """Points of one subset and how to recompute their losses.

    Attributes
    ----------
    log_N, log_D, log_C : (P,).
    cell : (P,) number of the cell (curve) of each point.
    cell_runs : names of the runs of each cell; several where seeds are averaged.
    seeds : seed of each run, as `runs`.
    runs : names of the S runs.
    is_curve : whether runs have several evaluations each.
    warnings : what was noticed.
    weight : (P,) how much each point counts in the fit, 1 on average; None: all alike.
    """

    log_N: Array
    log_D: Array
    log_C: Array
    cell: Index
    cell_runs: list[list[int]]
    runs: list[str]
    seeds: list[str]
    is_curve: bool
    warnings: list[str]
    _curves: list[_Curve]
    _monotone: bool
    _rows: list[str] = field(default_factory=list)
    weight: Array | None = None

    @cached_property
    def bracketed(self) -> NDArray[np.bool_]:
        """Points whose budget is reached by a smaller and by a larger size too, (P,); all of final losses.

        Curves of one length in D reach the largest budgets at the largest sizes only: the lowest loss there
        is at the edge of the grid, not at an optimum.
        """
        if not self.is_curve:
            return np.ones(len(self.log_N), dtype=bool)
        smaller, larger = (np.zeros(len(self.log_N), dtype=bool) for _ in range(2))
        for cell in np.unique(self.cell):
            member = self.cell == cell
            size, budgets = self.log_N[member][0], self.log_C[member]
            covered = (self.log_C >= budgets.min()) & (self.log_C <= budgets.max())
            smaller |= covered & (size < self.log_N - SAME_VALUE)
            larger |= covered & (size > self.log_N + SAME_VALUE)
        return smaller & larger

    @property
    def seeds_per_cell(self) -> list[int]:
        """Runs averaged in each cell."""
        return [len(runs) for runs in self.cell_runs]

    def name_of(self, point: int) -> str:
        """Run of a point, or the runs averaged in it, or its row in a table without runs."""
        if self._rows:
            return self._rows[point]
        names = [self.runs[run] for run in self.cell_runs[self.cell[point]]]
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    def seeds_apart(self, log_L_E: Array) -> Iterator[tuple[int, dict[int, tuple[float, float, float]]]]:
        """Of cells of three seeds or more: the cell and, by run, its median distance from the middle seed.

        Beside the distance in ln L: ln D and ln L of the run where the curve ends.

        Parameters
        ----------
        log_L_E : (E,) ln losses of the evaluations.
        """
        ones = np.ones((1, len(self.runs)))
        for cell, curve in enumerate(self._curves):
            if len(curve.runs) < 3:
                continue
            log_L_SK = np.full((len(curve.runs), len(curve.log_D_K)), np.nan)
            for seed, run in enumerate(curve.runs):
                alone = 0 * ones
                alone[:, run] = 1
                log_L_SK[seed] = curve.apply(log_L_E[None], alone, False)[0]
            log_L_SK = log_L_SK[:, curve.chosen]
            whole = np.isfinite(log_L_SK).all(axis=0)
            if whole.any():
                off_S = np.median((log_L_SK - np.median(log_L_SK, axis=0))[:, whole], axis=1)
                last = int(np.flatnonzero(whole)[-1])
                log_D = float(curve.log_D_K[curve.chosen[last]])
                ends = zip(curve.runs, off_S, log_L_SK[:, last], strict=True)
                yield cell, {run: (float(off), log_D, float(end)) for run, off, end in ends}

    def seed_variance(self, log_L_E: Array) -> tuple[float, int]:
        """Variance of ln L between the seeds of one cell, over all cells, and its degrees of freedom.

        Parameters
        ----------
        log_L_E : (E,) ln losses of the evaluations.

        Returns
        -------
        The mean over the points that every seed of a cell reaches; 0 and 0 where no cell has two seeds.
        """
        squares, dof = 0.0, 0
        for curve in self._curves:
            if len(curve.runs) < 2:
                continue
            alone = np.zeros((len(curve.runs), len(self.runs)))
            alone[np.arange(len(curve.runs)), curve.runs] = 1.0
            log_L_SK = curve.apply(log_L_E[None], alone, False)[:, curve.chosen]
            whole = np.isfinite(log_L_SK).all(axis=0)
            if whole.any():
                squares += float(((log_L_SK - log_L_SK.mean(axis=0))[:, whole] ** 2).sum(axis=0).mean())
                dof += len(curve.runs) - 1
        return (squares / dof, dof) if dof else (0.0, 0)

    def used(self, evaluations: int) -> NDArray[np.bool_]:
        """Which evaluations the points are made of, (E,), apart from those that set a running minimum before.

        Parameters
        ----------
        evaluations : how many there are, E.
        """
        if not self.is_curve:
            return np.ones(evaluations, dtype=bool)
        found = np.zeros(evaluations, dtype=bool)
        for curve in self._curves:
            for rows, operator in zip(curve.rows, curve.operators, strict=True):
                of_points = operator[curve.chosen]
                found[rows[np.unique(of_points.nonzero()[1])]] = True
        return found

    def log_losses(self, log_L_RE: Array, weight_RS: Array | None = None) -> Array:
        """Turn ln L of the evaluations (R, E) into ln L of the points (R, P).

        `weight_RS`: weights of the runs inside their cells, all alike by default.

        Parameters
        ----------
        log_L_RE : (R, E) ln losses of the evaluations.
        weight_RS : (R, S) weights of the runs inside their cells; all alike by default.

        Returns
        -------
        (R, P).
        """
        if not self.is_curve:
            return log_L_RE
        weights = np.ones((1, len(self.runs))) if weight_RS is None else weight_RS
        return np.concatenate(
            [curve.apply(log_L_RE, weights, self._monotone)[:, curve.chosen] for curve in self._curves],
            axis=1,
        )


def build(frame: pd.DataFrame, settings: CurveSettings) -> CurveSet:
    """Curve set of one subset.

    Parameters
    ----------
    frame : rows of one subset, split and kind of weights, in canonical order; row i is evaluation i.
    settings : where they do not name a protocol, the paper's.
    """
    steps = settings.steps(own_runs=True)
    run_codes, runs = _codes(frame["run"].to_numpy())
    if len(runs) == len(frame):
        return _final_losses(frame, runs)
    first = [int(np.flatnonzero(run_codes == code)[0]) for code in range(len(runs))]
    sizes = frame["n_params"].to_numpy(float)
    level = same_values(np.log(sizes[first]))
    seeds = [str(frame["seed"].iloc[row]) for row in first]
    cells: dict[float | int, list[int]] = {}
    for code in range(len(runs)):
        cells.setdefault(float(level[code]) if steps.average_seeds else code, []).append(code)
    warnings: list[str] = []
    plateaus: list[str] = []
    curves, log_N, cell_runs = [], [], []
    for members in cells.values():
        curve, cut = _curve(frame, run_codes, members, steps, warnings)
        if cut:
            name = f"run {runs[members[0]]}" if len(members) == 1 else f"N = {sizes[first[members[0]]]:.4g}"
            plateaus.append(f"{name}: {cut}")
        curves.append(curve)
        cell_runs.append(members)
        log_N.append(np.full(len(curve.chosen), np.log(sizes[first[members[0]]])))
    if plateaus:
        warnings.append(
            f"curves: a plateau is seen at the start of {len(plateaus)} of {len(curves)} and was left out"
            f" ({'; '.join(plateaus)}); curves.cut_plateau=false keeps it"
        )
    found = CurveSet(
        log_N=np.concatenate(log_N),
        log_D=np.concatenate([curve.log_D_K[curve.chosen] for curve in curves]),
        log_C=np.concatenate([curve.log_C_K[curve.chosen] for curve in curves]),
        cell=np.concatenate([np.full(len(curve.chosen), number) for number, curve in enumerate(curves)]),
        cell_runs=cell_runs,
        runs=runs,
        seeds=seeds,
        is_curve=True,
        warnings=warnings,
        _curves=curves,
        _monotone=steps.running_minimum,
    )
    if WEIGHT not in frame:
        return found
    # a point weighs as the evaluations behind it do on average: the same operators, without the minimum
    weight_E = frame[WEIGHT].to_numpy(float)
    return replace(found, weight=_normalised(replace(found, _monotone=False).log_losses(weight_E[None])[0]))


def _normalised(weight_P: Array) -> Array:
    """Weights of mean 1: their unit is of no account."""
    return np.asarray(weight_P / weight_P.mean())


def _final_losses(frame: pd.DataFrame, runs: list[str]) -> CurveSet:
    """A table of final losses: every row is a point."""
    return CurveSet(
        log_N=np.log(frame["n_params"].to_numpy(float)),
        log_D=np.log(frame["jets"].to_numpy(float)),
        log_C=np.log(frame["flops"].to_numpy(float)),
        cell=np.arange(len(frame)),
        cell_runs=[[row] for row in range(len(frame))],
        runs=runs,
        seeds=[str(seed) for seed in frame["seed"]],
        is_curve=False,
        warnings=[],
        _curves=[],
        _monotone=False,
        _rows=[f"row {row}" for row in frame["row"]] if "row" in frame else [],
        weight=_normalised(frame[WEIGHT].to_numpy(float)) if WEIGHT in frame else None,
    )


def _codes(values: NDArray[np.object_]) -> tuple[Index, list[str]]:
    names, codes = np.unique(values.astype(str), return_inverse=True)
    return codes, [str(name) for name in names]


def _curve(
    frame: pd.DataFrame, run_codes: Index, members: list[int], steps: CurveSteps, warnings: list[str]
) -> tuple[_Curve, str]:
    """Operators of one cell, and which points were cut as a plateau ("" for none)."""
    # the evaluations of each run, in order of steps
    step_E = frame["step"].to_numpy(float)
    rows = [np.flatnonzero(run_codes == run) for run in members]
    rows = [row[np.argsort(step_E[row], kind="stable")] for row in rows]
    members_E = np.concatenate(rows)
    schedule, warmup = (
        float(frame[name].to_numpy(float)[members_E].max()) if name in frame else 0.0
        for name in ("schedule", "warmup")
    )
    # Bins in steps, the same for all runs of the cell: K labels; without a width every step is its own bin.
    width = steps.bin * (schedule if schedule > 0 else float(step_E[members_E].max()))
    bins = [np.floor(step_E[row] / width) if width > 0 else step_E[row] for row in rows]
    labels = np.unique(np.concatenate(bins))
    log_D_E, log_C_E = (np.log(frame[name].to_numpy(float)) for name in ("jets", "flops"))
    # One linear operator a run takes its ln L to its bins and smooths them: (K, evaluations of the run). It
    # is made once, and serves the data and every replicate.
    operators, holds, log_D, log_C = [], [], [], []
    for row, bin_of in zip(rows, bins, strict=True):
        bin_T = np.searchsorted(labels, bin_of).astype(np.intp)
        mean, operator, filled = _operators(
            bin_T.tobytes(), len(labels), log_D_E[row].tobytes(), steps.smooth
        )
        holds.append(filled)
        operators.append(operator)
        log_D.append(np.where(holds[-1], mean @ log_D_E[row], np.nan))
        log_C.append(np.where(holds[-1], mean @ log_C_E[row], np.nan))
    log_D_K, log_C_K = np.nanmean(log_D, axis=0), np.nanmean(log_C, axis=0)
    curve = _Curve(rows, members, operators, np.stack(holds), log_D_K, log_C_K, np.arange(len(labels)))
    # The start is dropped by the last step of a bin: a bin that reaches beyond the warm-up stays whole.
    last_step = np.full(len(labels), -np.inf)
    for row, bin_of in zip(rows, bins, strict=True):
        np.maximum.at(last_step, np.searchsorted(labels, bin_of), step_E[row])
    drop = steps.drop if steps.drop >= 0 else warmup
    keep = np.flatnonzero(last_step > drop)
    if not len(keep):
        size = frame["n_params"].iloc[rows[0][0]]
        warnings.append(
            f"N = {size:.4g}: every evaluation lies in the first {drop:g} steps; only the last is used"
        )
        keep = np.array([len(labels) - 1])
    # A plateau is looked for in the mean over the seeds, without the running minimum, which would hide it.
    cut = ""
    if steps.cut_plateau:
        log_L = curve.apply(
            np.log(frame["loss"].to_numpy(float))[None], np.ones((1, run_codes.max() + 1)), False
        )[0]
        begin = plateau_end(log_D_K[keep], log_L[keep])
        if begin:
            ends = np.exp(log_D_K[keep[[0, begin - 1]]])
            cut = f"D {ends[0]:.4g} to {ends[1]:.4g}, {begin} of {len(keep)} points"
        keep = keep[begin:]
    chosen = keep[_spread(log_D_K[keep], steps.points)]
    return _Curve(rows, members, operators, np.stack(holds), log_D_K, log_C_K, chosen), cut


@lru_cache(maxsize=64)
def _operators(
    bin_of: bytes, bins: int, log_D: bytes, half_width: float
) -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
    """Of one run: its bin means, these smoothed, (bins, T) each, and which bins it fills.

    Made of the bytes of each evaluation's bin and ln D: all seeds, and all choices of a multiverse, share
    them.
    """
    mean, count = _bin_means(np.frombuffer(bin_of, dtype=np.intp), bins)
    holds = count > 0
    operator = _smoothed(mean, (mean @ np.frombuffer(log_D))[holds], holds, half_width)
    if np.prod(operator.shape) <= DENSE:
        return mean.toarray(), operator.toarray(), holds
    return mean, operator, holds


def _bin_means(bin_T: Index, bins: int) -> tuple[csr_array, Array]:
    """Operator (bins, T) that averages the evaluations of each bin, and how many each holds."""
    from scipy.sparse import csr_array

    count = np.bincount(bin_T, minlength=bins).astype(float)
    share = 1.0 / count[bin_T]
    return csr_array((share, (bin_T, np.arange(len(bin_T)))), shape=(bins, len(bin_T))), count


def _smoothed(mean: csr_array, log_D: Array, holds: NDArray[np.bool_], half_width: float) -> csr_array:
    """Smooth the bin means of one run over the bins that it fills."""
    from scipy.sparse import csr_array

    filled = np.flatnonzero(holds)
    spread = csr_array(
        (np.ones(len(filled)), (filled, np.arange(len(filled)))), shape=(len(holds), len(filled))
    )
    return csr_array(spread @ smoother(log_D, half_width) @ mean[filled])


def _spread(x_K: Array, count: int) -> Index:
    """At most `count` indices, evenly spread in `x_K`, the ends included; all of them for 0."""
    if count <= 0 or len(x_K) <= count:
        return np.arange(len(x_K))
    targets = np.linspace(x_K[0], x_K[-1], count)
    off_TK = np.abs(x_K[None, :] - targets[:, None])
    return np.unique(
        (off_TK <= off_TK.min(axis=1, keepdims=True) + TIE).argmax(axis=1)
    )  # the first of equal ones
