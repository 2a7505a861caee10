"""Where a run and its jets come from, as far as its record tells; kept with the loss table for the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from jetscale.runs.record import RunRecord

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Origin:
    """What a run's record says of how it was made; None for what it does not say.

    Attributes
    ----------
    finished : day (UTC) on which done.json was written.
    commit : of the checkout, with ``+`` where that had changes.
    jetscale : version.
    accuracy : at the end, by weights.
    jets : by split ("finetune/train"): what made the jet files.
    fingerprints : by split, of the jet files.
    """

    finished: str | None = None
    commit: str | None = None
    jetscale: str | None = None
    accuracy: dict[str, float] | None = None
    jets: dict[str, str | None] | None = None
    fingerprints: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Without what is not known."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Origin:
        """Of what `to_json` wrote, by this version or by a later one with more keys."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in entry.items() if key in known})


def origin_of(record: RunRecord, done: Path) -> Origin:
    """What a finished run's record says.

    Parameters
    ----------
    record : content of done.json.
    done : that file, for the day on which it was written.
    """
    git, from_ = record.git or {}, record.jets_from or {}
    commit = git.get("commit")
    accuracy = {weights: final.accuracy for weights, final in (record.final or {}).items()}
    fingerprints = {split: jets.fingerprint for split, jets in from_.items()} or dict(record.data or {})
    return Origin(
        finished=datetime.fromtimestamp(done.stat().st_mtime, UTC).date().isoformat(),
        commit=commit and commit[:12] + ("+" if git.get("dirty") else ""),
        jetscale=(record.versions or {}).get("jetscale"),
        accuracy={weights: value for weights, value in accuracy.items() if value is not None} or None,
        jets={split: jets.made_by for split, jets in from_.items()} or None,
        fingerprints={split: value[:12] for split, value in fingerprints.items()} or None,
    )
