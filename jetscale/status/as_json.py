"""A sweep's status as JSON. Scripts rely on its keys: add some, but rename none."""

from __future__ import annotations

from typing import Any

from jetscale.status.one_run import PHASES, RunStatus
from jetscale.status.sweep import Group, Sweep


def as_json(sweep: Sweep) -> dict[str, Any]:
    """The status as plain values for JSON.

    Parameters
    ----------
    sweep : the status

    Returns
    -------
    Keys and values, explained in docs/tracking.md; what is unknown is None.
    """
    return {
        "path": str(sweep.path),
        "planned": sweep.planned,
        "over": sweep.over,
        "counts": _counts(sweep.counts, sweep.planned),
        "progress": sweep.progress,
        "jets_per_second": sweep.jets_per_second,
        "run_seconds_left": sweep.run_seconds_left,
        "seconds_left": sweep.seconds_left,
        "groups": [_group(sweep, group) for group in sweep.groups],
        "runs": [_run(sweep, run) for run in sweep.runs],
        "notes": sweep.notes,
    }


def _counts(counts: dict[str, int], planned: bool) -> dict[str, int | None]:
    return {**counts, "waiting": counts["waiting"] if planned else None, "total": sum(counts.values())}


def _group(sweep: Sweep, group: Group) -> dict[str, Any]:
    return {
        "subset": group.subset,
        "dim": group.dim,
        "variant": group.variant,
        "counts": _counts(group.counts, sweep.planned),
        "progress": group.progress,
        "test_loss": {"raw": None, "ema": None, **group.test_loss},
        "test_loss_runs": len(group.measured),
        "jets_per_second": group.jets_per_second,
        "run_seconds_left": sweep.seconds_left_of(group.runs),
        "error": group.error,
    }


def _run(sweep: Sweep, run: RunStatus) -> dict[str, Any]:
    return {
        "directory": run.directory,
        "subset": run.place.subset,
        "dim": run.place.dim,
        "seed": run.place.seed,
        "variant": run.place.variant,
        "state": run.state,
        "phase": run.phase,
        "steps": {phase: {"made": run.made[phase], "planned": run.steps[phase]} for phase in PHASES},
        "progress": run.progress,
        "test_loss": {"raw": None, "ema": None, **run.test_loss},
        "jets_per_second": run.jets_per_second,
        "run_seconds_left": sweep.seconds[run.directory],
        "owner": None if run.owner is None else vars(run.owner),
        "error": run.error,
    }
