from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from jetscale.jets.datasets.jetclass import JETCLASS_LABELS
from jetscale.jets.errors import JetDataError
from jetscale.jets.features import PART17
from jetscale.jets.reading.raw import RawJets
from tests.jets.stores import open_jets

FEATURES = PART17.reads


def read_all(path: Path, **options: Any) -> list[RawJets]:
    with open_jets(path) as file:
        return list(file.jets(FEATURES, **options))


def assert_equals_source(raw: RawJets, columns: dict[str, Any]) -> None:
    assert np.array_equal(np.diff(raw.offsets), [len(jet) for jet in columns["part_px"]])
    for name, values in raw.constituents.items():
        flat = np.concatenate([np.asarray(jet) for jet in columns[name]])
        assert np.array_equal(values, flat.astype(values.dtype)), name
    for name, values in raw.jets.items():
        assert np.array_equal(values, np.asarray(columns[name], np.float32)), name


@pytest.mark.parametrize("label", JETCLASS_LABELS)
def test_jetclass_labels_of_all_published_types(write: SimpleNamespace, tmp_path: Path, label: str) -> None:
    path = write.jetclass(tmp_path / "HToBB_000.root", label, 7, seed=1)
    (raw,) = read_all(path)
    assert raw.labels.tolist() == [JETCLASS_LABELS.index(label)] * 7
    with uproot.open(path) as file:
        assert_equals_source(raw, file["tree"].arrays(library="ak", how=dict))
        types = {str(file["tree"][f"label_{name}"].interpretation) for name in JETCLASS_LABELS}
    assert len(types) == 3, "the fixture must mix float, bool and int32 as the published files do"


def test_jetclass2_in_published_types(write: SimpleNamespace, tmp_path: Path) -> None:
    labels = [0, 14, 15, 160, 161, 187, 3]
    path = write.jetclass2(tmp_path / "QCD_0000.parquet", labels, seed=2)
    (raw,) = read_all(path)
    assert raw.labels.tolist() == labels
    assert_equals_source(raw, pq.read_table(path).to_pydict())


def test_real_jets(real_jets: Path) -> None:
    (raw,) = read_all(real_jets)
    table = pq.read_table(real_jets).to_pydict()
    assert_equals_source(raw, table)
    assert raw.labels.tolist() == table["jet_label"]
    assert raw.n_jets == 100


@pytest.mark.parametrize("kind", ["root", "parquet"])
@pytest.mark.parametrize(
    ("start", "stop", "step"), [(0, 150, 40), (63, 65, 1), (64, 128, 1000), (149, 150, 7)]
)
def test_entry_ranges(
    write: SimpleNamespace, tmp_path: Path, kind: str, start: int, stop: int, step: int
) -> None:
    if kind == "root":
        path = write.jetclass(tmp_path / "HToBB_000.root", "Hbb", 150, seed=3)
    else:
        path = write.jetclass2(tmp_path / "QCD_0000.parquet", np.arange(150), seed=3, row_group=64)
    (whole,) = read_all(path)
    pieces = read_all(path, start=start, stop=stop, step=step)
    assert pieces[0].first_entry == start
    assert max(piece.n_jets for piece in pieces) <= step
    for name, values in whole.constituents.items():
        expected = values[whole.offsets[start] : whole.offsets[stop]]
        assert np.array_equal(np.concatenate([piece.constituents[name] for piece in pieces]), expected)
    assert np.array_equal(np.concatenate([piece.labels for piece in pieces]), whole.labels[start:stop])


def test_range_outside_the_file(write: SimpleNamespace, tmp_path: Path) -> None:
    path = write.jetclass2(tmp_path / "QCD_0000.parquet", [161], seed=3)
    with pytest.raises(JetDataError, match="entries 0 to 2 asked, the file has 1"):
        read_all(path, stop=2)


@pytest.mark.parametrize("name", ["HToBB_000.root", "QCD_0000.parquet"])
@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.98])
def test_truncated(write: SimpleNamespace, tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    if path.suffix == ".root":
        write.jetclass(path, "Hbb", 200, seed=4)
    else:
        write.jetclass2(path, np.full(200, 170), seed=4)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(JetDataError, match=name):
        read_all(path)


def test_damaged_in_the_middle(write: SimpleNamespace, tmp_path: Path) -> None:
    path = write.jetclass2(tmp_path / "QCD_0000.parquet", np.full(200, 170), seed=4)
    content = bytearray(path.read_bytes())
    content[200:20_000] = bytes(19_800)
    path.write_bytes(content)
    with pytest.raises(JetDataError, match=r"QCD_0000.parquet: cannot be read, damaged or truncated"):
        read_all(path)


def test_not_a_root_file(tmp_path: Path) -> None:
    path = tmp_path / "HToBB_000.root"
    path.write_text("<html>404</html>" * 100)
    with pytest.raises(JetDataError, match=r"HToBB_000.root: cannot be read"):
        read_all(path)


def test_no_tree(tmp_path: Path) -> None:
    path = tmp_path / "HToBB_000.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"x": "float32"})
    with pytest.raises(JetDataError, match=r"no TTree 'tree'; it holds Events"):
        read_all(path)


def test_no_jets(write: SimpleNamespace, tmp_path: Path) -> None:
    path = write.jetclass2(tmp_path / "QCD_0000.parquet", [], seed=1)
    with pytest.raises(JetDataError, match=r"QCD_0000.parquet: the file holds no jets"):
        read_all(path)


def parts_of(path: Path, name: str) -> Any:
    return pq.read_table(path)[name].combine_chunks()


def replaced(column: Any, constituent: int, value: float) -> Any:
    values = column.values.to_numpy().copy()
    values[constituent] = value
    return pa.ListArray.from_arrays(column.offsets, pa.array(values), type=column.type)


Spoil = Callable[[Path], dict[str, Any]]

SPOILED: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda path: {"part_dzerr": None}, r"no column part_dzerr"),
    "missing label": (lambda path: {"jet_label": None}, r"no column jet_label"),
    "text": (lambda path: {"jet_pt": pa.array(["500"] * 9)}, r"column jet_pt is string, not one number"),
    "not a list": (lambda path: {"part_px": pa.array(np.ones(9))}, r"column part_px is double, not a list"),
    "list per jet": (
        lambda path: {"jet_pt": pa.array([[1.0]] * 9)},
        r"column jet_pt is list.*not one number",
    ),
    "float label": (lambda path: {"jet_label": pa.array(np.ones(9))}, r"jet_label is double, not an integer"),
    "label too high": (
        lambda path: {"jet_label": pa.array([161] * 4 + [188] + [161] * 4)},
        r"entry 4: jet_label is 188, outside 0 to 187",
    ),
    "label negative": (lambda path: {"jet_label": pa.array([-1] * 9)}, r"entry 0: jet_label is -1"),
    "nan": (
        lambda path: {"part_d0val": replaced(parts_of(path, "part_d0val"), 2, np.nan)},
        r"entry 0: part_d0val is nan",
    ),
    "inf": (
        lambda path: {"part_energy": replaced(parts_of(path, "part_energy"), -1, np.inf)},
        r"entry 8: part_energy is inf",
    ),
    "nan per jet": (
        lambda path: {"jet_sdmass": pa.array([1.0] * 7 + [np.nan, 1.0])},
        r"entry 7: jet_sdmass is nan",
    ),
    "null": (lambda path: {"jet_pt": pa.array([500.0, None] + [500.0] * 7)}, r"entry 1: jet_pt is null"),
    "jet pt": (
        lambda path: {"jet_pt": pa.array([500.0, 0.0] + [500.0] * 7)},
        r"entry 1: jet_pt = 0.0 must be",
    ),
    "energy": (
        lambda path: {"part_energy": replaced(parts_of(path, "part_energy"), 1, -2.0)},
        r"entry 0, constituent 1: part_energy = -2.0 must be above 0",
    ),
    "charge": (
        lambda path: {"part_charge": replaced(parts_of(path, "part_charge"), 0, 2)},
        r"entry 0, constituent 0: part_charge = 2.0 is none of -1, 0, \+1",
    ),
    "lengths": (
        lambda path: {"part_dphi": pa.array([[0.0]] * 9, pa.list_(pa.float32()))},
        r"entry 0: part_dphi has 1 constituents, part_px has \d+",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_bad_parquet(write: SimpleNamespace, tmp_path: Path, case: str) -> None:
    spoil, message = SPOILED[case]
    path = tmp_path / "QCD_0000.parquet"
    write.jetclass2(path, [161] * 9, seed=5)
    write.jetclass2(path, [161] * 9, seed=5, **spoil(path))
    with pytest.raises(JetDataError, match=f"QCD_0000.parquet.*{message}"):
        read_all(path)


def test_empty_jet(write: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "QCD_0000.parquet"
    write.jetclass2(path, [161] * 3, seed=5)
    table = pq.read_table(path)
    lists = {
        name: pa.array([[], *table[name].to_pylist()[1:]], table[name].type)
        for name in table.column_names
        if name.startswith("part_")
    }
    write.jetclass2(path, [161] * 3, seed=5, **lists)
    with pytest.raises(JetDataError, match=r"QCD_0000.parquet: entry 0: the jet has no constituents"):
        read_all(path)


SPOILED_ROOT: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"part_dzerr": None}, r"no branch part_dzerr"),
    "missing label": ({"label_Tbl": None}, r"no branch label_Tbl"),
    "two labels": (
        {"label_Hcc": np.array([False, True, False])},
        r"entry 1: labels are not one-hot, non-zero are {'Hbb': 1.0, 'Hcc': 1.0}",
    ),
    "no label": (
        {"label_Hbb": np.array([True, True, False])},
        r"entry 2: labels are not one-hot, non-zero are {}",
    ),
    "half labels": (
        {"label_Hbb": np.zeros(3, bool), "label_QCD": np.array([1, 1, 0.5], np.float32)},
        r"entry 2: labels are not one-hot, non-zero are {'QCD': 0.5}",
    ),
    "nan": ({"jet_tau1": np.array([0, np.nan, 0], np.float32)}, r"entry 1: jet_tau1 is nan"),
    "not a list": (
        {"part_deta": np.zeros(3, np.float32)},
        r"branch part_deta is float, not a list of numbers per jet",
    ),
    "list per jet": (
        {"jet_pt": ak.Array([[1.0, 2.0], [1.0], [2.0]])},
        r"branch jet_pt is .*not one number per jet",
    ),
}


@pytest.mark.parametrize("case", SPOILED_ROOT)
def test_bad_root(write: SimpleNamespace, tmp_path: Path, case: str) -> None:
    replace, message = SPOILED_ROOT[case]
    path = write.jetclass(tmp_path / "HToBB_000.root", "Hbb", 3, seed=6, **replace)
    with pytest.raises(JetDataError, match=f"HToBB_000.root.*{message}"):
        read_all(path)


def test_entry_number_is_that_of_the_file(write: SimpleNamespace, tmp_path: Path) -> None:
    bad = np.zeros(50, np.float32)
    bad[41] = np.inf
    path = write.jetclass(tmp_path / "HToBB_000.root", "Hbb", 50, seed=7, jet_tau3=bad)
    with pytest.raises(JetDataError, match="entry 41: jet_tau3 is inf"):
        read_all(path, step=10)
