"""Bits flipped in what the simulator writes: found by name, or made again with the same bytes."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest

from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import jet_file
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.manifests import manifest_path
from jetscale.simulate.output_files import Target, is_finished
from jetscale.simulate.parts import has_part
from jetscale.simulate.production import make_chunk, simulate
from jetscale.simulate.pythia import is_whole, mpi_settings, save_mpi_table
from tests.jets.stores import open_jets

FLIPS = 30


def target(out: Path, dataset: str = "jetclass", process: str = "WToQQ") -> Target:
    return Target(out, jet_file(dataset, process, 0), 20, seed=0, mpi=False)


def flip(path: Path, bit: int) -> None:
    changed = bytearray(path.read_bytes())
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)


def bits(path: Path, n: int = FLIPS) -> list[int]:
    rng = random.Random(11)
    return [rng.randrange(8 * path.stat().st_size) for _ in range(n)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT and a parquet file with their manifests."""
    out = tmp_path_factory.mktemp("whole")
    simulate([target(out), target(out, "jetclass2", "QCD")], 1, out)
    return out


@pytest.mark.parametrize("made", [("jetclass", "WToQQ"), ("jetclass2", "QCD")])
def test_a_jet_file_is_compared_with_its_manifest(
    folder: Path, tmp_path: Path, made: tuple[str, str]
) -> None:
    path = target(folder, *made).path
    copy = Path(shutil.copy(path, tmp_path))
    beside = Path(shutil.copy(manifest_path(path), tmp_path))
    for bit in bits(copy):
        flip(copy, bit)
        with pytest.raises(JetDataError, match=re.escape(f"{copy}: damaged, SHA-256")):
            open_jets(copy)
        flip(copy, bit)
    for bit in bits(beside):
        flip(beside, bit)
        with pytest.raises(JetDataError, match=re.escape(f"{beside} is damaged")):
            open_jets(copy)
        flip(beside, bit)
    written = beside.read_bytes()
    for length in (0, 1, 50, len(written) - 1):
        beside.write_bytes(written[:length])
        with pytest.raises(JetDataError, match=re.escape(f"{beside} is damaged")):
            open_jets(copy)
    beside.write_bytes(written)
    with open_jets(copy) as reader:
        assert reader.n_jets == 20


def test_json_of_another_origin_beside_a_jet_file_is_left_alone(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(target(folder).path, tmp_path))
    manifest_path(copy).write_text('{"note": "mine"}')
    with open_jets(copy) as reader:
        assert reader.n_jets == 20


def test_a_damaged_manifest_is_not_taken_for_other_settings(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "out")
    made = target(tmp_path / "out")
    assert is_finished(made)
    for bit in bits(made.manifest_path):
        flip(made.manifest_path, bit)
        with pytest.raises(UsageError, match=re.escape(f"{made.manifest_path} is damaged")):
            is_finished(made)
        flip(made.manifest_path, bit)


def test_a_damaged_chunk_is_made_again(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = target(tmp_path)
    part = made.part(made.chunks()[0])
    make_chunk(made, made.chunks()[0])
    assert has_part(part)
    for bit in bits(part):
        flip(part, bit)
        assert not has_part(part)
        assert f"{part} is damaged" in caplog.messages[-1]
        flip(part, bit)
    flip(part, 8 * 1000)
    simulate([made], 1, tmp_path)
    assert made.path.read_bytes() == target(folder).path.read_bytes()


def test_a_damaged_table_of_multiparton_interactions_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "mpi.txt"
    save_mpi_table(table)
    assert is_whole(table)
    for bit in range(0, 8 * table.stat().st_size, 101):
        flip(table, bit)
        assert not is_whole(table)
        with pytest.raises(RuntimeError, match=re.escape(f"{table} is damaged")):
            mpi_settings(table)
        flip(table, bit)
