"""W&B's API to a loss table: exact histories, one scan a metric, cached to parquet.

`scan_history` returns only rows that hold all keys asked for, and raw and EMA losses are logged in different
rows, so each has its own scan. `run.history()`, a random sample of 500 points, is never used.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from jetscale.analysis.sources.local import PAPER_CONSTITUENTS
from jetscale.analysis.sources.wandb_rows import AXES, WEIGHTS, Fragment, loss_key, table
from jetscale.analysis.table import LossTable, checked
from jetscale.cli import UsageError
from jetscale.files import atomic_path

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

ATTEMPTS = 5
FIRST_PAUSE = 1.0  # seconds; doubled after every attempt
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
    cache : parquet file to keep the answer in; read instead of the server when it is there.
    refresh : ask the server even then, and write the cache anew.

    Raises
    ------
    UsageError
        Not entity/project, filters that are not a JSON object, no such project or run, an answer that cannot
        be read, a server that fails every attempt.
    """
    import pandas as pd

    if not re.fullmatch(r"[^/\s]+/[^/\s]+", path):
        raise UsageError(f"path={path!r} is not entity/project")
    query = _query(group, filters)
    source = f"W&B {path}" + (f" {json.dumps(query)}" if query else "")
    if cache is not None and cache.is_file() and not refresh:
        frame = pd.read_parquet(cache)
        if frame.attrs.get("source") != source:
            held = frame.attrs.get("source")
            raise UsageError(f"{cache} holds {held}, not {source}; say refresh=true or another out")
        warnings = [f"read from {cache.name}, not from the server; refresh=true asks again"]
        return checked(LossTable(frame, source, 6 * PAPER_CONSTITUENTS, "jet", warnings))
    frame, warnings = table(_fragments(path, query, phase), phase)
    if cache is not None:
        frame.attrs["source"] = source
        with atomic_path(cache) as aside:
            frame.to_parquet(aside, index=False)
    return checked(LossTable(frame, source, 6 * PAPER_CONSTITUENTS, "jet", warnings))


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


def _fragments(path: str, query: dict[str, Any], phase: str) -> list[Fragment]:
    import wandb

    api = _patiently(f"W&B login for {path}", lambda: wandb.Api(timeout=TIMEOUT))
    runs = _patiently(f"runs of {path}", lambda: list(api.runs(path, filters=query, lazy=False)))
    if not runs:
        raise UsageError(
            f"W&B {path}: no run" + (f" matches {json.dumps(query)}" if query else " in the project")
        )
    return [_fragment(run, phase) for run in runs]


def _fragment(run: Any, phase: str) -> Fragment:
    rows: list[dict[str, Any]] = []
    for weights in WEIGHTS:
        scan = partial(_scan, run, [loss_key(phase, weights), *AXES])
        rows += _patiently(f"history of W&B run {run.id}", scan)
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


def _patiently(what: str, ask: Callable[[], Answer]) -> Answer:
    """Ask again, ever later, while the server is busy or failing; any other failure is final."""
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except Exception as error:  # the client raises its own, requests' and plain ones
            text = f"{type(error).__name__}: {error}"
            if attempt == ATTEMPTS or not _passing(text):
                raise UsageError(f"{what}: {text}") from error
            log.warning("%s: %s; again in %g s", what, text, pause)
            time.sleep(pause)
            pause *= 2
    raise AssertionError("unreachable")


def _passing(text: str) -> bool:
    """Whether a failure is one that waiting may cure: rate limits, server errors, broken connections."""
    return bool(re.search(r"\b(429|5\d\d)\b|rate limit|timed? ?out|connection", text, re.IGNORECASE))
