"""What to do with a total budget: `plan_total` and the questions it answers.

It stands on the law of transfer L(N, D_pre, D) = E + A/N^alpha + B/(D + k D_pre^p N^q)^beta, fitted to runs
from scratch and to runs of every composition (`transfer_laws` in results.json), and on its replicates
(joint.parquet): every answer has the interval that they give, differences between compositions from paired
replicates.

Shapes: R replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers import saved_fit
from jetscale.analysis.answers.total_budget import (
    Best,
    EffectiveData,
    Marginal,
    Price,
    best_split,
    marginal,
    pays_until,
)
from jetscale.analysis.answers.transfer_laws import Ranges, Transfer, transfer_of
from jetscale.analysis.fitting.numbers import Quantity, Scale, summarise
from jetscale.analysis.settings import check_amounts
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    from jetscale.analysis.answers.fit_result import FitResult

Array = NDArray[np.float64]

MILLION = 1e6
SURE = 0.95  # share of the replicates that makes an answer sure
NEAR = 0.05  # decades outside the runs that are no extrapolation
TRIED = (1.0, 1e15)  # jets of pretraining between which it is asked where it stops paying


@dataclass(frozen=True)
class Split:
    """What one composition (or scratch) should buy with the budget.

    Attributes
    ----------
    name : of the composition; "scratch".
    N, D_pre, D, loss : the optimum; D_pre is None from scratch.
    shares : of the budget, for simulation, pretraining and fine-tuning.
    against_scratch : loss over that of scratch at the same budget; None for scratch.
    flags : extrapolation, corners.
    """

    name: str
    N: Quantity
    D_pre: Quantity | None
    D: Quantity
    loss: Quantity
    shares: dict[str, Quantity]
    against_scratch: Quantity | None
    flags: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = ", ".join(f"{100 * (share.value or 0):.3g}% {name}" for name, share in self.shares.items())
        jets = "" if self.D_pre is None else f"  pretraining jets = {self.D_pre}\n"
        lines = [
            f"{self.name}: N = {self.N}\n{jets}  fine-tuning jets = {self.D}",
            f"  loss = {self.loss}",
            f"  of the budget: {parts}",
        ]
        if self.against_scratch is not None:
            lines.append(f"  loss over that of scratch at the same budget: {self.against_scratch}")
        return "\n".join(lines + [f"  flag: {flag}" for flag in self.flags])


@dataclass(frozen=True)
class NextBuy:
    """What a little more money should buy, at the largest run of a composition.

    Attributes
    ----------
    at : N, D_pre and D of it.
    per_flop : fall of the loss for each further FLOP, by what it buys.
    per_million_jets : fall of the loss for a million more jets, pretraining and fine-tuning.
    answer : in words; `share` : of the replicates that agree.
    stops_paying : D_pre there, beyond which a FLOP of fine-tuning gains more.
    """

    at: dict[str, float]
    per_flop: dict[str, Quantity]
    per_million_jets: dict[str, Quantity]
    answer: str
    share: float | None
    stops_paying: Quantity
    stops_in_words: str


@dataclass(frozen=True)
class TotalPlan:
    """Answers for a total budget.

    Attributes
    ----------
    budget, price : FLOPs, and what jets cost.
    splits : scratch and every composition, the lowest loss first.
    which : which composition, in words; differences : ln loss of each pair, from paired replicates.
    next : what to buy next, by composition.
    """

    budget: float
    price: Price
    splits: dict[str, Split]
    which: str
    differences: dict[str, Quantity]
    next: dict[str, NextBuy]

    def __str__(self) -> str:
        s = self.price
        lines = [
            f"total budget {self.budget:.4g} FLOPs",
            f"  simulating a jet costs {s.simulate:.3g} FLOPs; training on it costs {s.pretrain:.4g}",
            f"  a parameter in pretraining and {s.finetune:.4g} in fine-tuning",
            *(str(split) for split in self.splits.values()),
            f"Which composition? {self.which}",
        ]
        for name, found in self.next.items():
            where = ", ".join(f"{key} = {value:.3g}" for key, value in found.at.items())
            gains = ", ".join(f"{key} {quantity}" for key, quantity in found.per_million_jets.items())
            lines += [
                f"What to buy next for {name} (at {where})? {found.answer}",
                f"  fall of the loss by a million more jets: {gains}",
                f"When does more pretraining on {name} stop paying? {found.stops_in_words}",
            ]
        return "\n".join(lines)


def plan_total(
    fitted: FitResult | str | Path,
    budget: float,
    *,
    simulate: float = 0.0,
    pretrain: float = 0.0,
    finetune: float = 0.0,
    subset: str = "",
) -> TotalPlan:
    """Split a total budget between simulation, pretraining and fine-tuning.

    Parameters
    ----------
    fitted : a fit with laws of transfer, or the folder it was saved to.
    budget : FLOPs.
    simulate : FLOPs that a simulated jet is worth, of either phase.
    pretrain, finetune : FLOPs of training on a jet, for each parameter; 0: as in the table.
    subset : only this composition (and scratch); empty: all.

    Raises
    ------
    UsageError
        No law of transfer with a power of D_pre in these results; unknown subset.
    """
    check_amounts(total_budget=budget, simulate=simulate, pretrain=pretrain, finetune=finetune)
    transfer = transfer_of(saved_fit.of(fitted))
    price = Price(simulate, pretrain or transfer.price, finetune or transfer.price)
    if subset and subset not in transfer.laws:
        raise UsageError(f"no composition {subset!r} in these laws; there are {', '.join(transfer.laws)}")
    return plan_of(transfer, budget, price, [name for name in transfer.laws if subset in ("", name)])


def total_entry(result: FitResult) -> dict[str, Any]:
    """Entry ``total_budget`` in results.json: what the largest budget of the runs should buy in total.

    Parameters
    ----------
    result : a fit with laws of transfer.

    Returns
    -------
    budget (FLOPs, pretraining included, simulation free), splits by composition and for scratch, which
    (composition, in words); or refused: why no total budget can be planned.
    """
    try:
        transfer = transfer_of(saved_fit.of_result(result))
    except UsageError as error:
        return {"refused": str(error).partition(": ")[2]}
    price = Price(0.0, transfer.price, transfer.price)
    plan = plan_of(transfer, transfer.most, price, list(transfer.laws))
    splits = {
        name: {
            "N": split.N,
            "D_pre": split.D_pre,
            "D": split.D,
            "loss": split.loss,
            "against_scratch": split.against_scratch,
            "flags": split.flags,
        }
        for name, split in plan.splits.items()
    }
    return {"budget": transfer.most, "splits": splits, "which": plan.which}


def plan_of(transfer: Transfer, budget: float, price: Price, names: Sequence[str]) -> TotalPlan:
    """Split a total budget by laws that are there already.

    Parameters
    ----------
    transfer : laws of scratch and of the compositions.
    budget : FLOPs.
    price : of jets.
    names : compositions that are planned with, beside scratch.
    """
    found = {"scratch": _bests(transfer.scratch, budget, price, pretraining=False)}
    found |= {name: _bests(transfer.laws[name], budget, price, pretraining=True) for name in names}
    ask = _Asked(transfer.method, transfer.dof)
    splits = {name: _split(name, found, budget, price, transfer, ask) for name in found}
    order = sorted(splits, key=lambda name: splits[name].loss.value or np.inf)
    differences = {
        f"{one} - {other}": ask.of(found[one], found[other], lambda a, b: a.log_loss - b.log_loss)
        for at, one in enumerate(order)
        for other in order[at + 1 :]
    }
    return TotalPlan(
        budget,
        price,
        {name: splits[name] for name in order},
        _which(order, differences),
        differences,
        {name: _next(name, transfer, price, ask) for name in names},
    )


Pair = tuple[Any, Any]  # of the data (one replicate), and of the replicates or None


@dataclass(frozen=True)
class _Asked:
    """Quantities of values of the data and of the replicates."""

    method: str
    dof: float

    def quantity(self, value: Array, draws: Array | None, scale: Scale = "linear") -> Quantity:
        return summarise(float(value[0]), draws, self.method, self.dof, scale)

    def of(self, one: Pair, other: Pair, what: Callable[[Any, Any], Array]) -> Quantity:
        """From pairs of one thing and another, their replicates paired."""
        draws = None if one[1] is None or other[1] is None else what(one[1], other[1])
        return self.quantity(what(one[0], other[0]), draws)


def _bests(
    laws: tuple[EffectiveData, EffectiveData | None], budget: float, price: Price, *, pretraining: bool
) -> tuple[Best, Best | None]:
    point, replicates = (
        None
        if law is None
        else best_split(law, budget, price, pretraining=pretraining, replicates=len(law.theta))
        for law in laws
    )
    assert point is not None
    return point, replicates


def _split(
    name: str,
    found: Mapping[str, tuple[Best, Best | None]],
    budget: float,
    price: Price,
    transfer: Transfer,
    ask: _Asked,
) -> Split:
    pair = found[name]
    best, draws = pair

    def quantity(of: Callable[[Best], Array], scale: Scale) -> Quantity:
        return ask.quantity(of(best), None if draws is None else of(draws), scale)

    spent: dict[str, Callable[[Best], Array]] = {
        "to simulate": lambda b: price.simulate * (b.D_pre + b.D) / budget,
        "to pretrain": lambda b: price.pretrain * b.N * b.D_pre / budget,
        "to fine-tune": lambda b: price.finetune * b.N * b.D / budget,
    }
    pretrained = name != "scratch"
    D_pre = None
    if pretrained:  # some replicates may want none at all, which has no logarithm
        drawn = best.D_pre if draws is None else draws.D_pre
        D_pre = quantity(lambda b: b.D_pre, "log" if best.D_pre[0] > 0 and (drawn > 0).all() else "linear")
    return Split(
        name=name,
        N=quantity(lambda b: b.N, "log"),
        D_pre=D_pre,
        D=quantity(lambda b: b.D, "log"),
        loss=quantity(lambda b: np.exp(b.log_loss), "log"),
        shares={
            what: quantity(of, "linear") for what, of in spent.items() if pretrained or "pre" not in what
        },
        against_scratch=ask.of(pair, found["scratch"], lambda a, b: np.exp(a.log_loss - b.log_loss))
        if pretrained
        else None,
        flags=_flags(name, best, transfer),
    )


def _flags(name: str, best: Best, transfer: Transfer) -> list[str]:
    everywhere = transfer.ranges.values()
    ranges = transfer.ranges.get(name) or Ranges(*(_all(everywhere, axis) for axis in ("N", "D_pre", "D")))
    flags = []
    axes = [("N", best.N, ranges.N), ("D", best.D, ranges.D), ("D_pre", best.D_pre, ranges.D_pre)]
    for symbol, value, (low, high) in axes[: 2 if name == "scratch" else 3]:
        beyond = float(np.log10(max(value[0], 1e-300) / high))
        below = float(np.log10(low / max(value[0], 1e-300)))
        if beyond > NEAR:
            flags.append(f"{symbol} is extrapolated by {beyond:.1f} decades (largest fitted: {high:.3g})")
        elif below > NEAR and value[0] > 0:
            flags.append(f"{symbol} is extrapolated by {below:.1f} decades (smallest fitted: {low:.3g})")
    if name != "scratch" and best.D_pre[0] == 0:
        flags.append("no pretraining at all is best: it does not pay at this budget")
    return flags


def _all(ranges: Iterable[Ranges], axis: str) -> tuple[float, float]:
    """Reach of all compositions on one axis."""
    ends = [end for one in ranges for end in getattr(one, axis)]
    return min(ends), max(ends)


def _which(order: Sequence[str], differences: Mapping[str, Quantity]) -> str:
    """Which composition has the lowest loss, and whether the second one is surely worse."""
    if len(order) < 2:
        return f"there is only {order[0]}"
    first, second = order[0], order[1]
    difference = differences[f"{first} - {second}"]
    percent = 100 * float(np.expm1(difference.value or 0.0))
    if difference.ci95 is None:
        return f"{first} is lowest, {-percent:.2g}% below {second}; without replicates no more can be said"
    low, high = (100 * float(np.expm1(end)) for end in difference.ci95)
    told = f"{percent:+.2g}% [{low:+.2g}%, {high:+.2g}%] against {second}"
    if high < 0:
        return f"{first}: its loss is lowest, {told}"
    return f"not distinguishable: {first} is lowest, but {told}"


class _Largest(NamedTuple):
    """The largest run of a composition."""

    N: float
    D_pre: float
    D: float


def _next(name: str, transfer: Transfer, price: Price, ask: _Asked) -> NextBuy:
    """Ask at the largest run of one composition."""
    laws, reach = transfer.laws[name], transfer.ranges[name]
    at = _Largest(reach.N[1], reach.D_pre[1], reach.D[1])

    def gains(law: EffectiveData) -> Marginal:
        N, D_pre, D = (np.full(len(law.theta), value) for value in (at.N, at.D_pre, at.D))
        return marginal(law, N, D_pre, D, price)

    def until(law: EffectiveData) -> Array:
        R = len(law.theta)
        ends = (float(np.log(TRIED[0])), float(np.log(TRIED[1])))
        return pays_until(law, np.full(R, at.N), np.full(R, at.D), price, ends)

    point, draws = (None if law is None else gains(law) for law in laws)
    assert point is not None

    def quantity(key: str, factor: float = 1.0) -> Quantity:
        drawn = None if draws is None else factor * getattr(draws, key)
        return ask.quantity(factor * getattr(point, key), drawn)

    buys = {"model": "a larger model", "pretrain": "more pretraining", "finetune": "more fine-tuning"}
    best = max(buys, key=lambda key: float(getattr(point, key)[0]))
    share = None
    if draws is not None:
        values = np.stack([getattr(draws, key) for key in buys])
        share = float((values.argmax(axis=0) == list(buys).index(best)).mean())
    told = "" if share is None else f", in {100 * share:.3g}% of the replicates"
    sure = "" if share is None or share >= SURE else "; not sure: "
    others = " and ".join(buys[key] for key in buys if key != best) if sure else ""
    stops, drawn = (None if law is None else until(law) for law in laws)
    assert stops is not None
    log_scale: Scale = "log" if drawn is None or (np.isfinite(drawn) & (drawn > 0)).all() else "linear"
    stops_paying = ask.quantity(stops, drawn, log_scale)
    return NextBuy(
        at={"N": at.N, "D_pre": at.D_pre, "D": at.D},
        per_flop={buys[key]: quantity(key) for key in buys},
        per_million_jets={
            "pretraining": quantity("pretrain_jet", MILLION),
            "fine-tuning": quantity("finetune_jet", MILLION),
        },
        answer=f"{buys[best]}{told}{sure}{others and f'{others} may be as good'}",
        share=share,
        stops_paying=stops_paying,
        stops_in_words=_stops(float(stops[0]), stops_paying, at),
    )


def _stops(value: float, found: Quantity, at: _Largest) -> str:
    if value == 0:
        return (
            f"at once: at N = {at.N:.3g} and D = {at.D:.3g} a FLOP of fine-tuning gains more from the start"
        )
    if not np.isfinite(value):
        return f"not up to {TRIED[1]:.0g} jets (an extrapolation far beyond the runs)"
    beyond = " (beyond what was pretrained)" if value > at.D_pre else ""
    return f"at {found} jets{beyond}, for N = {at.N:.3g} and D = {at.D:.3g}"
