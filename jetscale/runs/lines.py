"""Lines of ``metrics.jsonl``: one JSON object each, which ends in a checksum of itself.

The checksum covers everything but the wall time, so that a resumed run writes the same lines as an
undisturbed one. Files of earlier versions have no checksums; a file has them in all of its lines or in none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import xxhash

from jetscale.common.files import CHECKSUM

CHECK = "check"
"""Last key of a line: XXH3-64 of its other content, the wall time left out."""
_UNCHECKED = "seconds"


class DamagedLine(ValueError):
    """A line is not what was written.

    Attributes
    ----------
    number : the line's, counted from 1
    text : its bytes
    reason : "not a JSON object", "damaged", ...
    """

    def __init__(self, number: int, text: bytes, reason: str) -> None:
        super().__init__(f"line {number} is damaged ({text[:40]!r}: {reason})")
        self.number = number
        self.reason = reason
        self.text = text


def line_text(entry: dict[str, Any]) -> str:
    """One line as it is written, its end included; NaN and infinity are errors."""
    return json.dumps({**entry, CHECK: _check(entry)}, allow_nan=False) + "\n"


def parse_lines(lines: Iterable[bytes], first: int = 1) -> list[dict[str, Any]]:
    """Entries of whole lines, without their checksums.

    Parameters
    ----------
    lines : without their ends
    first : number of the first one, for messages

    Raises
    ------
    DamagedLine
        A line is no JSON object, or its content does not fit its checksum, or it has none where others do.
    """
    parsed = [_parse(number, text) for number, text in enumerate(lines, start=first)]
    if any(checked for _, checked, _, _ in parsed):
        for _, checked, number, text in parsed:
            if not checked:
                raise DamagedLine(number, text, "without a checksum, which others have")
    return [entry for entry, _, _, _ in parsed]


def mark(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Number and checksum of entries, wall times included: what a checkpoint remembers of its lines."""
    digest, count = xxhash.xxh3_128(), 0
    for count, entry in enumerate(entries, start=1):  # noqa: B007 (the last one counts)
        digest.update(line_text(entry).encode())
    return {"lines": count, CHECKSUM: digest.hexdigest()}


def _parse(number: int, text: bytes) -> tuple[dict[str, Any], bool, int, bytes]:
    try:
        entry = json.loads(text)
    except ValueError as error:  # no JSON, or no UTF-8
        raise DamagedLine(number, text, "not a JSON object") from error
    if not isinstance(entry, dict):
        raise DamagedLine(number, text, "not a JSON object")
    if CHECK not in entry:
        return entry, False, number, text
    found = entry.pop(CHECK)
    try:
        fits = found == _check(entry) and line_text(entry).encode() == text + b"\n"
    except ValueError:  # infinity, where a digit of an exponent was changed
        fits = False
    if not fits:
        raise DamagedLine(number, text, "not what its checksum is of")
    return entry, True, number, text


def _check(entry: dict[str, Any]) -> str:
    covered = {key: value for key, value in entry.items() if key != _UNCHECKED}
    return xxhash.xxh3_64_hexdigest(json.dumps(covered, allow_nan=False).encode())
