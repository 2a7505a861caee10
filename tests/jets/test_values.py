"""Values that no jet can have, and the encodings of those that it can: right, or refused with their place."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jetscale.jets.errors import JetDataError
from jetscale.jets.features import PAPER, PART17
from jetscale.jets.reading.raw import RawJets
from tests.jets.stores import open_jets
from tests.jets.variants import BY_ROOT, columns_of, write_root

NAN, INF = float("nan"), float("inf")
JET, AT = 3, 2
"""Where a value is spoilt: a jet that has more than three constituents."""


def read_all(path: Path, features: tuple[str, ...] = PART17.reads, **options: Any) -> list[RawJets]:
    with open_jets(path) as file:
        return list(file.jets(features, **options))


def spoilt(name: str, value: float, kind: Any = np.float32) -> dict[str, Any]:
    """The columns with one value of a branch changed, and the branch written as `kind`."""
    columns = columns_of()
    jagged = ak.values_astype(columns[name], kind)
    flat = ak.to_numpy(ak.flatten(jagged)) if jagged.ndim == 2 else ak.to_numpy(jagged)
    flat = flat.copy()
    counts = ak.num(columns["part_px"])
    assert counts[JET] > AT
    flat[int(ak.sum(counts[:JET])) + AT if jagged.ndim == 2 else JET] = value
    return {**columns, name: ak.unflatten(flat, counts) if jagged.ndim == 2 else ak.Array(flat)}


FLAG = r"entry 3, constituent 2: part_isPhoton = {} must be 0 or 1"
BAD: list[tuple[str, float, Any, str]] = [
    ("part_isPhoton", NAN, np.float32, FLAG.format("nan")),
    ("part_isPhoton", NAN, np.float64, FLAG.format("nan")),
    ("part_isPhoton", INF, np.float32, FLAG.format("inf")),
    ("part_isPhoton", 0.5, np.float32, FLAG.format("0.5")),
    ("part_isPhoton", 2, np.int32, FLAG.format("2")),
    ("part_isPhoton", -1, np.int32, FLAG.format("-1")),
    ("part_isPhoton", 256, np.int64, FLAG.format("256")),
    ("part_isPhoton", -1, np.int8, FLAG.format("-1")),
    ("part_isPhoton", 22, np.uint8, FLAG.format("22")),
    ("part_isMuon", 2, np.int32, "entry 3, constituent 2: part_isMuon = 2 must be 0 or 1"),
    ("part_isNeutralHadron", NAN, np.float32, "entry 3, constituent 2: part_isNeutralHadron = nan"),
    ("part_charge", 0.5, np.float32, r"entry 3, constituent 2: part_charge = 0.5 is none of -1, 0, \+1"),
    ("part_charge", 255, np.uint8, "part_charge = 255.0 is none of"),
    ("part_charge", 2**32 + 1, np.int64, "part_charge = 4294967296.0 is none of"),
    ("part_charge", NAN, np.float32, "entry 3: part_charge is nan"),
    ("part_energy", -5, np.float32, "entry 3, constituent 2: part_energy = -5.0 must be above 0 GeV"),
    ("part_energy", 0, np.float32, "entry 3, constituent 2: part_energy = 0.0 must be above 0 GeV"),
    ("part_energy", INF, np.float32, "entry 3: part_energy is inf"),
    ("part_energy", 1e39, np.float64, r"constituent 2: part_energy = 1e\+39 is too large for single"),
    ("part_energy", 1e-60, np.float64, "entry 3, constituent 2: part_energy = 0.0 must be above 0 GeV"),
    ("part_px", NAN, np.float32, "entry 3: part_px is nan"),
    ("part_d0val", -INF, np.float64, "entry 3: part_d0val is -inf"),
    ("part_dphi", 6.25, np.float32, "entry 3, constituent 2: part_dphi = 6.25 must be wrapped to -pi to pi"),
    ("part_dphi", -999, np.float32, "part_dphi = -999.0 must be wrapped"),
    (
        "part_deta",
        -999,
        np.float32,
        "entry 3, constituent 2: part_deta = -999.0 must be a distance to the jet",
    ),
    ("jet_pt", NAN, np.float32, "entry 3: jet_pt is nan"),
    ("jet_pt", 1e39, np.float64, r"entry 3: jet_pt = 1e\+39 is too large for single precision"),
    ("jet_pt", -7, np.float32, "entry 3: jet_pt = -7.0 must be above 0 GeV"),
    ("jet_sdmass", INF, np.float64, "entry 3: jet_sdmass is inf"),
    ("jet_sdmass", -999, np.float32, "entry 3: jet_sdmass = -999.0 must not be below -10: leave out jets"),
    ("jet_tau2", -1, np.float32, "entry 3: jet_tau2 = -1.0 must not be below 0"),
    ("jet_nparticles", 0, np.float32, "entry 3: jet_nparticles = 0.0 must be above 0"),
    ("label_Hbb", NAN, np.float32, "entry 3: labels are not one-hot, non-zero are {'Hbb': nan}"),
    ("label_Hbb", 2, np.int32, "entry 3: labels are not one-hot, non-zero are {'Hbb': 2.0}"),
    ("label_Hbb", 257, np.int64, "entry 3: labels are not one-hot, non-zero are {'Hbb': 257.0}"),
    ("label_QCD", NAN, np.float32, "entry 3: labels are not one-hot, non-zero are {'QCD': nan, 'Hbb': 1.0}"),
    ("label_Tbl", 1, np.int32, "entry 3: labels are not one-hot, non-zero are {'Hbb': 1.0, 'Tbl': 1.0}"),
    ("label_Hbb", 0, np.int32, "entry 3: labels are not one-hot, non-zero are {}"),
]


@pytest.mark.parametrize(("name", "value", "kind", "message"), BAD)
def test_bad_values(tmp_path: Path, name: str, value: float, kind: Any, message: str) -> None:
    path = write_root(tmp_path / "HToBB_000.root", spoilt(name, value, kind))
    with pytest.raises(JetDataError, match=f"{path}: .*{message}") as error:
        read_all(path, step=2)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_flags_of_any_type(tmp_path: Path, kind: Any) -> None:
    columns = {
        name: ak.values_astype(values, kind) if name.startswith("part_is") else values
        for name, values in columns_of().items()
    }
    (raw,) = read_all(write_root(tmp_path / "HToBB_000.root", columns))
    (expected,) = read_all(BY_ROOT)
    for name, values in expected.constituents.items():
        assert raw.constituents[name].dtype == values.dtype
        assert np.array_equal(raw.constituents[name], values), name


def test_a_byte_that_is_no_bool(tmp_path: Path) -> None:
    """numpy takes every byte of a bool for true; in a file it is damage."""
    columns = columns_of()
    columns["part_isPhoton"] = ak.values_astype(columns["part_isPhoton"], bool)
    path = write_root(tmp_path / "HToBB_000.root", columns, compression=None)
    flags = ak.to_numpy(ak.flatten(columns["part_isPhoton"])).tobytes()
    content = path.read_bytes()
    assert content.count(flags) == 1
    path.write_bytes(content.replace(flags, b"\x07" + flags[1:]))
    with pytest.raises(JetDataError, match="entry 0, constituent 0: part_isPhoton = 7 must be 0 or 1"):
        read_all(path)


def test_two_flags(tmp_path: Path) -> None:
    columns = columns_of()
    for name in ("part_isChargedHadron", "part_isNeutralHadron"):
        columns[name] = ak.ones_like(columns[name])
    path = write_root(tmp_path / "HToBB_000.root", columns)
    with pytest.raises(
        JetDataError, match=r"entry 0, constituent 0: .*the other part_is\* flags: two are set"
    ):
        read_all(path)
    assert read_all(path, PAPER.reads)[0].n_jets == 30, "the paper's inputs are not made of them"


def test_what_is_not_read_may_be_anything(tmp_path: Path) -> None:
    """part_pz and aux_* enter no input, so their values change none, and no jet is refused for them."""
    columns = columns_of()
    for name in ("part_pz", "aux_genpart_pt", "jet_phi"):
        columns[name] = columns[name] * np.float32(NAN)
    (raw,) = read_all(write_root(tmp_path / "HToBB_000.root", columns))
    (expected,) = read_all(BY_ROOT)
    for features in (PAPER, PART17):
        assert np.array_equal(features.compute(raw), features.compute(expected))


def test_energy_below_pt_is_mentioned(
    write: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write.jetclass(tmp_path / "HToCC_000.root", "Hcc", 20, seed=1)
    read_all(good)
    assert not caplog.records, "E = |p| of a massless particle, in single precision, is nothing to mention"
    columns = columns_of(good)
    columns["part_energy"] = columns["part_energy"] / np.float32(1000)
    read_all(write_root(tmp_path / "HToBB_000.root", columns), step=5)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "HToBB_000.root: entry 0, constituent 0: part_energy = " in record.message
    assert "energies and momenta in the same unit?" in record.message


def test_branches_of_different_lengths(tmp_path: Path) -> None:
    columns = columns_of()
    columns["part_dphi"] = ak.concatenate([columns["part_dphi"][:7, :-1], columns["part_dphi"][7:]])
    path = write_root(tmp_path / "HToBB_000.root", columns)
    n = len(columns["part_px"][0])
    with pytest.raises(JetDataError, match=f"entry 0: part_dphi has {n - 1} constituents, part_px has {n}"):
        read_all(path)


def test_a_branch_that_was_not_always_filled(tmp_path: Path) -> None:
    path = write_root(tmp_path / "HToBB_000.root", columns_of(), compression=None)
    content = bytearray(path.read_bytes())
    at = content.find(b"jet_tau2")
    for _ in range(3):  # fEntryNumber, fEntries, and the end of its only basket
        at = content.find(struct.pack(">q", 30), at + 1)
        content[at : at + 8] = struct.pack(">q", 29)
    path.write_bytes(content)
    with pytest.raises(JetDataError, match=r"branch jet_tau2 has 29 entries, 'tree' has 30; write the tree"):
        read_all(path)


def large(column: Any) -> Any:
    return column.cast(pa.large_list(column.type.value_type))


def nullable(column: Any) -> Any:
    return column.cast(pa.list_(pa.field("element", column.type.value_type, nullable=True)))


def wider(column: Any) -> Any:
    wide = {pa.float32(): pa.float64(), pa.int32(): pa.int64(), pa.bool_(): pa.int8()}
    if pa.types.is_list(column.type):
        return column.cast(pa.list_(wide[column.type.value_type]))
    return column.cast(wide[column.type])


def dictionary(column: Any) -> Any:
    if not pa.types.is_list(column.type):
        return column.dictionary_encode()
    whole = column.combine_chunks()
    return pa.ListArray.from_arrays(whole.offsets, whole.values.dictionary_encode())


def by_awkward(column: Any) -> Any:
    """As ak.to_parquet wrote it from awkward 2.5 on: awkward's extension types at every level."""
    return ak.to_arrow(ak.from_arrow(column), extensionarray=True, list_to32=True)


def bool8(column: Any) -> Any:
    """Another extension type, of Arrow itself."""
    if not pa.types.is_list(column.type) or column.type.value_type != pa.bool_():
        return column
    whole = column.combine_chunks()
    flags = pa.ExtensionArray.from_storage(pa.bool8(), whole.values.cast(pa.int8()))
    return pa.ListArray.from_arrays(whole.offsets, flags)


def views(column: Any) -> Any:
    """Lists that may lie in any order, with gaps."""
    if not pa.types.is_list(column.type):
        return column
    whole = column.combine_chunks()
    return pa.ListViewArray.from_arrays(whole.offsets[:-1], whole.value_lengths(), whole.values)


ENCODINGS: dict[str, Callable[[Any], Any]] = {
    "large lists": large,
    "nullable, without nulls": nullable,
    "64 bits, flags int8": wider,
    "dictionaries": dictionary,
    "awkward": by_awkward,
    "bool8": bool8,
    "list views": views,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_parquet_encodings(write: SimpleNamespace, tmp_path: Path, encoding: str) -> None:
    plain = write.jetclass2(tmp_path / "QCD_0000.parquet", [161, 170, 187] * 10, seed=3, row_group=13)
    path = tmp_path / "QCD_0001.parquet"
    table = pq.read_table(plain)
    changed = {
        name: ENCODINGS[encoding](table[name])
        if name.startswith("part_") or encoding in ("dictionaries", "awkward") or "64" in encoding
        else table[name]
        for name in table.column_names
        if name.startswith(("part_", "jet_"))
    }
    pq.write_table(pa.table(changed), path, row_group_size=13)
    assert_same_jets(path, plain)


def assert_same_jets(path: Path, plain: Path) -> None:
    for raw, expected in zip(read_all(path, step=7), read_all(plain, step=7), strict=True):
        assert np.array_equal(raw.offsets, expected.offsets)
        assert np.array_equal(raw.labels, expected.labels)
        for name, values in {**expected.constituents, **expected.jets}.items():
            found = {**raw.constituents, **raw.jets}[name]
            assert found.dtype == values.dtype
            assert np.array_equal(found, values), name


def test_two_columns_of_one_name(write: SimpleNamespace, tmp_path: Path) -> None:
    path = write.jetclass2(tmp_path / "QCD_0000.parquet", [161] * 5, seed=3)
    table = pq.read_table(path)
    pq.write_table(table.append_column("part_px", table["part_py"]), path)
    with pytest.raises(JetDataError, match=r"QCD_0000\.parquet: several columns are named part_px; keep one"):
        read_all(path)


def test_fixed_size_lists(write: SimpleNamespace, tmp_path: Path) -> None:
    plain = write.jetclass2(tmp_path / "QCD_0000.parquet", [161] * 12, seed=3)
    table = pq.read_table(plain)
    short = {
        name: ak.to_arrow(ak.from_arrow(table[name])[:, :2], extensionarray=False)
        if name.startswith("part_")
        else table[name]
        for name in table.column_names
        if name.startswith(("part_", "jet_"))
    }
    pq.write_table(pa.table(short), plain)
    fixed = {
        name: pa.FixedSizeListArray.from_arrays(column.flatten(), 2) if name.startswith("part_") else column
        for name, column in short.items()
    }
    path = tmp_path / "QCD_0001.parquet"
    pq.write_table(pa.table(fixed), path, row_group_size=5)
    assert pa.types.is_fixed_size_list(pq.read_schema(path).field("part_px").type)
    assert_same_jets(path, plain)


def test_padding_is_refused(write: SimpleNamespace, tmp_path: Path) -> None:
    """Jets filled up with zeros to one length, as many tools want them, have constituents without pT."""
    path = write.jetclass2(tmp_path / "QCD_0000.parquet", [161] * 5, seed=3)
    table = pq.read_table(path)
    for name in [name for name in table.column_names if name.startswith("part_")]:
        padded = ak.fill_none(ak.pad_none(ak.from_arrow(table[name]), 128, clip=True), 0)
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, ak.to_arrow(padded, extensionarray=False))
    n = len(pq.read_table(path)["part_px"][0])
    pq.write_table(table, path)
    with pytest.raises(JetDataError, match=f"entry 0, constituent {n}: part_energy = 0.0 must be above 0"):
        read_all(path)


@pytest.mark.parametrize("wrap", [lambda column: column, by_awkward], ids=["plain", "awkward"])
def test_nulls(write: SimpleNamespace, tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    path = write.jetclass2(tmp_path / "QCD_0000.parquet", [161] * 9, seed=3)
    table = pq.read_table(path)
    lists = table["part_d0val"].to_pylist()
    inside = [*lists[:6], [None, *lists[6][1:]], *lists[7:]]
    for name, values, kind, message in (
        ("part_d0val", [*lists[:6], None, *lists[7:]], pa.list_(pa.float32()), "part_d0val is null"),
        ("part_d0val", inside, pa.list_(pa.float32()), "part_d0val holds a null"),
        ("jet_tau1", [0.5] * 6 + [None] * 3, pa.float32(), "jet_tau1 is null"),
        ("jet_label", [161] * 6 + [None] * 3, pa.int32(), "jet_label is null"),
    ):
        at = table.schema.get_field_index(name)
        pq.write_table(table.set_column(at, name, wrap(pa.array(values, kind))), path, row_group_size=4)
        with pytest.raises(JetDataError, match=f"QCD_0000.parquet: entry 6: {message}"):
            read_all(path, step=5)


def test_parquet_flags(write: SimpleNamespace, tmp_path: Path) -> None:
    path = write.jetclass2(tmp_path / "QCD_0000.parquet", [161] * 9, seed=3)
    table = pq.read_table(path)
    at = table.schema.get_field_index("part_isMuon")
    for value, kind in ((NAN, pa.float32()), (2, pa.int8()), (0.5, pa.float64())):
        lists = [[0] * len(jet) for jet in table["part_px"].to_pylist()]
        lists[4][1] = value
        pq.write_table(table.set_column(at, "part_isMuon", pa.array(lists, pa.list_(kind))), path)
        with pytest.raises(
            JetDataError, match=f"entry 4, constituent 1: part_isMuon = {value} must be 0 or 1"
        ):
            read_all(path, step=3)
