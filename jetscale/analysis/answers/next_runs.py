"""Which runs to train next: those that shrink the interval of one quantity most for their compute.

The quantity's variance is g' I^-1 g, with its gradient g by the parameters of the surface and the information
I of the runs, the sum over their points of the outer products of the derivatives of ln L (linearised Fisher
information). Its scale is set so that the runs there are give the variance that the replicates have; with
curves, whose points are correlated, it stands for what one run is worth. A further run adds its own outer
products. Runs are chosen one by one, each time the one that lowers the variance most for its compute (a
greedy design for one quantity: Fedorov 1972, *Theory of optimal experiments*), among sizes and lengths near
those that were trained and at most five seeds of each.

Shapes: Q parameters of the form, P points, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers import laws as sources
from jetscale.analysis.answers.laws import Law, Laws
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.settings import check_amounts
from jetscale.analysis.tables.variants import counterpart
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    from jetscale.analysis.answers.fit_result import FitResult

Array = NDArray[np.float64]

QUANTITIES = ("a", "difference", "N_star", "loss", "L_inf")
BEYOND = 10.0  # times the largest budget: where N_star and loss are asked for, unless C says otherwise
WIDER = 2.0  # factor of N and of D by which a candidate may exceed the largest run
AMOUNTS = 8  # of D among the candidates
MAX_SEEDS = 5  # of one size and length: what the form misses there does not average out
MAX_RUNS = 400
STEP = 1e-4  # of a parameter, in differences


@dataclass(frozen=True)
class Choice:
    """Runs of one size and length to train.

    Attributes
    ----------
    subset, N, D : what to train.
    seeds : how many of them.
    flops : of all these seeds.
    """

    subset: str
    N: float
    D: float
    seeds: int
    flops: float


@dataclass(frozen=True)
class NextRuns:
    """A design for one quantity.

    Attributes
    ----------
    quantity : in words.
    choices : what to train, the largest share of the budget first.
    sd_now, sd_then : standard deviation of the quantity (of its logarithm for N_star, loss and L_inf) with
        the runs there are, and with these besides.
    sd_even : the same where the budget buys further seeds of every run there is.
    even_flops, even_runs : compute and runs of that even grid which would give `sd_then`.
    flags : what to know.
    """

    quantity: str
    choices: list[Choice]
    sd_now: float
    sd_then: float
    sd_even: float
    even_flops: float
    even_runs: float
    flags: list[str] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """Runs of the design."""
        return sum(choice.seeds for choice in self.choices)

    @property
    def flops(self) -> float:
        """Compute of the design."""
        return sum(choice.flops for choice in self.choices)

    def __str__(self) -> str:
        lines = [
            f"{self.quantity}: standard deviation {self.sd_now:.3g} now, {self.sd_then:.3g} with these runs,",
            f"  {self.sd_even:.3g} if the same compute went to further seeds of every run there is",
        ]
        lines += [
            f"  {one.subset}: N = {one.N:.4g}, D = {one.D:.4g}, {one.seeds} seed{'s' * (one.seeds > 1)}"
            f" ({one.flops:.3g} FLOPs)"
            for one in self.choices
        ]
        lines.append(
            f"  {self.runs} runs, {self.flops:.3g} FLOPs; further seeds of every run would need"
            f" {self.even_runs:.3g} runs, {self.even_flops:.3g} FLOPs for the same"
        )
        return "\n".join(lines + [f"  flag: {flag}" for flag in self.flags])


def next_runs(
    fitted: FitResult | str | Path,
    quantity: str,
    budget: float,
    *,
    subset: str = "",
    reference: str = "scratch",
    C: float = 0.0,
) -> NextRuns:
    """Choose the runs that a budget should buy for one quantity.

    Parameters
    ----------
    fitted : a fit with replicates, or the folder it was saved to.
    quantity : a (exponent of N*), difference (of a from the reference's), N_star, loss (at the best N and D
        of C) or L_inf.
    budget : FLOPs of all runs together.
    subset : whose quantity; empty where there is only one that it can be.
    reference : subset of the difference.
    C : budget of N_star and loss; 0: ten times the largest that was trained.

    Raises
    ------
    UsageError
        An unknown quantity or subset, no replicates, or a budget below the cheapest run.
    """
    check_amounts(budget=budget, C=C)
    laws = sources.of(fitted)
    if quantity not in QUANTITIES:
        raise UsageError(f"runs_for={quantity!r}: choose one of {', '.join(QUANTITIES)}")
    parts, words = _asked(laws, quantity, subset, reference, C)
    plans = [_Part.of(law, sign, value) for law, sign, value in parts]
    now = float(sum(part.variance() for part in plans))
    left, counts = budget, np.zeros(sum(len(part.cost) for part in plans), dtype=int)
    owner = np.repeat(np.arange(len(plans)), [len(part.cost) for part in plans])
    first = np.concatenate([[0], np.cumsum([len(part.cost) for part in plans])])
    cost = np.concatenate([part.cost for part in plans])
    if budget < cost.min():
        raise UsageError(
            f"budget={budget:.4g} is below the cheapest run that could help, {cost.min():.4g} FLOPs"
        )
    for _ in range(MAX_RUNS):
        gain = np.concatenate([part.gains() for part in plans]) / cost
        gain[(cost > left) | (counts >= MAX_SEEDS)] = -np.inf
        best = int(gain.argmax())
        if not gain[best] > 0:
            break
        part = plans[owner[best]]
        part.add(best - int(first[owner[best]]))
        counts[best] += 1
        left -= cost[best]
    then = float(sum(part.variance() for part in plans))
    choices = [
        Choice(
            plans[owner[k]].law.name,
            float(np.exp(plans[owner[k]].log_N[k - first[owner[k]]])),
            float(np.exp(plans[owner[k]].log_D[k - first[owner[k]]])),
            int(counts[k]),
            float(counts[k] * cost[k]),
        )
        for k in np.flatnonzero(counts)
    ]
    return _result(
        words, plans, sorted(choices, key=lambda one: -one.flops), now, then, counts.sum() >= MAX_RUNS
    )


def _result(
    words: str, plans: list[_Part], choices: list[Choice], now: float, then: float, capped: bool
) -> NextRuns:
    """Compare with an even grid: k further seeds of every run there is divide the variance by 1 + k."""
    spent = sum(one.flops for one in choices)
    of_grid, runs = sum(part.spent for part in plans), sum(part.runs for part in plans)
    k = now / then - 1
    flags = ["linearised, and only as good as the form of the law: runs far out rest on it most"]
    if capped:
        flags.append(f"stopped after {MAX_RUNS} runs: the rest of the budget is not used")
    return NextRuns(
        quantity=words,
        choices=choices,
        sd_now=float(np.sqrt(now)),
        sd_then=float(np.sqrt(then)),
        sd_even=float(np.sqrt(now / (1 + spent / of_grid))),
        even_flops=k * of_grid,
        even_runs=k * runs,
        flags=flags,
    )


Value = Callable[[Surfaces], Array]


def _asked(
    laws: Laws, quantity: str, subset: str, reference: str, C: float
) -> tuple[list[tuple[Law, float, Value]], str]:
    """The laws that the quantity is of, each with its sign and how it follows from a surface; in words."""
    sources.check_subset(laws, subset)
    names = [name for name in laws.laws if quantity != "difference" or name != reference]
    chosen = [name for name in names if subset in ("", name)]
    if len(chosen) != 1:
        raise UsageError(
            f"runs_for={quantity} is asked of one subset: give subset=, one of {', '.join(names) or 'none'}"
        )
    law = laws.laws[chosen[0]]
    log_C = float(np.log(C or BEYOND * law.C_range[1]))
    if quantity == "difference":
        other = laws.laws.get(counterpart(law.name, laws.laws, reference) or reference)
        if other is None or other is law:
            raise UsageError(
                f"runs_for=difference: no subset {reference!r} to compare {law.name} with; reference="
            )
        return (
            [(law, 1.0, _exponent(law)), (other, -1.0, _exponent(other))],
            f"a of {law.name} less that of {other.name}",
        )
    if quantity == "a":
        return [(law, 1.0, _exponent(law))], f"a of {law.name}"
    if quantity == "L_inf":
        return [(law, 1.0, lambda s: s.log_floor)], f"ln L_inf of {law.name}"
    if quantity == "N_star":
        return [(law, 1.0, lambda s: law.cost.optimum(s, np.array([log_C]))[0][:, 0])], (
            f"ln N* of {law.name} at C = {np.exp(log_C):.3g}"
        )
    return [(law, 1.0, lambda s: law.cost.optimal_log_loss(s, np.array([log_C]))[:, 0])], (
        f"ln loss of {law.name} at C = {np.exp(log_C):.3g}"
    )


def _exponent(law: Law) -> Value:
    low, high = np.log(law.C_range)
    return lambda surfaces: law.cost.exponents(surfaces, float(low), float(high))[0]


@dataclass
class _Part:
    """One subset of the design.

    Attributes
    ----------
    law : its law.
    slope : (Q,) gradient of the quantity.
    information : (Q, Q) of all runs so far, in units of `scale`.
    scale : variance of a point of information 1.
    log_N, log_D, cost : (K,) of the candidates.
    added : (K, Q, Q) information of each.
    spent, runs : compute and number of the runs there are.
    """

    law: Law
    slope: Array
    information: Array
    scale: float
    log_N: Array
    log_D: Array
    cost: Array
    added: Array
    spent: float
    runs: int

    @classmethod
    def of(cls, law: Law, sign: float, value: Value) -> _Part:
        """Information of the runs there are, and of every candidate."""
        if law.replicates is None:
            raise UsageError(
                f"{law.name}: no replicates to set the scale of its errors by (uncertainty.method=none)"
            )
        x, y = law.row_N, law.row_D
        centre = (float(x.mean()), float(y.mean()))
        form, theta = law.surface.form, law.surface.form.moved(law.surface.theta, *centre)
        free = form.constraint(form.reduced(theta), np.array([0]))[1][0]

        def outer(log_N: Array, log_D: Array) -> Array:
            J = form.derivatives(theta, log_N - centre[0], log_D - centre[1])[1][0].T @ free
            return np.asarray(J.T @ J)

        slope = sign * _slope(form.reduced(theta)[0], lambda phi: value(_surfaces(law, phi, centre)))
        information = outer(x, y)
        linear = float(slope @ np.linalg.solve(information, slope))
        spread = value(law.replicates)
        spread = spread[np.isfinite(spread)]
        scale = float(spread.var(ddof=1)) / linear
        # a further run: one point, or a curve with as many points as the runs have, spaced as theirs
        runs, of_row = np.unique(law.row_run, return_inverse=True)
        longest = y[of_row == np.bincount(of_row).argmax()]
        offsets = longest - longest.max()
        log_N, log_D = _candidates(x, np.array([y[of_row == run].max() for run in range(len(runs))]))
        added = np.stack([outer(n + 0 * offsets, d + offsets) for n, d in zip(log_N, log_D, strict=True)])
        ends = np.array([[x[of_row == run][0], y[of_row == run].max()] for run in range(len(runs))])
        spent = float(np.exp(law.cost.log_flops(ends[:, 0], ends[:, 1])).sum())
        cost = np.exp(law.cost.log_flops(log_N, log_D))
        return cls(law, slope, information, scale, log_N, log_D, cost, added, spent, len(runs))

    def variance(self) -> float:
        """Of the quantity's part."""
        return self.scale * float(self.slope @ np.linalg.solve(self.information, self.slope))

    def gains(self) -> Array:
        """Fall of the variance by each candidate, (K,)."""
        inverse = np.linalg.inv(self.information[None] + self.added)
        then = np.einsum("q,kqr,r->k", self.slope, inverse, self.slope)
        return np.asarray(self.variance() - self.scale * then)

    def add(self, candidate: int) -> None:
        """Train it."""
        self.information = self.information + self.added[candidate]


def _surfaces(law: Law, phi_RF: Array, centre: tuple[float, float]) -> Surfaces:
    form = law.surface.form
    theta, _, _ = form.constraint(phi_RF, np.arange(len(phi_RF)))
    return Surfaces(form.moved(theta, -centre[0], -centre[1]), form)


def _slope(phi: Array, value: Callable[[Array], Array]) -> Array:
    """Gradient by central differences."""
    steps = STEP * np.eye(len(phi))
    up, down = value(phi + steps), value(phi - steps)
    return np.asarray((up - down) / (2 * STEP))


def _candidates(row_N: Array, ends_D: Array) -> tuple[Array, Array]:
    """Sizes and lengths that were trained, and one beyond the largest and the longest; (K,) each."""
    sizes = np.unique(np.round(row_N, 6))
    sizes = np.append(sizes, sizes[-1] + np.log(WIDER))
    low, high = ends_D.min(), ends_D.max()
    lengths = np.unique(np.round(ends_D, 6))
    if len(lengths) > AMOUNTS or high - low < np.log(WIDER):
        lengths = np.linspace(min(low, high - np.log(4.0)), high, AMOUNTS)
    lengths = np.append(lengths, high + np.log(WIDER))
    log_N, log_D = np.meshgrid(sizes, lengths)
    return log_N.ravel(), log_D.ravel()
