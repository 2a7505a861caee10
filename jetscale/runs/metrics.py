"""``metrics.jsonl``: one flushed JSON object a line, so that a killed process loses no line it has written.

Each line ends in a checksum of itself. The checksum covers everything but the wall time, so that a resumed
run writes the same lines as an undisturbed one. Files of earlier versions have no checksums; a file has them
in all of its lines or in none.

There is one reader with two policies. `read_metrics` is strict: a damaged line is an error. `last_metrics` is
lenient: it reads the end of a file that another process is writing, and leaves damaged lines out. Both leave
out a last line without its end, which is being written or whose writer was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import xxhash

from jetscale.common.files import CHECKSUM, DamagedFile, atomic_path, writing
from jetscale.runs.search import to_remove

CHECK = "check"
"""Last key of a line: XXH3-64 of its other content, the wall time left out."""
_UNCHECKED = "seconds"
_FIRST_TAIL = 64 * 1024  # about 250 lines: at the paper's settings the last five evaluations
_LONGEST_TAIL = 4 * 1024 * 1024


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


class MetricsError(DamagedFile):
    """``metrics.jsonl`` is damaged; the message names the line and the way out."""


class DamagedLine(ValueError):
    """A line is not what was written.

    Attributes
    ----------
    number : the line's, counted from 1
    text : its bytes
    reason : "not a JSON object", "without a checksum, which others have", ...
    """

    def __init__(self, number: int, text: bytes, reason: str) -> None:
        super().__init__(f"line {number} is damaged ({text[:40]!r}: {reason})")
        self.number = number
        self.reason = reason
        self.text = text


class MetricsLog:
    """The ``metrics.jsonl`` of a run that is being made: appends lines, and drops those made again.

    Parameters
    ----------
    path : the file; it need not exist
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: MetricsLine) -> None:
        """Write one line and flush it to the operating system.

        Raises
        ------
        ValueError
            A value is NaN or infinite.
        WriteError
            The disk is full, the file is a folder, ...; readers leave out half a line at the end.
        """
        text = line_text(asdict(line))
        with writing(self.path), open(self.path, "a", opener=_no_link) as stream:
            stream.write(text)

    def sync(self) -> None:
        """Make the lines survive a power cut: before a checkpoint that a resumed run starts from."""
        if self.path.exists():
            with writing(self.path), self.path.open("rb") as stream:
                os.fsync(stream.fileno())

    def read(self) -> list[dict[str, Any]]:
        """Every line, see `read_metrics`."""
        with writing(self.path):  # the error names a folder that has the file's name
            return read_metrics(self.path)

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
        """Drop the lines of `phase` beyond `step`, which a resumed run writes again."""
        kept = [line for line in self.read() if line["phase"] != phase or line["step"] <= step]
        self.replace(kept)

    def replace(self, lines: list[dict[str, Any]]) -> None:
        """Make the file hold exactly `lines`, atomically."""
        with atomic_path(self.path) as aside:
            aside.write_text("".join(line_text(line) for line in lines))


def line_of(entry: dict[str, Any]) -> MetricsLine:
    """One entry of `read_metrics` as a `MetricsLine`; a line of another version may hold more.

    Raises
    ------
    MetricsError
        It lacks a field.
    """
    names = [field.name for field in fields(MetricsLine)]
    if missing := [name for name in names if name not in entry]:
        raise MetricsError(f"a metrics line of step {entry['step']} lacks {', '.join(missing)}")
    return MetricsLine(**{name: entry[name] for name in names})


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all lines of a ``metrics.jsonl``; strict.

    Parameters
    ----------
    path : the file; where there is none, there are no lines

    Returns
    -------
    The lines without their checksums, each with at least ``phase`` and ``step``.

    Raises
    ------
    MetricsError
        A line is not one of a metrics file, or not what was written.
    """
    try:
        *complete, _torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    try:
        return parse_lines(complete)
    except DamagedLine as error:
        raise MetricsError(
            f"{path}: {error}; put back an undamaged copy of the file, or remove {to_remove(path.parent)} to "
            "make the run anew, to the same numbers"
        ) from error


def last_metrics(path: Path, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Read the last lines of a ``metrics.jsonl`` that another process may be writing; lenient.

    Parameters
    ----------
    path : the file; where there is none, there are no lines
    report : called with one sentence for each damaged line, which is left out, or for an unreadable file

    Returns
    -------
    Lines at least back to the newest test loss, where there is one in the last 4 MB.
    """
    length = _FIRST_TAIL
    while True:
        try:
            text, complete = _tail(path, length)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            report(f"{path} cannot be read ({error})")
            return []
        lines = _undamaged(path, text, report)
        if complete or length >= _LONGEST_TAIL or any(line.get("split") == "test" for line in lines):
            return lines
        length *= 8


def line_text(entry: dict[str, Any]) -> str:
    """One line as it is written, its end included; NaN and infinity are errors."""
    return json.dumps({**entry, CHECK: _check(entry)}, allow_nan=False) + "\n"


def parse_lines(lines: Iterable[bytes], first: int = 1) -> list[dict[str, Any]]:
    """Entries of complete lines, without their checksums.

    Parameters
    ----------
    lines : without their line ends
    first : number of the first one, for messages

    Returns
    -------
    One JSON object for each line, with at least ``phase`` and ``step``.

    Raises
    ------
    DamagedLine
        A line is no JSON object, or lacks phase and step, or its content does not fit its checksum, or it has
        none where others do.
    """
    parsed = [_parse(number, text) for number, text in enumerate(lines, start=first)]
    if any(checked for _, checked, _, _ in parsed):
        for _, checked, number, text in parsed:
            if not checked:
                raise DamagedLine(number, text, "without a checksum, which others have")
    return [entry for entry, _, _, _ in parsed]


def mark(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Number and checksum of lines, wall times included: a checkpoint keeps it, to recognise its lines."""
    digest, count = xxhash.xxh3_128(), 0
    for count, entry in enumerate(entries, start=1):  # noqa: B007 (the last one counts)
        digest.update(line_text(entry).encode())
    return {"lines": count, CHECKSUM: digest.hexdigest()}


def check_final(lines: Iterable[dict[str, Any]], losses: dict[str, float]) -> str | None:
    """Compare the final losses of a run with its last evaluations.

    Parameters
    ----------
    lines : of the run's metrics
    losses : final test loss in nats by weights (``raw``, ``ema``)

    Returns
    -------
    How they disagree, to follow the name of the file with the final losses; None where they do not.
    """
    last = {
        str(line["weights"]): line["loss"]
        for line in lines
        if line.get("phase") == "finetune" and line.get("split") in ("test", "test_all")
    }
    for weights, loss in losses.items():
        if weights not in last or last[weights] != loss:
            return f"has a final loss of {loss} ({weights} weights), the metrics have {last.get(weights)}"
    return None


def _parse(number: int, text: bytes) -> tuple[dict[str, Any], bool, int, bytes]:
    try:
        entry = json.loads(text)
    except ValueError as error:  # no JSON, or no UTF-8
        raise DamagedLine(number, text, "not a JSON object") from error
    if not isinstance(entry, dict):
        raise DamagedLine(number, text, "not a JSON object")
    checked = CHECK in entry
    if checked:
        found = entry.pop(CHECK)
        try:
            fits = found == _check(entry) and line_text(entry).encode() == text + b"\n"
        except ValueError:  # infinity, where a digit of an exponent was changed
            fits = False
        if not fits:
            raise DamagedLine(number, text, "its content does not fit its checksum")
    if not (isinstance(entry.get("phase"), str) and isinstance(entry.get("step"), int)):
        raise DamagedLine(number, text, "no phase and step")
    return entry, checked, number, text


def _check(entry: dict[str, Any]) -> str:
    covered = {key: value for key, value in entry.items() if key != _UNCHECKED}
    return xxhash.xxh3_64_hexdigest(json.dumps(covered, allow_nan=False).encode())


def _undamaged(path: Path, text: bytes, report: Callable[[str], None]) -> list[dict[str, Any]]:
    complete = [line[:-1] for line in text.splitlines(keepends=True) if line.endswith(b"\n") and line.strip()]
    while True:
        try:
            return parse_lines(complete)
        except DamagedLine as error:
            report(f"{path} has a damaged line ({error.reason}); it is left out")
            complete.pop(error.number - 1)


def _tail(path: Path, length: int) -> tuple[bytes, bool]:
    """The last complete lines within `length` bytes, and whether that is the entire file."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - length))
        text = stream.read(length)
    if size <= length:
        return text, True
    return text[text.find(b"\n") + 1 :], False


def _no_link(path: str, flags: int) -> int:
    """Open a file, but not through a symbolic link, which another user may have put there."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
