"""One damaged file at a time: what its readers say."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.child import Outcome, in_child

VERDICTS = ("refused", "made again", "no effect", "accepted", "crashed")
"""Refused: an error with the file's name. Made again: the same result, and the log says so. No effect: the
same result without a word (the bit says nothing, such as a space of a text). Accepted: another result
without a word. Crashed: ended by a signal, or an error without the file's name."""

BAD = ("accepted", "crashed")


@dataclass(frozen=True)
class FilesKind:
    """A kind of files.

    Attributes
    ----------
    name : its row in the table
    flips : how many bits to flip, and a fifth as many times a file is cut off
    make : write the files, and whatever else their use needs, into an empty folder
    files : those in the folder to damage
    use : read them all, the way the programs do; a digest of everything that they said
    changes : `use` writes to the files, so that each try needs a fresh copy
    """

    name: str
    flips: int
    make: Callable[[Path], object]
    files: Callable[[Path], list[Path]]
    use: Callable[[Path], str]
    changes: bool = False


@dataclass
class Tally:
    """Faults of one kind by what they are, their verdicts, and those that went wrong."""

    name: str
    faults: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def add(self, fault: str, verdict: str, where: str, outcome: Outcome) -> None:
        """Count one."""
        self.faults[fault] += 1
        self.verdicts[verdict] += 1
        if verdict in BAD:
            reason = f"signal {outcome.signal}" if outcome.signal else outcome.error
            self.bad.append(f"{where}: {verdict} {reason}".rstrip())


def flip_a_bit(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Content with one bit changed, and which."""
    bit = rng.randrange(8 * len(content))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed), f"bit {bit}"


def cut_off(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The beginning of the content, down to nothing, and its length."""
    length = rng.randrange(len(content))
    return content[:length], f"cut off after {length} of {len(content)} bytes"


INJECTIONS = {"bits flipped": flip_a_bit, "cut off": cut_off}
CUTS_PER_FLIP = 0.2


def run(kind: FilesKind, folder: Path, flips: int, seed: int) -> Tally:
    """Flip `flips` bits, and cut off some files, spread evenly over the files of a kind, and judge each."""
    whole, used = folder / "whole", folder / "used"
    whole.mkdir()
    kind.make(whole)
    shutil.copytree(whole, used)
    undamaged = in_child(lambda: kind.use(used))
    if undamaged.error or undamaged.signal:
        raise RuntimeError(f"{kind.name}: undamaged it ends with {undamaged.error}\n{undamaged.where}")
    files = [path.relative_to(whole) for path in kind.files(whole) if path.stat().st_size]
    tally = Tally(kind.name)
    for fault, inject in INJECTIONS.items():
        rng = random.Random(f"{seed} {kind.name} {fault}")
        for number in range(flips if fault == "bits flipped" else round(CUTS_PER_FLIP * flips)):
            file = files[number % len(files)]
            content, what = inject((whole / file).read_bytes(), rng)
            outcome = _use(kind, whole, used, file, content)
            tally.add(fault, verdict(outcome, undamaged.value, file.name), f"{file}, {what}", outcome)
    return tally


def _use(kind: FilesKind, whole: Path, used: Path, file: Path, content: bytes) -> Outcome:
    """Use the files with another content of one of them."""
    if kind.changes:
        shutil.rmtree(used)
        shutil.copytree(whole, used)
    (used / file).write_bytes(content)
    outcome = in_child(lambda: kind.use(used))
    if not kind.changes:
        shutil.copyfile(whole / file, used / file)
    return outcome


def verdict(outcome: Outcome, expected: str, name: str) -> str:
    """One of `VERDICTS`."""
    if outcome.signal:
        return "crashed"
    if outcome.error:
        return "refused" if outcome.names(name) else "crashed"
    if outcome.value == expected:
        return "made again" if outcome.log else "no effect"
    return "accepted"
