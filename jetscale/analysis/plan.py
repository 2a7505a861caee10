"""`python -m jetscale.analysis.plan`: what to train for a budget, a loss or so many GPU-hours.

The name ``jetscale.analysis.plan`` is two things: this command, and the function that a notebook calls. They
are one object: the module, which can be called as the function (`jetscale.analysis.answers.planning.plan`).
So ``from jetscale.analysis import plan`` gives the same, whatever was imported before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Annotated

from jetscale.analysis.answers.next_runs import QUANTITIES, NextRuns, next_runs
from jetscale.analysis.answers.planning import Plan, plan
from jetscale.analysis.answers.prediction import LEVELS, Predictions, predict_loss
from jetscale.analysis.answers.total_plan import TotalPlan, plan_total
from jetscale.analysis.settings import AMOUNT, LEVEL
from jetscale.common.cli import parse, run
from jetscale.common.fields import OneOf
from jetscale.common.usage import UsageError

PROGRAM = "python -m jetscale.analysis.plan"


@dataclass
class Prices:
    """What jets cost.

    Attributes
    ----------
    simulate : FLOPs that simulating a jet is worth; 0: simulation is free.
    pretrain : FLOPs of pretraining on a jet, for each parameter; 0: as in the table.
    finetune : FLOPs of fine-tuning on a jet, for each parameter; 0: as in the table.
    """

    simulate: Annotated[float, AMOUNT] = 0.0
    pretrain: Annotated[float, AMOUNT] = 0.0
    finetune: Annotated[float, AMOUNT] = 0.0


@dataclass
class Command:
    """Compute-optimal allocation from a saved fit, or (with N and D) the loss that a new run would have.

    Attributes
    ----------
    results : folder that `python -m jetscale.analysis` wrote.
    budget : fine-tuning compute in FLOPs, 6 N 40 a jet for jets; for tables as their C, or 6 N D without one.
    gpu_hours : budget as hours of a device, at `rate`.
    rate : FLOP/s in the same count; 0: the median measured in the runs.
    loss : budget as the loss to reach (the least compute of each subset).
    subset : only this one; empty: all, compared with `reference`.
    reference : subset that compute multipliers are given against.
    simulate_seconds : CPU seconds to simulate one jet; 0: simulation is not counted.
    N, D, C : predict the loss of a run of N parameters on D examples (or of one of them and its compute C)
        instead of planning; of a law of one variable, that one.
    levels : of the prediction intervals, in %; 95 is always given.
    runs_for : choose the runs that `budget` should buy to shrink the interval of this quantity: a,
        difference (of a, from `reference`), N_star, loss (both at C) or L_inf, of `subset`.
    total_budget : FLOPs for simulation, pretraining and fine-tuning together: how to split them, which
        composition, what to buy next, when more pretraining stops paying. `subset` is a composition then.
    price : of jets, for total_budget: simulate, pretrain and finetune.
    out : file to write the plan to as JSON; empty: none.
    """

    results: str = ""
    budget: Annotated[float, AMOUNT] = 0.0
    gpu_hours: Annotated[float, AMOUNT] = 0.0
    rate: Annotated[float, AMOUNT] = 0.0
    loss: Annotated[float, AMOUNT] = 0.0
    subset: str = ""
    reference: str = "scratch"
    simulate_seconds: Annotated[float, AMOUNT] = 0.0
    N: Annotated[float, AMOUNT] = 0.0
    D: Annotated[float, AMOUNT] = 0.0
    C: Annotated[float, AMOUNT] = 0.0
    levels: list[Annotated[float, LEVEL]] = field(default_factory=lambda: list(LEVELS))
    runs_for: Annotated[str, OneOf("", *QUANTITIES)] = ""
    total_budget: Annotated[float, AMOUNT] = 0.0
    price: Prices = field(default_factory=Prices)
    out: str = ""


class _Callable(ModuleType):
    """A module that can be called as the function `plan`."""

    __call__ = staticmethod(plan)


sys.modules[__name__].__class__ = _Callable
__signature__ = signature(plan)  # what help() and editors show


def main(argv: Sequence[str]) -> None:
    """Run the program; UsageError as in `plan`."""
    command = parse(Command, argv, PROGRAM)
    if not command.results:
        raise UsageError("results=FOLDER is needed: what `python -m jetscale.analysis` wrote; see --help")
    found = _answer(command)
    if command.out:
        from jetscale.analysis.fitting.numbers import plain
        from jetscale.common.files import write_json

        write_json(Path(command.out), plain(found))
    sys.stdout.write(f"{found}\n")


_ALWAYS = ("results", "out", "subset")
_USED = {
    "runs_for": ("budget", "reference", "C"),
    "total_budget": ("price",),
    "budget": ("reference", "simulate_seconds"),
    "loss": ("reference", "simulate_seconds"),
    "gpu_hours": ("rate", "reference", "simulate_seconds"),
    "N, D and C": ("N", "D", "C", "levels"),
}
"""Settings that each question uses; the first that is asked, in this order, is answered."""


def _refuse_unused(command: Command, question: str) -> None:
    """Refuse settings that the answer would not hang on: who gives one expects that it does."""
    used = (question, *_USED[question], *_ALWAYS)
    default = Command()
    for one in fields(Command):
        value = getattr(command, one.name)
        if one.name in used or value == getattr(default, one.name):
            continue
        if isinstance(value, Prices):
            typed = ", ".join(f"{one.name}.{key}={price:g}" for key, price in vars(value).items() if price)
        else:
            typed = f"{one.name}={value}"
        raise UsageError(
            f"{typed} has nothing to do with {question}, which uses"
            f" {', '.join(_USED[question])} and subset: leave it out, or ask for it apart"
        )


def _answer(command: Command) -> Plan | Predictions | TotalPlan | NextRuns:
    """What the command asks for."""
    if command.runs_for:
        _refuse_unused(command, "runs_for")
        return next_runs(
            command.results,
            command.runs_for,
            command.budget,
            subset=command.subset,
            reference=command.reference,
            C=command.C,
        )
    budgets = ("budget", "loss", "gpu_hours", "total_budget")
    given = [key for key in budgets if getattr(command, key) > 0]
    points = [key for key in ("N", "D", "C") if getattr(command, key) > 0]
    if len(given) + bool(points) > 1:
        raise UsageError(
            f"{', '.join(given + points)}: ask one thing at a time: one of {', '.join(budgets)}, or"
            " a prediction at two of N, D and C"
        )
    if given or points:
        _refuse_unused(command, given[0] if given else "N, D and C")
    if command.total_budget:
        of = command.price
        return plan_total(
            command.results,
            command.total_budget,
            simulate=of.simulate,
            pretrain=of.pretrain,
            finetune=of.finetune,
            subset=command.subset,
        )
    if points:
        return predict_loss(
            command.results,
            N=command.N,
            D=command.D,
            C=command.C,
            subset=command.subset,
            levels=command.levels,
        )
    return plan(
        command.results,
        command.budget,
        loss=command.loss,
        gpu_hours=command.gpu_hours,
        rate=command.rate,
        subset=command.subset,
        reference=command.reference,
        simulate_seconds=command.simulate_seconds,
    )


if __name__ == "__main__":
    raise SystemExit(run(main, PROGRAM))
