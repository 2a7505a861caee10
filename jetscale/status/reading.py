"""Reading files that other processes are writing: what cannot be read becomes a note, never an exception."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jetscale.common.files import DamagedFile
from jetscale.runs.config_file import read_config
from jetscale.runs.done import DamagedRun, Done, read_done
from jetscale.runs.layout import DONE, KEPT, METRICS, OWNER
from jetscale.runs.metrics import last_metrics
from jetscale.runs.ownership import Beats, Owner, living
from jetscale.runs.record import RunRecord
from jetscale.runs.sealed import read_json

_Stamp = tuple[int, int, int] | None


@dataclass
class Reader:
    """Reads run directories, again and again; what cannot be read becomes a note.

    Attributes
    ----------
    notes : what could not be read, one sentence each
    """

    notes: list[str] = field(default_factory=list)
    _beats: Beats = field(default_factory=Beats)
    _kept: dict[Path, tuple[tuple[_Stamp, ...], Any]] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Add a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)

    def json_object(self, path: Path) -> dict[str, Any] | None:
        """The JSON object in `path`; None where there is no such file, or, with a note, where it is damaged.

        An unchanged file (same inode, size and time) is not read again.
        """
        stamp = _stamp(path)
        kept = self._kept.get(path)
        if kept is not None and kept[0] == (stamp,):
            earlier: dict[str, Any] = kept[1]
            return earlier
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

    def done(self, folder: Path) -> Done[RunRecord] | None:
        """The finished run in `folder`, every file verified; None where it is not finished.

        While none of its files changes (same inode, size and time), they are not read again.

        Raises
        ------
        DamagedRun
            One of its files is damaged; a note tells it too.
        """
        stamps = tuple(_stamp(folder / name) for name in (DONE, *KEPT))
        kept = self._kept.get(folder)
        if kept is not None and kept[0] == stamps:
            verified: Done[RunRecord] | None = kept[1]
            return verified
        try:
            found = read_done(folder)
        except DamagedRun as error:
            self.note(str(error))
            raise
        if found is not None:
            self._kept[folder] = (stamps, found)
        return found

    def owner(self, folder: Path) -> Owner | None:
        """The living process that writes in `folder`; None where there is none."""
        record = self.json_object(folder / OWNER)
        if record is None:
            return None
        try:
            return living(folder, record, self._beats)
        except ValueError as error:
            self.note(f"{folder / OWNER} is ignored: {error}")
            return None

    def last_lines(self, folder: Path) -> list[dict[str, Any]]:
        """The last metrics lines of the run in `folder`; a damaged one is left out, with a note."""
        return last_metrics(folder / METRICS, self.note)

    def config(self, folder: Path) -> dict[str, Any]:
        """The settings of the run in `folder`, as plain values; none where they cannot be read."""
        try:
            return read_config(folder)
        except FileNotFoundError:
            return {}
        except DamagedFile as error:
            self.note(str(error))
            return {}


def _stamp(path: Path) -> _Stamp:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def number(content: Any, *keys: str) -> float | None:
    """The finite number at ``content[key][key]...``; None for anything else."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    if isinstance(content, bool) or not isinstance(content, int | float) or not math.isfinite(content):
        return None
    return float(content)


def whole(content: Any, *keys: str) -> int | None:
    """The whole number at ``content[key][key]...``, as `number`."""
    found = number(content, *keys)
    return None if found is None else int(found)
