"""W&B's API to a loss table: copies of run directories, else exact histories; cached to parquet.

A finished run has left a copy of its run directory (`jetscale.runs.shared_copy`). Of the others the history
is read. `scan_history` returns only rows that hold all keys asked for, and raw and EMA losses are logged in
different rows, so each has its own scan. `run.history()`, a random sample of 500 points, is never used.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jetscale.analysis.tables.loss_table import LossTable, checked
from jetscale.analysis.tables.sources import saved, wandb_files
from jetscale.analysis.tables.sources.patience import patiently
from jetscale.analysis.tables.sources.wandb_rows import AXES, WEIGHTS, Fragment, loss_key, of_runs
from jetscale.common.files import DamagedFile
from jetscale.common.usage import UsageError
from jetscale.runs import parquet

TIMEOUT = 30  # seconds for one answer


def load(
    path: str,
    *,
    group: str = "",
    filters: str = "",
    cache: Path | None = None,
    refresh: bool = False,
    phase: str = "finetune",
) -> LossTable:
    """Read the runs of a project.

    Parameters
    ----------
    path : ``entity/project``.
    group : only runs of this W&B group.
    filters : JSON in W&B's query language, such as ``{"config.subset": "scratch"}``.
    cache : parquet file to keep the answer in, block losses beside it as ``<stem>-blocks.parquet``; read
        instead of the server when it is there.
    refresh : ask the server even then, and write the cache anew.

    Raises
    ------
    UsageError
        Not entity/project, filters that are not a JSON object, no such project or run, an answer or a
        copy that cannot be read, a server that fails every attempt.
    """
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", path):
        raise UsageError(f"path={path!r} is not entity/project")
    query = _query(group, filters)
    source = f"W&B {path}" + (f" {json.dumps(query)}" if query else "")
    if cache is not None and cache.is_file() and not refresh:
        return _kept(cache, source)
    runs = _runs(path, query)
    warnings: list[str] = []
    with TemporaryDirectory() as folder:
        found = {run.id: wandb_files.fetch(run, Path(folder, re.sub(r"\W", "_", run.id))) for run in runs}
        copies = {run: copy for run, copy in found.items() if copy is not None}
        others = [_fragment(run, phase) for run in runs if run.id not in copies]
        losses = of_runs(copies, others, source, phase, warnings)
    if cache is not None:
        saved.write(cache, losses, losses.blocks)
    return losses


def _kept(cache: Path, source: str) -> LossTable:
    import pandas as pd

    try:
        parquet.check(cache)
    except DamagedFile as error:
        raise UsageError(f"{error}; say refresh=true to ask the server again") from error
    losses = saved.of_frame(pd.read_parquet(cache), cache)
    if losses is None or losses.source != source:
        held = "no answer of W&B" if losses is None else losses.source
        raise UsageError(f"{cache} holds {held}, not {source}; say refresh=true or another out")
    note = f"read from {cache.name}, not from the server; refresh=true asks again"
    return checked(replace(losses, warnings=[*losses.warnings, note]))


def _query(group: str, filters: str) -> dict[str, Any]:
    query: Any = {}
    if filters:
        try:
            query = json.loads(filters)
        except ValueError as error:
            raise UsageError(f"filters={filters!r} is not JSON: {error}") from error
        if not isinstance(query, dict):
            raise UsageError(f"filters={filters!r} is not a JSON object")
    return {**query, **({"group": group} if group else {})}


def _runs(path: str, query: dict[str, Any]) -> list[Any]:
    import wandb

    api = patiently(f"W&B login for {path}", lambda: wandb.Api(timeout=TIMEOUT))
    runs = patiently(f"runs of {path}", lambda: list(api.runs(path, filters=query, lazy=False)))
    if not runs:
        raise UsageError(
            f"W&B {path}: no run" + (f" matches {json.dumps(query)}" if query else " in the project")
        )
    return runs


def _fragment(run: Any, phase: str) -> Fragment:
    rows: list[dict[str, Any]] = []
    for weights in WEIGHTS:
        scan = partial(_scan, run, [loss_key(phase, weights), *AXES])
        rows += patiently(f"history of W&B run {run.id}", scan)
    n_params = run.summary.get("n_params")
    return Fragment(
        run=str(run.id),
        name=str(run.name),
        config=dict(run.config),
        rows=rows,
        started=str(run.created_at),
        finished=run.state == "finished",
        n_params=float(n_params) if isinstance(n_params, int | float) else float("nan"),
    )


def _scan(run: Any, keys: list[str]) -> list[dict[str, Any]]:
    return list(run.scan_history(keys=keys))
