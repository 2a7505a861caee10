"""Best learning rates and rules on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jetscale.analysis.answers.rate_rule import PAPER_RATE, Best, Rule
from jetscale.analysis.output.formatting import percent

if TYPE_CHECKING:
    from jetscale.analysis.answers.rate_scan import Rates


def show(rates: Rates) -> None:
    """Print the table of widths, the rules, and what a reader must know."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False, emoji=False)
    console.print(_table(rates))
    for name, rule in rates.rules.items():
        _show_rule(console, name, rule)
    if rates.joint is not None:
        _show_rule(console, "all subsets", rates.joint)
    if rates.differ is not None:
        test = rates.differ
        console.print(
            f"one rule for all subsets: p = {test['p_value']:.2g}"
            f" (F = {test['F']:.3g} with {test['dof'][0]} and {test['dof'][1]} degrees of freedom)"
        )
    for text in rates.warnings:
        console.print(Text(f"warning: {text}", style="yellow"))


def _table(rates: Rates) -> Table:
    title = f"best finetune.lr of {rates.source} ({rates.weights} weights)"
    table = Table(title=Text(title), title_justify="left", pad_edge=False, box=None, padding=(0, 2, 0, 0))
    table.add_column("subset")
    for heading in ("dim", "rates", "seeds", "best rate [95%]", f"loss at {PAPER_RATE:g}, over best"):
        table.add_column(heading, justify="right")
    for name, found in rates.best.items():
        for one in found:
            table.add_row(*_row(name, one, rates.dof))
    return table


def _row(name: str, one: Best, dof: int) -> list[str]:
    scan = one.scan
    low, high = min(scan.seeds), max(scan.seeds)
    grid = f"{len(scan.rates)}: {scan.rates[0]:g} to {scan.rates[-1]:g}"
    return [
        name, str(scan.dim), grid, str(low) if low == high else f"{low} to {high}", _best(one, dof),
        ("at least " if one.side and one.penalty.value is not None else "") + percent(one.penalty.to_json()),
    ]  # fmt: skip


def _best(one: Best, dof: int) -> str:
    if one.status == "interior":
        quantity = one.rate(dof)
        if quantity.ci95 is None:
            return f"{quantity.value:.3g}"
        return f"{quantity.value:.3g} [{quantity.ci95[0]:.3g}, {quantity.ci95[1]:.3g}]"
    if one.status == "edge":
        end, word = (one.scan.rates[0], "below") if one.side == "below" else (one.scan.rates[-1], "above")
        return f"edge: {word} or at {end:g}"
    return "one rate, no comparison"


def _show_rule(console: Console, name: str, rule: Rule | None) -> None:
    if rule is None:
        console.print(Text(f"{name}: no rule; it needs two widths with an optimum inside the scanned rates"))
        return
    widths = ", ".join(map(str, rule.widths))
    console.print(Text(f"{name}: base {rule.base} at dim {rule.dim}, power {rule.power}; widths {widths}"))
    console.print(Text(f"  {rule.override}"), soft_wrap=True)
