"""``metrics.jsonl``: one flushed JSON object a line, so that a kill loses nothing that was written.

Each line ends in a checksum of itself (`jetscale.runs.lines`).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jetscale.common.files import atomic_path, writing
from jetscale.runs.lines import DamagedLine, line_text, mark, parse_lines


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


class MetricsError(RuntimeError):
    """``metrics.jsonl`` is damaged; the message names the line and the mend."""


class MetricsLog:
    """Appends lines to a ``metrics.jsonl``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: MetricsLine) -> None:
        """Write one line and flush it to the operating system.

        Raises
        ------
        WriteError
            The disk is full, the file is a folder, ...; half a line may stand at the end, see `read`.
        """
        text = line_text(asdict(line))
        with writing(self.path), open(self.path, "a", opener=_no_link) as stream:
            stream.write(text)

    def sync(self) -> None:
        """Make what was appended survive a power cut: before a checkpoint that a resumed run starts from."""
        if self.path.exists():
            with writing(self.path), self.path.open("rb") as stream:
                os.fsync(stream.fileno())

    def read(self) -> list[dict[str, Any]]:
        """Every line; a last one without its end (the process died inside a write) is left out.

        Raises
        ------
        MetricsError
            A line is not one of a metrics file, or not what was written.
        """
        if not self.path.exists():
            return []
        with writing(self.path):  # a folder of its name
            *whole, _torn = self.path.read_bytes().split(b"\n")
        try:
            lines = parse_lines(whole)
            for number, line in enumerate(lines, start=1):
                if not (isinstance(line.get("phase"), str) and isinstance(line.get("step"), int)):
                    raise DamagedLine(number, whole[number - 1], "no phase and step")
        except DamagedLine as error:
            raise MetricsError(
                f"{self.path}: {error}; put back an undamaged copy of the file, "
                "or remove the folder it is in to make the run anew, to the same numbers"
            ) from error
        return lines

    def mark(self, phase: str, step: int) -> dict[str, Any]:
        """Number and checksum of the lines of `phase` up to `step`, for the checkpoint of that step."""
        return mark(self.until(phase, step))

    def until(self, phase: str, step: int) -> list[dict[str, Any]]:
        """Lines of `phase` up to `step`."""
        return [line for line in self.read() if line["phase"] == phase and line["step"] <= step]

    def evaluations(self, phase: str) -> set[tuple[int, str]]:
        """Step and weights of every test loss of `phase` along the curve."""
        return {
            (line["step"], line["weights"])
            for line in self.read()
            if line["phase"] == phase and line["split"] == "test"
        }

    def keep_until(self, phase: str, step: int) -> None:
        """Drop what a resumed run will write again: lines of `phase` beyond `step`."""
        kept = [line for line in self.read() if line["phase"] != phase or line["step"] <= step]
        self.replace(kept)

    def replace(self, lines: list[dict[str, Any]]) -> None:
        """Make the file hold exactly `lines`, atomically."""
        with atomic_path(self.path) as aside:
            aside.write_text("".join(line_text(line) for line in lines))


def _no_link(path: str, flags: int) -> int:
    """Open, but not through a symbolic link: in a run directory of somebody else's it could lead anywhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
