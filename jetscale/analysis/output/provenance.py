"""Where jets, runs and numbers of a report come from, as far as the runs tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jetscale.analysis.tables import selection
from jetscale.analysis.tables.loss_table import names_of_groups
from jetscale.analysis.tables.origins import NOT_RECORDED, Origin
from jetscale.runs.record import git_state

if TYPE_CHECKING:
    import pandas as pd

    from jetscale.analysis.tables.loss_table import LossTable

MOST_RUNS = 1000
"""Rows of the list of runs; tables with more are not listed."""


@dataclass(frozen=True)
class Provenance:
    """What the report says of its sources.

    Attributes
    ----------
    facts : label and text, such as "jets of pretrain/train" and "jetscale's simulator, version 2 (72 runs)".
    runs : one row a run: run, subset, size, seed, D, loss, accuracy; empty where there are too many.
    weights : whose losses and accuracies the rows give.
    n_runs : all runs.
    """

    facts: list[tuple[str, str]]
    runs: list[dict[str, Any]]
    weights: str
    n_runs: int

    @property
    def jets(self) -> str:
        """What made the jets, in one line."""
        made = dict.fromkeys(text for label, text in self.facts if label.startswith("jets"))
        return "; ".join(made)


def provenance(results: dict[str, Any], losses: LossTable) -> Provenance:
    """Collect what is known.

    Parameters
    ----------
    results : content of results.json.
    losses : the table behind it.
    """
    last = _last_rows(results, losses)
    origins = [losses.origins.get(run, Origin()) for run in last["run"]]
    checkout = git_state()
    here = checkout["commit"][:12] + ("+" if checkout["dirty"] else "") if checkout else NOT_RECORDED
    fit = f"jetscale {results['version']}"
    today = f"{datetime.now(UTC).date().isoformat()}, checkout {here}"
    facts = [
        *_jets(origins, own=losses.own_runs),
        ("runs finished", _days([origin.finished for origin in origins])),
        ("commit of the runs", _counted(origin.commit for origin in origins)),
        ("jetscale of the runs", _counted(origin.jetscale for origin in origins)),
        ("losses from", results["source"]),
        ("fitted by", fit),
        ("report made on", today),
    ]
    weights = ", ".join(sorted(last["weights"].unique()))
    rows = [] if len(last) > MOST_RUNS else [_row(row, origin) for row, origin in _zipped(last, origins)]
    return Provenance(facts, rows, weights, len(last))


def _zipped(last: pd.DataFrame, origins: list[Origin]) -> Iterable[tuple[dict[Any, Any], Origin]]:
    return zip(last.to_dict("records"), origins, strict=True)


def _last_rows(results: dict[str, Any], losses: LossTable) -> pd.DataFrame:
    """Last test loss of every run, of the weights that were fitted."""
    import pandas as pd

    asked = results["settings"]["weights"]
    fitted = pd.concat([selection.of_weights(rows, asked, losses) for rows in losses.groups().values()])
    last = fitted.sort_values("jets", kind="stable").groupby(["subset", "run"], sort=True).tail(1)
    last = last.sort_values(["subset", "n_params", "seed", "run"], kind="stable").reset_index(drop=True)
    return last.assign(group=names_of_groups(last))


def _row(row: dict[Any, Any], origin: Origin) -> dict[str, Any]:
    width = row.get("dim", float("nan"))
    return {
        "run": row["run"],
        "subset": row["group"],
        "size": f"{width:g}" if width == width else "–",  # NaN: the table has no widths
        "N": row["n_params"],
        "seed": row["seed"],
        "D": row["jets"],
        "loss": row["loss"],
        "accuracy": (origin.accuracy or {}).get(row["weights"]),
    }


def _jets(origins: list[Origin], *, own: bool) -> list[tuple[str, str]]:
    if not own:
        return [("jets", "a table of another program: D counts its samples")]
    splits = sorted({split for origin in origins for split in (origin.jets or origin.fingerprints or {})})
    if not splits:
        return [("jets", NOT_RECORDED)]
    facts = []
    for split in splits:
        having = [origin for origin in origins if split in (origin.jets or origin.fingerprints or {})]
        made = _counted((origin.jets or {}).get(split) for origin in having)
        marks = _counted((origin.fingerprints or {}).get(split) for origin in having)
        facts.append((f"jets of {split}", f"{made}; fingerprint {marks}"))
    return facts


def _counted(values: Iterable[str | None]) -> str:
    """Every value with the number of its runs, the most frequent first."""
    counts = Counter(value or NOT_RECORDED for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} runs)" for value, count in counts.most_common())


def _days(days: list[str | None]) -> str:
    known = sorted(day for day in days if day)
    if not known:
        return NOT_RECORDED
    text = known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}"
    missing = len(days) - len(known)
    return f"{text} ({missing} runs: {NOT_RECORDED})" if missing else text
