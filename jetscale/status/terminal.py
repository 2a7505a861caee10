"""A sweep's status as a table: one row for each subset, width and variant, then running and failed runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from jetscale.common.progress import duration, percent, shortened
from jetscale.runs.layout import SWEEP_PLAN
from jetscale.status.one_run import RunStatus
from jetscale.status.sweep import Group, Sweep

_LISTED = 12


def render(sweep: Sweep, height: int | None = None) -> RenderableType:
    """The status for a terminal.

    Parameters
    ----------
    sweep : the status
    height : lines of the terminal; where the table is longer, groups in which no run is running or failed are
        combined. None for no limit

    Returns
    -------
    What `rich` prints.
    """
    running = [run for run in sweep.runs if run.state == "running"]
    failed = [run for run in sweep.runs if run.state == "failed"]
    below = [
        *_listed("running", [_running(run) for run in running]),
        *_listed("failed", [_failed(run) for run in failed], "red"),
        *_listed("note", [Text(note) for note in sweep.notes], "yellow"),
        _closing(sweep),
    ]
    groups = [(group, str(group.dim)) for group in sweep.groups]
    if height is not None and len(groups) + len(below) + 5 > height:
        groups = list(_folded(sweep.groups))
    return Lines(_table(sweep, groups), *below)


def _table(sweep: Sweep, groups: list[tuple[Group, str]]) -> Table:
    title = Text(str(sweep.path), "table.title")
    table = Table(title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0), box=None)
    has_average = any("ema" in group.test_loss for group, _ in groups)
    table.add_column("subset", no_wrap=True, overflow="ellipsis", min_width=8)
    for heading in ("dim", "done", "run", "fail", "stop", "wait", "loss"):
        table.add_column(heading, justify="right", no_wrap=True)
    if has_average:
        table.add_column("ema", justify="right", no_wrap=True)
    for heading in ("jets/s", "made"):
        table.add_column(heading, justify="right", no_wrap=True)
    for group, dim in groups:
        counts = group.counts
        row = [
            Text(f"{group.subset} {group.variant}".strip()),
            dim,
            _count(counts["done"], "green"),
            _count(counts["running"], "cyan"),
            _count(counts["failed"], "red"),
            _count(counts["interrupted"], "yellow"),
            _count(counts["waiting"], "") if sweep.planned else "?",
            _loss(group, "raw"),
            *([_loss(group, "ema")] if has_average else []),
            _speed(group.jets_per_second),
            percent(group.progress),
        ]
        table.add_row(*row)
    return table


def _folded(groups: list[Group]) -> Iterator[tuple[Group, str]]:
    """Groups in which something runs or failed, one row each; the others one row a subset."""
    rest: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        counts = group.counts
        if counts["running"] or counts["failed"]:
            yield group, str(group.dim)
        else:
            rest.setdefault((group.subset, group.variant), []).append(group)
    for some in rest.values():
        runs = [replace(run, test_loss={}, jets_per_second=None) for group in some for run in group.runs]
        label = str(some[0].dim) if len(some) == 1 else f"{len(some)} dims"
        yield Group(some[0].subset, some[0].dim, some[0].variant, runs), label


def _listed(title: str, rows: list[Text], style: str = "") -> Iterator[Text]:
    for row in rows[:_LISTED]:
        line = Text.assemble((f"{title} ", style or "cyan"), row)
        line.no_wrap, line.overflow = True, "ellipsis"
        yield line
    if len(rows) > _LISTED:
        yield Text(f"{title}: {len(rows) - _LISTED} more (--json has all)", style)


def _running(run: RunStatus) -> Text:
    phase = {"pretrain": "pretraining", "finetune": "fine-tuning", None: "starting"}[run.phase]
    steps, made = (run.steps[run.phase], run.made[run.phase]) if run.phase else (None, 0)
    share = f" {percent(made / steps)}" if steps else ""
    speed = f"  {_speed(run.jets_per_second)} jets/s" if run.jets_per_second else ""
    owner = run.owner
    where = (
        "" if owner is None else f"  {owner.host}:{owner.pid}" + (f" job {owner.job}" if owner.job else "")
    )
    return Text(f"{shortened(run.directory)}  {phase}{share}{speed}{where}")


def _failed(run: RunStatus) -> Text:
    return Text(f"{shortened(run.directory)}  {run.error or ''}")


def _closing(sweep: Sweep) -> Text:
    counts = sweep.counts
    names = {"done": "done", "running": "running", "failed": "failed", "interrupted": "stopped"}
    parts = [f"{counts[state]} {name}" for state, name in names.items() if counts[state] or state == "done"]
    if not sweep.planned:
        parts.append(f"waiting unknown (no {SWEEP_PLAN})")
    elif counts["waiting"]:
        parts.append(f"{counts['waiting']} waiting")
    text = f"{len(sweep.runs)} runs: {', '.join(parts)}"
    if sweep.over:
        return Text(text)
    if counts["running"]:
        text += f"; {_speed(sweep.jets_per_second)} jets/s" if sweep.jets_per_second else ""
        text += f"; time left: {duration(sweep.seconds_left)}"
    else:
        text += f"; nothing runs; time left: {duration(sweep.run_seconds_left)}, one run after the other"
    unmeasured = sweep.unmeasured
    if unmeasured and sweep.planned:
        more = f" and {len(unmeasured) - 3} more" if len(unmeasured) > 3 else ""
        text += f" (a phase of width {', '.join(map(str, unmeasured[:3]))}{more} has no measured speed yet)"
    return Text(text)


def _count(number: int, style: str) -> Text:
    return Text(str(number), style if number else "dim")


def _loss(group: Group, weights: str) -> str:
    return f"{group.test_loss[weights]:.4f}" if weights in group.test_loss else ""


def _speed(jets_per_second: float | None) -> str:
    return "" if jets_per_second is None else f"{jets_per_second:,.0f}"
