"""What to train for a budget, a loss or so many GPU-hours: `plan`, and the plan it returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers import allocation
from jetscale.analysis.answers import laws as sources
from jetscale.analysis.answers.laws import Law, Laws
from jetscale.analysis.fitting.numbers import Quantity, summarise
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.settings import check_amounts
from jetscale.analysis.tables.variants import REFERENCE, counterpart, split_name
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    from jetscale.analysis.answers.fit_result import FitResult

Array = NDArray[np.float64]

NEAR_BEST = 0.01  # of the loss: the range of N that hardly matters


@dataclass(frozen=True)
class Allocation:
    """What one subset should train.

    Attributes
    ----------
    compute : FLOPs of fine-tuning (with an interval where they were found from a loss).
    N, D, D_over_N, loss : the optimum.
    N_near_best : smallest and largest N within 1% of that loss, at the same compute.
    width, width_N : nearest buildable width and its N; None where the widths of the runs are not known.
    tenfold : factors of N, D and loss when the budget grows tenfold.
    multiplier : compute the reference subset would need for the same loss, over this one's.
    pretrain_flops, total_flops : 6 N 40 a pretraining jet, and the sum.
    simulate_cpu_hours : to simulate all jets, pretraining included; None where not asked for.
    flags : extrapolation, optimum outside the sizes trained, ...
    """

    subset: str
    compute: Quantity
    N: Quantity
    D: Quantity
    D_over_N: Quantity
    loss: Quantity
    N_near_best: tuple[float, float]
    width: int | None
    width_N: float | None
    tenfold: dict[str, Quantity]
    multiplier: Quantity | None
    pretrain_flops: float
    total_flops: float
    simulate_cpu_hours: float | None
    flags: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        (low, high), tenfold = self.N_near_best, self.tenfold
        lines = [
            f"{self.subset}: C = {self.compute} FLOPs",
            f"  N* = {self.N}   (within 1% of the best loss: {low:.3g} to {high:.3g})",
            f"  D* = {self.D}   D/N = {self.D_over_N}",
            f"  loss = {self.loss}",
            f"  ten times the budget: N x {tenfold['N']}, D x {tenfold['D']}, loss x {tenfold['loss']}",
        ]
        if self.width is not None:
            lines.append(f"  nearest width: dim = {self.width} (N = {self.width_N:,.0f})")
        if self.multiplier is not None:
            lines.append(f"  compute the reference needs for this loss: x {self.multiplier}")
        if self.pretrain_flops:
            lines.append(f"  pretraining: {self.pretrain_flops:.3g} FLOPs, total {self.total_flops:.3g}")
        if self.simulate_cpu_hours is not None:
            lines.append(f"  simulation: {self.simulate_cpu_hours:.3g} CPU hours")
        return "\n".join(lines + [f"  flag: {flag}" for flag in self.flags])


@dataclass(frozen=True)
class Plan:
    """Allocations by subset; `missing` says why a subset has none."""

    allocations: dict[str, Allocation]
    missing: dict[str, str]

    def __str__(self) -> str:
        lines = [str(allocation) for allocation in self.allocations.values()]
        return "\n".join(lines + [f"{name}: no plan ({why})" for name, why in self.missing.items()])

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def plan(
    fitted: FitResult | str | Path,
    budget: float = 0.0,
    *,
    loss: float = 0.0,
    gpu_hours: float = 0.0,
    rate: float = 0.0,
    subset: str = "",
    reference: str = "scratch",
    simulate_seconds: float = 0.0,
) -> Plan:
    """Allocate a budget, given as FLOPs, as a loss to reach or as GPU-hours; parameters as in `Command`.

    Raises
    ------
    UsageError
        Not exactly one of budget, loss and gpu_hours, or no number from 0; a loss that no subset reaches; no
        measured rate; unknown subset or reference; no results.
    """
    check_amounts(budget=budget, loss=loss, gpu_hours=gpu_hours, rate=rate, simulate_seconds=simulate_seconds)
    laws = sources.of(fitted)
    if sum(value > 0 for value in (budget, loss, gpu_hours)) != 1:
        raise UsageError("give exactly one of budget=FLOPs, loss=VALUE, gpu_hours=HOURS")
    sources.check_subset(laws, subset)
    _check_reference(laws, reference)
    chosen = {name: law for name, law in laws.laws.items() if subset in ("", name)}
    below = {name: _below_floor(law, loss) for name, law in chosen.items() if _below_floor(law, loss)}
    if below and len(below) == len(chosen):
        raise UsageError("; ".join(f"{name}: {why}" for name, why in below.items()))
    allocations = {}
    for name, law in chosen.items():
        if name not in below:
            flops = budget or (gpu_hours * 3600 * _rate(law, rate) if gpu_hours else 0.0)
            allocations[name] = allocate(law, laws, flops, loss, reference, simulate_seconds)
    missing = {name: why for name, why in laws.missing.items() if subset in ("", name)}
    return Plan(allocations, missing | below)


def _check_reference(laws: Laws, reference: str) -> None:
    """Refuse a reference that is no subset; the default one need not be there."""
    known = [*laws.laws, *laws.missing]
    if reference != REFERENCE and reference not in (*known, *(split_name(name)[0] for name in known)):
        raise UsageError(f"reference={reference}: no such subset; there are {', '.join(known)}")


def _below_floor(law: Law, loss: float) -> str:
    """Why no compute reaches the loss that is asked for; empty where some does, or none is asked for."""
    floor = float(np.exp(law.surface.log_floor[0]))
    return f"loss {loss:g} is not above the fitted floor L_inf = {floor:.4g}" if 0 < loss <= floor else ""


def _rate(law: Law, rate: float) -> float:
    if rate > 0:
        return rate
    if not math.isfinite(law.rate):
        raise UsageError(f"{law.name}: its runs carry no measured rate; give rate=FLOP/s")
    return law.rate


def allocate(
    law: Law, laws: Laws, flops: float, loss: float, reference: str, simulate_seconds: float
) -> Allocation:
    """Plan one subset for `flops`, or for `loss` where that is positive.

    Parameters
    ----------
    law, laws : of this subset, and of all.
    flops : budget; not used where `loss` is positive.
    loss : to be reached, nats, above the law's floor; 0: the budget counts.
    reference : subset that the multiplier is given against.
    simulate_seconds : CPU seconds a jet; 0: not counted.
    """
    cost = law.cost

    def quantity(of: Callable[[Surfaces], Array]) -> Quantity:
        value = float(of(law.surface)[0])
        draws = None if law.replicates is None else np.exp(of(law.replicates))
        return summarise(float(np.exp(value)), draws, law.method, law.dof, "log", laws.levels)

    def log_budget(surfaces: Surfaces) -> Array:
        if loss > 0:
            return allocation.compute_for_loss(surfaces, loss, cost)
        return np.full(len(surfaces.theta), np.log(flops))

    log_C = float(log_budget(law.surface)[0])
    point = np.array([log_C])

    def at(surfaces: Surfaces, axis: int, more: float = 0.0) -> Array:
        return cost.optimum(surfaces, point + more)[axis][:, 0]

    def best(surfaces: Surfaces, more: float = 0.0) -> Array:
        return cost.optimal_log_loss(surfaces, point + more)[:, 0]

    ten = float(np.log(10))
    log_N, log_D = float(at(law.surface, 0)[0]), float(at(law.surface, 1)[0])
    width = allocation.nearest_width(log_N, law.dims, law.sizes)
    small, large = allocation.size_range(law.surface, log_C, cost, NEAR_BEST)
    pretrain = 0.0
    if law.pretrain_jets:
        pretrain = float(np.exp(cost.log_flops(np.array(log_N), np.array(np.log(law.pretrain_jets)))))
    return Allocation(
        subset=law.name,
        compute=quantity(log_budget),
        N=quantity(lambda s: at(s, 0)),
        D=quantity(lambda s: at(s, 1)),
        D_over_N=quantity(lambda s: at(s, 1) - at(s, 0)),
        loss=quantity(best),
        N_near_best=(float(np.exp(small[0])), float(np.exp(large[0]))),
        width=None if width is None else width[0],
        width_N=None if width is None else width[1],
        tenfold={
            "N": quantity(lambda s: at(s, 0, ten) - at(s, 0)),
            "D": quantity(lambda s: at(s, 1, ten) - at(s, 1)),
            "loss": quantity(lambda s: best(s, ten) - best(s)),
        },
        multiplier=_multiplier(law, laws, reference, log_C),
        pretrain_flops=pretrain,
        total_flops=float(np.exp(log_C)) + pretrain,
        simulate_cpu_hours=(np.exp(log_D) + law.pretrain_jets) * simulate_seconds / 3600
        if simulate_seconds
        else None,
        flags=_flags(law, laws, log_C, log_N, log_D) + _out_of_reach(law, loss),
    )


def _multiplier(law: Law, laws: Laws, reference: str, log_C: float) -> Quantity | None:
    """From paired replicates: both subsets' share their draws."""
    other = laws.laws.get(counterpart(law.name, laws.laws, reference) or reference)
    if other is None or other.name == law.name:
        return None
    value = float(allocation.compute_multiplier(law.surface, law.cost, other.surface, other.cost, log_C)[0])
    if not np.isfinite(value):
        return Quantity(None)  # below the reference's floor: no compute would do
    draws = None
    if law.replicates is not None and other.replicates is not None and law.method == other.method:
        draws = np.exp(
            allocation.compute_multiplier(law.replicates, law.cost, other.replicates, other.cost, log_C)
        )
    return summarise(float(np.exp(value)), draws, law.method, min(law.dof, other.dof), "log", laws.levels)


def _out_of_reach(law: Law, loss: float) -> list[str]:
    """Say how often the data allow a floor above the loss that is asked for."""
    if not loss or law.replicates is None:
        return []
    above = float((law.replicates.log_floor >= np.log(loss)).mean())
    return [f"in {100 * above:.2g}% of the replicates the floor L_inf lies above this loss"] if above else []


def _flags(law: Law, laws: Laws, log_C: float, log_N: float, log_D: float) -> list[str]:
    flags = [f"C = {law.cost.k:.4g} N D is assumed: {law.cost.problem}"] if law.cost.problem else []
    beyond = (log_C - np.log(law.C_range[1])) / np.log(10)
    below = (np.log(law.C_range[0]) - log_C) / np.log(10)
    if max(beyond, below) > 0.05:
        side = "above the largest" if beyond > below else "below the smallest"
        flags.append(f"extrapolated by {max(beyond, below):.1f} decades of compute ({side} budget fitted)")
    for symbol, value, (low, high) in (("N*", log_N, law.N_range), ("D*", log_D, law.D_range)):
        if not np.log(low) <= value <= np.log(high):
            unit = "parameters" if symbol == "N*" else f"{laws.sample}s"
            text = f"{symbol} lies outside what was trained ({low:.3g} to {high:.3g} {unit})"
            flags.append(f"no interior optimum: {text}; a projection, no run near this scale")
    return flags
