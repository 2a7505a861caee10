"""A share of ``python -m benchmarks.faults`` (docs/reliability.md), so that what it counts stays at 0."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.faults.__main__ import table
from benchmarks.faults.child import Outcome, in_child
from benchmarks.faults.flips import FilesKind, cut_off, flip_a_bit, run, verdict
from tests.warm import WarmServer

REPO = Path(__file__).parents[1]
QUICK = (
    "packed store",
    "`prepare`",
    "jet files",
    "multiparton",
    "finished run",
    "sweep",
    "outputs",
    "settings",
)
"""All kinds but those that train or simulate for each fault."""


@pytest.mark.slow
def test_no_fault_goes_unnoticed(warm: WarmServer) -> None:
    words = ["--share", "0.1", "--seed", "1", *QUICK]
    done = warm.run("benchmarks.faults", words, REPO, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "packed store, an epoch of training | 20 bits flipped, 4 cut off | 24 |" in done.stdout


def careless(folder: Path) -> str:
    """A reader that believes what it reads, complains of a capital without a name, and dies of a digit."""
    text = (folder / "a.txt").read_text(errors="replace")
    if text[0].isdigit():
        import os

        os.abort()
    if text != text.lower():
        raise ValueError("a capital")
    return text.strip()


def careful(folder: Path) -> str:
    text = (folder / "a.txt").read_text(errors="replace")
    if text != "word":
        raise ValueError("a.txt is damaged")
    return text


@pytest.mark.parametrize(("use", "bad"), [(careless, True), (careful, False)])
def test_the_count_tells_a_careless_reader_from_a_careful_one(tmp_path: Path, use: object, bad: bool) -> None:
    assert callable(use)
    kind = FilesKind(
        "words",
        40,
        lambda folder: (folder / "a.txt").write_text("word"),
        lambda folder: [folder / "a.txt"],
        use,
    )
    tally = run(kind, tmp_path, 40, seed=0)
    assert tally.faults == {"bits flipped": 40, "cut off": 8}
    assert sum(tally.verdicts.values()) == 48
    assert bool(tally.bad) == bad
    assert (tally.verdicts["accepted"] > 0, tally.verdicts["refused"] == 48) == (bad, not bad)
    assert "| words | 40 bits flipped, 8 cut off |" in table([tally])


def test_verdicts() -> None:
    assert verdict(Outcome(signal=11), "x", "a.txt") == "crashed"
    assert verdict(Outcome(error="ValueError: bad"), "x", "a.txt") == "crashed"
    assert verdict(Outcome(error="ValueError: a.txt is bad"), "x", "a.txt") == "refused"
    assert verdict(Outcome(value="y"), "x", "a.txt") == "accepted"
    assert verdict(Outcome(value="x"), "x", "a.txt") == "no effect"
    assert verdict(Outcome(value="x", log=["a.txt: made anew"]), "x", "a.txt") == "made again"


def test_a_signal_and_a_hang_are_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal
    import time

    monkeypatch.setattr("benchmarks.faults.child.SECONDS", 1)
    assert in_child(lambda: "fine").value == "fine"
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGSEGV) or "").signal == signal.SIGSEGV
    assert in_child(lambda: time.sleep(30) or "").signal == signal.SIGALRM
    assert in_child(lambda: str(1 / 0)).error == "ZeroDivisionError: division by zero"


def test_injections() -> None:
    import random

    rng, content = random.Random(0), b"abcdef"
    for _ in range(20):
        changed, _ = flip_a_bit(content, rng)
        assert sum((one ^ two).bit_count() for one, two in zip(content, changed, strict=True)) == 1
        shorter, _ = cut_off(content, rng)
        assert len(shorter) < len(content)
        assert content.startswith(shorter)
