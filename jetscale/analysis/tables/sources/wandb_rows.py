"""Loss table of W&B runs, as `jetscale.tracking` leaves them; used by both W&B sources.

A finished run has left a copy of its run directory, which is exact and has the block losses. Of the others
there are the history rows. A test line is a row with ``<phase>/test_loss`` (raw weights) or
``<phase>/test_loss_ema``, with our own ``step``, ``jets`` and ``flops`` in the same row. W&B's step counter
is not used: a resumed run restarts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.sources.local import RunLosses, assembled, read_run
from jetscale.analysis.tables.variants import settings_of
from jetscale.common.files import DamagedFile
from jetscale.common.paper import FLOPS_PER_PARAM_JET
from jetscale.common.usage import UsageError
from jetscale.runs.done import read_done
from jetscale.runs.layout import DONE, Place

if TYPE_CHECKING:
    import pandas as pd

AXES = ("step", "jets", "flops")
WEIGHTS = {"raw": "", "ema": "_ema"}


def loss_key(phase: str, weights: str) -> str:
    """History key of a test loss of `phase` and `weights` (``raw`` or ``ema``)."""
    return f"{phase}/test_loss{WEIGHTS[weights]}"


@dataclass
class Fragment:
    """One W&B run, or one piece of a resumed one.

    Attributes
    ----------
    run : id, shared by the pieces.
    name : for messages.
    config : nested mapping, as the run was started with.
    rows : history rows, in the order of logging.
    started : orders the pieces of one run.
    finished : whether the run reported its end.
    n_params : N from the summary; NaN where it is not there.
    """

    run: str
    name: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    started: str = ""
    finished: bool = True
    n_params: float = float("nan")


def runs_of_rows(fragments: Iterable[Fragment], phase: str, warnings: list[str]) -> list[RunLosses]:
    """Runs of these fragments, without block losses.

    Pieces of one run are merged by our own step: a later piece replaces the earlier from its first step on.

    Parameters
    ----------
    fragments : in any order.
    phase : which phase's losses.
    warnings : what was noticed is added here.

    Raises
    ------
    UsageError
        A run whose config lacks subset, seed or model.dim; a value that is not a number.
    """
    pieces: dict[str, list[Fragment]] = {}
    for fragment in fragments:
        pieces.setdefault(fragment.run, []).append(fragment)
    runs = []
    for run, parts in sorted(pieces.items()):
        parts.sort(key=lambda part: part.started)
        frame = _merged(parts, phase)
        if frame is None:
            warnings.append(f"W&B run {parts[-1].name} ({run}) has no test loss in phase {phase}; left out")
            continue
        frame = _described(frame, run, parts)
        runs.append(RunLosses(str(frame["run"].iloc[0]), frame, settings_of(parts[-1].config)))
        if not parts[-1].finished:
            warnings.append(f"W&B run {parts[-1].name} ({run}) has not finished; its curve so far is used")
        if len(parts) > 1:
            warnings.append(f"W&B run {parts[-1].name} ({run}): {len(parts)} pieces merged by our own step")
    return runs


def of_runs(
    copies: dict[str, Path], others: Iterable[Fragment], source: str, phase: str, warnings: list[str]
) -> LossTable:
    """The loss table of the runs of one W&B source, checked.

    Parameters
    ----------
    copies : by W&B's run id, folders with a copy of a finished run directory (`jetscale.runs.shared_copy`).
    others : runs without such a copy, of which the history rows are all there is.
    source : where they come from, for messages.
    phase : which phase's losses.
    warnings : what was noticed so far.

    Raises
    ------
    UsageError
        A damaged copy; see `runs_of_rows`; no run with a test loss.
    """
    places = {run: _place_of(copy) for run, copy in copies.items()}
    several = {place for place, count in Counter(places.values()).items() if count > 1}
    runs = []
    for run, copy in sorted(copies.items()):
        name = f"{places[run]}/{run}" if places[run] in several else places[run]
        found, _ = read_run(copy, name, unfinished=False, phase=phase, warnings=warnings)
        runs += [] if found is None else [found]
    rows = runs_of_rows(others, phase, warnings)
    if rows:
        warnings.append(
            f"{len(rows)} runs, such as {rows[0].name}, have no copy of their run directory in W&B (they did "
            "not finish, or an earlier version made them): their history rows are used. These have no block "
            "losses, so the test jets are not resampled"
        )
    if not runs + rows:
        reasons = f": {'; '.join(warnings)}" if warnings else ""
        raise UsageError(f"{source}: no W&B run has a test loss in phase {phase}{reasons}")
    return assembled(runs + rows, source, warnings)


def _place_of(copy: Path) -> str:
    """The path below its sweep that a finished run had, by which `source=local` names it."""
    try:
        done = read_done(copy)
    except DamagedFile as error:
        raise UsageError(f"{error}; send the run to W&B again (wandb sync), or remove it there") from error
    record = None if done is None else done.record
    if record is None or record.subset is None or record.dim is None or record.seed is None:
        raise UsageError(
            f"{copy / DONE} does not say which run it is of; send the run to W&B again (wandb sync)"
        )
    return Place(record.subset, record.dim, record.seed, record.variant or "").path


def _merged(parts: list[Fragment], phase: str) -> pd.DataFrame | None:
    import pandas as pd

    merged = None
    for part in parts:
        frame = _lines(part, phase)
        if frame is None:
            continue
        if merged is not None:
            frame = pd.concat([merged[merged["step"] < frame["step"].min()], frame], ignore_index=True)
        merged = frame
    return merged


def _lines(part: Fragment, phase: str) -> pd.DataFrame | None:
    import pandas as pd

    lines = []
    for row in part.rows:
        for weights in WEIGHTS:
            if row.get(loss_key(phase, weights)) is None:
                continue
            try:
                line = {axis: float(row[axis]) for axis in AXES} | {
                    "loss": float(row[loss_key(phase, weights)])
                }
            except (KeyError, TypeError, ValueError) as error:
                where = f"W&B run {part.name} ({part.run})"
                raise UsageError(f"{where}: a test row cannot be read: {error!r} in {row}") from error
            if line["jets"] > 0:
                lines.append(line | {"weights": weights})
    if not lines:
        return None
    # the same step twice in one piece: the last one was logged after a resume inside the piece
    return pd.DataFrame(lines).drop_duplicates(["step", "weights"], keep="last")


def _described(frame: pd.DataFrame, run: str, parts: list[Fragment]) -> pd.DataFrame:
    last = parts[-1]
    facts = {key: _config(last.config, key) for key in ("subset", "seed", "model.dim")}
    missing = [key for key, value in facts.items() if value is None]
    if missing:
        raise UsageError(f"W&B run {last.name} ({run}): its config lacks {', '.join(missing)}")
    N = last.n_params
    if not np.isfinite(N):
        N = float((frame["flops"] / (FLOPS_PER_PARAM_JET * frame["jets"])).median())
    return frame.assign(
        run=Place(facts["subset"], facts["model.dim"], facts["seed"], run).path,
        subset=str(facts["subset"]),
        dim=float(facts["model.dim"]),
        seed=str(facts["seed"]),
        n_params=N,
        constituents=np.nan,
        split="test",
        warmup=float(_config(last.config, "finetune.warmup") or 0),
        schedule=float(_config(last.config, "finetune.steps") or 0),
    )


def _config(config: dict[str, Any], dotted: str) -> Any:
    """Value of a nested (or already dotted) key; W&B wraps values as {"value": ...} in some answers."""
    found: Any = config.get(dotted)
    if found is None:
        found = config
        for part in dotted.split("."):
            found = found.get(part) if isinstance(found, dict) else None
            if isinstance(found, dict) and set(found) == {"value"}:
                found = found["value"]
    return found
