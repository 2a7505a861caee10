"""``metrics.jsonl``: one flushed JSON object a line, so that a kill loses nothing that was written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jetscale.files import atomic_path


@dataclass(frozen=True)
class MetricsLine:
    """One line.

    Attributes
    ----------
    phase : ``pretrain`` or ``finetune``
    step : optimiser steps done
    jets, constituents : seen in this phase so far
    flops : the paper's C = 6 N 40 jets
    split : ``train`` (mean loss since the line before) or ``test``
    weights : ``raw`` or ``ema``
    loss : mean cross-entropy, nats
    accuracy : share of jets whose largest logit is the label's; None for train lines
    lr : learning rate of the last step
    seconds : wall time of this phase so far, over all its starts
    """

    phase: str
    step: int
    jets: int
    constituents: int
    flops: float
    split: str
    weights: str
    loss: float
    accuracy: float | None
    lr: float
    seconds: float


class MetricsLog:
    """Appends lines to a ``metrics.jsonl``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: MetricsLine) -> None:
        """Write one line and flush it to the operating system."""
        with self.path.open("a") as stream:
            stream.write(json.dumps(asdict(line), allow_nan=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Every whole line; a torn last line (the process died inside a write) is left out."""
        if not self.path.exists():
            return []
        whole = [text for text in self.path.read_text().splitlines(keepends=True) if text.endswith("\n")]
        return [json.loads(text) for text in whole]

    def keep_until(self, phase: str, step: int) -> None:
        """Drop what a resumed run will write again: lines of `phase` beyond `step`."""
        kept = [line for line in self.read() if line["phase"] != phase or line["step"] <= step]
        self.replace(kept)

    def replace(self, lines: list[dict[str, Any]]) -> None:
        """Make the file hold exactly `lines`, atomically."""
        with atomic_path(self.path) as aside:
            aside.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
