"""A flipped bit in what an analysis or a sweep keeps is refused with the file's name, never read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import load_losses
from jetscale.analysis.answers import laws
from jetscale.analysis.settings import FitSettings, UncertaintySettings
from jetscale.analysis.tables.sources import saved
from jetscale.common.files import DamagedFile
from jetscale.common.usage import UsageError
from jetscale.runs import parquet
from jetscale.runs.metrics import DamagedLine, line_text, parse_lines
from jetscale.runs.sealed import read_json, write_json_sealed

Sweep = Callable[..., Path]


def flips(path: Path, count: int) -> Iterator[None]:
    """The file with one bit of it flipped, `count` times, all bits alike likely."""
    rng = np.random.default_rng(11)
    whole = path.read_bytes()
    for _ in range(count):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        yield
    path.write_bytes(whole)


@pytest.fixture
def analysed(sweep: Sweep, tmp_path: Path) -> Path:
    from jetscale.analysis.answers.fit_table import fit

    path = sweep({"scratch": 0.5}, widths=(16, 32, 64, 128), seeds=2, evaluations=12)
    errors = UncertaintySettings(replicates=20, test_jet_samples=0, profile=False)
    fit(load_losses(path), FitSettings(blocks=100, multiverse=False, uncertainty=errors)).save(
        tmp_path / "out"
    )
    return tmp_path / "out"


def test_a_saved_analysis_is_read_whole_or_not_at_all(analysed: Path) -> None:
    assert set(laws.of(analysed).laws) == {"scratch"}
    names = [
        "results.json",
        "losses.parquet",
        "losses-blocks.parquet",
        "replicates.parquet",
        "checksums.json",
    ]
    assert sorted(path.name for path in analysed.iterdir()) == sorted(names)
    for name in names:
        for _ in flips(analysed / name, 80):
            with pytest.raises(UsageError, match=rf"{name.split('.')[0]}.*analysis` again"):
                laws.of(analysed)
    (analysed / "checksums.json").unlink()
    with pytest.raises(UsageError, match=r"checksums\.json is missing"):
        laws.of(analysed)


def test_a_saved_analysis_of_an_earlier_version_is_read(analysed: Path) -> None:
    for name in ("losses.parquet", "replicates.parquet"):
        pd.read_parquet(analysed / name).to_parquet(analysed / name, index=False)
    (analysed / "checksums.json").unlink()
    assert set(laws.of(analysed).laws) == {"scratch"}


def test_a_saved_table_is_read_whole_or_not_at_all(analysed: Path) -> None:
    table = analysed / "losses.parquet"
    assert load_losses(table).blocks is not None
    for path in (table, saved.blocks_beside(table)):
        for _ in flips(path, 150):
            with pytest.raises(UsageError, match=path.name):
                load_losses(table)


def test_parquet_of_others_is_read_as_it_is(tmp_path: Path) -> None:
    frame = pd.DataFrame({"N": [1e3, 2e3], "D": [1e6, 1e6], "loss": [2.0, 1.9]})
    frame.to_parquet(tmp_path / "a.parquet")
    parquet.check(tmp_path / "a.parquet")
    assert len(load_losses(tmp_path / "a.parquet").frame) == 2


def test_frames_come_back_with_what_they_were_told(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, np.nan], "name": ["a", "b"]})
    frame.attrs["facts"] = {"k": 6.0}
    parquet.write_frame(frame, tmp_path / "a.parquet")
    again = pd.read_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(again, frame)
    assert again.attrs == frame.attrs
    first = (tmp_path / "a.parquet").read_bytes()
    parquet.write_frame(frame, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == first


def test_sealed_json_never_passes_for_that_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_json_sealed(path, {"runs": [{"directory": "a", "dim": 8}]})
    assert read_json(path) == ({"runs": [{"directory": "a", "dim": 8}]}, True)
    for place in range(8 * path.stat().st_size):  # every single bit
        content = bytearray(path.read_bytes())
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=r"plan\.json"):
            read_json(path)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
    path.write_text('{"runs": []}')
    assert read_json(path) == ({"runs": []}, False)


def refused(lines: list[bytes]) -> bool:
    """Whether the second line is named as damaged."""
    try:
        parse_lines(lines)
    except DamagedLine as error:
        return error.number == 2
    return False


def test_every_bit_of_a_line_but_its_wall_time_is_checked() -> None:
    entry: dict[str, Any] = {"phase": "finetune", "step": 5, "loss": 2.25, "seconds": 1.5}
    lines = [line_text({**entry, "step": step}).encode()[:-1] for step in (1, 2, 3)]
    assert [line["step"] for line in parse_lines(lines)] == [1, 2, 3]
    unseen = 0
    for place in range(8 * len(lines[1])):
        changed = bytearray(lines[1])
        changed[place // 8] ^= 1 << place % 8
        if not refused([lines[0], bytes(changed), lines[2]]):
            unseen += 1
            different = json.loads(changed)
            del different["seconds"], different["check"]
            assert different == {"phase": "finetune", "step": 2, "loss": 2.25}
    assert unseen < 20  # digits of the seconds, which a checkpoint's mark and done.json cover
