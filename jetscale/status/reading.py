"""Reading files that other processes are writing: what cannot be read becomes a note, never an exception."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jetscale.common.files import DamagedFile
from jetscale.runs.done import DONE, KEPT, DamagedRun, Done, read_done
from jetscale.runs.lines import DamagedLine, parse_lines
from jetscale.runs.sealed import read_json

_FIRST_TAIL = 64 * 1024  # about 250 lines: at the paper's settings the last five evaluations
_LONGEST_TAIL = 4 * 1024 * 1024


_Stamp = tuple[int, int, int] | None


@dataclass
class Reader:
    """Reads, collects notes, and keeps what a finished run's file said (for a table that refreshes).

    Attributes
    ----------
    notes : what could not be read, one sentence each
    """

    notes: list[str] = field(default_factory=list)
    _kept: dict[Path, tuple[tuple[_Stamp, ...], Any]] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Add a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)

    def json_object(self, path: Path) -> dict[str, Any] | None:
        """The JSON object in `path`; None where there is no such file, or with a note where it is bad.

        An unchanged file (same inode, size and time) is not read again.
        """
        stamp = _stamp(path)
        kept = self._kept.get(path)
        if kept is not None and kept[0] == (stamp,):
            return kept[1]  # type: ignore[no-any-return]  # JSON, as written by us
        try:
            content, _ = read_json(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except DamagedFile as error:
            self.note(str(error))
            return None
        except OSError as error:
            self.note(f"{path} cannot be read ({error})")
            return None
        self._kept[path] = ((stamp,), content)
        return content

    def done(self, folder: Path) -> Done | None:
        """The finished run in `folder`, every file verified; None where it is not finished.

        While none of its files changes (same inode, size and time), they are not read again.

        Raises
        ------
        DamagedRun
            One of its files is damaged; it is noted too.
        """
        stamps = tuple(_stamp(folder / name) for name in (DONE, *KEPT))
        kept = self._kept.get(folder)
        if kept is not None and kept[0] == stamps:
            return kept[1]  # type: ignore[no-any-return]
        try:
            found = read_done(folder)
        except DamagedRun as error:
            self.note(str(error))
            raise
        if found is not None:
            self._kept[folder] = (stamps, found)
        return found

    def last_lines(self, path: Path) -> list[dict[str, Any]]:
        """The last lines of a ``metrics.jsonl``, at least back to the newest test loss where there is one.

        A torn last line (being written, or its writer was killed) is left out; a damaged one gets a note.
        """
        length = _FIRST_TAIL
        while True:
            try:
                text, whole = _tail(path, length)
            except (FileNotFoundError, NotADirectoryError):
                return []
            except OSError as error:
                self.note(f"{path} cannot be read ({error})")
                return []
            lines = self._lines(path, text)
            if whole or length >= _LONGEST_TAIL or any(line.get("split") == "test" for line in lines):
                return lines
            length *= 8

    def _lines(self, path: Path, text: bytes) -> list[dict[str, Any]]:
        whole = [
            line[:-1] for line in text.splitlines(keepends=True) if line.endswith(b"\n") and line.strip()
        ]
        while True:
            try:
                return parse_lines(whole)
            except DamagedLine as error:
                self.note(f"{path} has a line that is {error.reason}; it is left out")
                whole.pop(error.number - 1)


def _stamp(path: Path) -> _Stamp:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _tail(path: Path, length: int) -> tuple[bytes, bool]:
    """The last whole lines within `length` bytes, and whether that is the whole file."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - length))
        text = stream.read(length)
    if size <= length:
        return text, True
    return text[text.find(b"\n") + 1 :], False


def number(content: Any, *keys: str) -> float | None:
    """The finite number at ``content[key][key]...``; None for anything else."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    if isinstance(content, bool) or not isinstance(content, int | float) or not math.isfinite(content):
        return None
    return float(content)


def whole(content: Any, *keys: str) -> int | None:
    """As `number`, for counts."""
    found = number(content, *keys)
    return None if found is None else int(found)
