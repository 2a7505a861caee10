"""A plan as a table."""

from __future__ import annotations

import math
from collections import defaultdict

from rich.table import Table

from jetscale.common import cli
from jetscale.common.progress import duration, in_parts
from jetscale.launch.jobs import Job
from jetscale.launch.sweep_plan import PhasePlan, Plan, plan_sweep


def measured_plan(jobs: list[Job]) -> Plan:
    """Plan with times measured under a progress bar."""
    with in_parts("measuring a step of every width", "networks", size=1) as report:
        return plan_sweep(jobs, lambda done, of: report("", done, of))


def print_plan(plan: Plan, sharing: str | None = None) -> None:
    """Print widths and totals to stdout.

    Parameters
    ----------
    plan : with times
    sharing : how runs share a GPU, see `jetscale.launch.sharing.sharing`; None for no GPU
    """
    console = cli.console(120)
    console.print(_widths(plan))
    left = plan.to_do
    phases = left.phases
    pretrainings = [phase for phase in phases if phase.name == "pretrain"]
    console.print(
        f"{len(plan.runs)} runs, {len(plan.done)} done, {len(left.runs)} to do with "
        f"{len(pretrainings)} pretrainings (a finished one in the library is not run again)"
    )
    console.print(f"jets      {sum(phase.jets for phase in phases):,}")
    console.print(f"FLOPs     {sum(phase.flops for phase in phases):.3g}  (C = 6 N 40 jets)")
    kept = sum(phase.kept_bytes for phase in phases)
    largest = max((phase.checkpoint_bytes for phase in phases), default=0.0)
    console.print(
        f"disk      {_bytes(kept)} kept, and up to {_bytes(largest)} of checkpoints a running run"
        "; without jet files and packed stores"
    )
    seconds = plan.seconds(phases)
    slowest = max((plan.seconds(run.phases) for run in left.runs), default=0.0)
    console.print(
        f"time      {duration(seconds)} on {plan.device}, the longest run {duration(slowest)}; "
        "measured here, on another device it differs"
    )
    if sharing is not None:
        console.print(f"sharing   {sharing}")


def _widths(plan: Plan) -> Table:
    table = Table(title="plan", title_justify="left")
    for heading in ("phase", "dim", "N", "times", "steps", "jets", "C", "ms a step", "a time", "all"):
        table.add_column(heading, justify="right")
    rows: dict[tuple[str, int, int, str], list[PhasePlan]] = defaultdict(list)
    for phase in plan.to_do.phases:
        rows[phase.name, phase.settings.model.dim, phase.steps, phase.kind].append(phase)
    for (name, dim, steps, kind), phases in sorted(
        rows.items(), key=lambda row: (row[0][0] != "pretrain", row[0])
    ):
        one = phases[0]
        table.add_row(
            name, str(dim), f"{one.n_params:,}", str(len(phases)), f"{steps:,}", f"{one.jets:,}",
            f"{one.flops:.2g}", three_digits(1e3 * plan.step_seconds[kind]),
            duration(plan.seconds([one])), duration(plan.seconds(phases)),
        )  # fmt: skip
    return table


def three_digits(value: float) -> str:
    """A positive number with three significant digits, without an exponent: 0.130, 12.3, 1,290."""
    places = 2 - math.floor(math.log10(value))
    return f"{round(value, places):,.{max(places, 0)}f}"


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
