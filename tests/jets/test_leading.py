"""The leading constituents are kept, in one order, however a file has them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from jetscale.jets.evaluation import EvalSet
from jetscale.jets.features import FEATURE_SETS, PAPER, PART17
from jetscale.jets.reading.raw import RawJets, leading_first
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.packed_jets import pack
from tests.jets.stores import open_jets
from tests.jets.variants import columns_of, lengthened, pt_squared, reordered, write_root

KEPT = 128


def read(path: Path) -> RawJets:
    with open_jets(path) as file:
        (raw,) = file.jets(tuple({*PAPER.reads, *PART17.reads}))
    return raw


def orders(columns: dict[str, Any]) -> dict[str, Any]:
    falling = ak.argsort(pt_squared(columns), axis=1, ascending=False, stable=True)
    rng = np.random.default_rng(3)
    shuffle = ak.argsort(ak.unflatten(rng.random(ak.sum(ak.num(falling))), ak.num(falling)), axis=1)
    return {"falling": falling, "rising": falling[:, ::-1], "shuffled": shuffle}


@pytest.fixture(scope="module")
def long_jets() -> dict[str, Any]:
    """30 jets of 200 constituents: more than are kept."""
    return lengthened(columns_of(), 200)


@pytest.mark.parametrize("features", sorted(FEATURE_SETS))
def test_same_batch_from_any_order(long_jets: dict[str, Any], tmp_path: Path, features: str) -> None:
    batches = {}
    for name, order in orders(long_jets).items():
        write_root(tmp_path / name / "JetClass" / "HToBB_100.root", reordered(long_jets, order))
        settings = DataSettings(dir=str(tmp_path / name), features=features, max_constituents=KEPT)
        batches[name] = next(EvalSet(settings, "jetclass").batches(30))
    wanted = batches["falling"]
    assert wanted.lengths_B.tolist() == [KEPT] * 30
    for batch in batches.values():
        assert torch.equal(batch.x_TF, wanted.x_TF)
        assert torch.equal(batch.labels_B, wanted.labels_B)
        if features == "paper":
            assert torch.equal(batch.pid_T, wanted.pid_T)
    leading = np.sort(ak.to_numpy(pt_squared(long_jets)), axis=1)[:, ::-1][:, :KEPT]
    column = wanted.x_TF[:, [name for name, _ in FEATURE_SETS[features].columns].index("part_pt_log")]
    by_hand = np.log(np.sqrt(leading))
    by_hand = (by_hand - 1.9) / 1.25 if features != "part17" else np.clip((by_hand - 1.7) * 0.7, -5, 5)
    np.testing.assert_allclose(np.sort(column.numpy()), np.sort(by_hand.ravel()), atol=4e-3)


@pytest.mark.parametrize("kind", ["root", "parquet"])
def test_ascending_and_descending_files(
    write: SimpleNamespace, tmp_path: Path, long_jets: dict[str, Any], kind: str
) -> None:
    packed = {}
    for name, order in orders(long_jets).items():
        columns = reordered(long_jets, order)
        if kind == "root":
            raw = read(write_root(tmp_path / f"{name}_000.root", columns))
        else:
            path = write.jetclass2(tmp_path / f"{name}_0000.parquet", [161] * 30, seed=1)
            parts = {column: values for column, values in columns.items() if column.startswith("part_")}
            table = pq.read_table(path)
            for column, values in parts.items():
                at = table.schema.get_field_index(column)
                table = table.set_column(at, column, ak.to_arrow(values, extensionarray=False))
            pq.write_table(table, path)
            raw = read(path)
        packed[name] = pack(raw, PART17)
    for jets in packed.values():
        assert np.array_equal(jets.x_TF, packed["falling"].x_TF)
        assert np.array_equal(jets.offsets, packed["falling"].offsets)


def test_sorted_files_stay_as_they_are(real_jets: Path, write: SimpleNamespace, tmp_path: Path) -> None:
    simulated_like = write.jetclass(tmp_path / "HToBB_000.root", "Hbb", 300, seed=4)
    for path in (real_jets, simulated_like):
        raw = read(path)
        assert leading_first(raw) is raw, "published files are sorted: nothing is moved, nothing copied"


def jets(*pts: list[tuple[float, float]]) -> RawJets:
    """Jets with these (px, py), and the place in the file as energy."""
    flat = np.array([pair for jet in pts for pair in jet], np.float32)
    offsets = np.concatenate([[0], np.cumsum([len(jet) for jet in pts])])
    energy = np.arange(len(flat), dtype=np.float32)
    part = {"part_px": flat[:, 0], "part_py": flat[:, 1], "part_energy": energy}
    return RawJets(Path("x.root"), 0, offsets, part, {}, np.zeros(len(pts), np.uint8))


def places(raw: RawJets) -> list[float]:
    return leading_first(raw).constituents["part_energy"].tolist()


def test_ties_and_rounding() -> None:
    up = float(np.nextafter(np.float32(3), np.float32(4)))
    assert places(jets([(3, 4), (4, 3), (1, 0)])) == [0, 1, 2], "falling with a tie: as it lies"
    assert places(jets([(1, 0), (4, 3), (3, 4)])) == [2, 1, 0], "the same turned round"
    assert places(jets([(1, 0), (4, 3), (2, 0), (3, 4)])) == [1, 3, 2, 0], "equal pT keep the file's order"
    assert places(jets([(3, 0), (up, 0), (1, 0)])) == [0, 1, 2], "a rise by rounding is none"
    assert places(jets([(5, 0)])) == [0]
    assert places(jets([(5, 0), (1, 0)], [(1, 0), (2, 0)], [(1, 0), (3, 0), (2, 0)])) == [0, 1, 3, 2, 5, 6, 4]


def test_all_columns_move_together(tmp_path: Path) -> None:
    columns = columns_of()
    raw = leading_first(read(write_root(tmp_path / "HToBB_000.root", columns)))
    order = ak.argsort(pt_squared(columns), axis=1, ascending=False, stable=True)
    for name, values in raw.constituents.items():
        assert values.tolist() == ak.flatten(columns[name][order]).to_list(), name
