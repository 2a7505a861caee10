"""Top tagging, on files that are written here in the published layout: no published file is at hand."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.datasets.files import JetFileReader, find_sources
from jetscale.jets.datasets.top_tagging import LABELS, TOP_TAGGING
from jetscale.jets.errors import JetDataError
from jetscale.jets.evaluation import EvalSet
from jetscale.jets.ordering.compositions import Composition
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest
from jetscale.prepare.__main__ import main
from tests.jets.top_tagging import table_of, write_top_tagging

pytest.importorskip("tables", reason="the extra `hdf5` is not installed")


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
def test_values_by_hand(tmp_path: Path, suffix: str) -> None:
    path = write_top_tagging(tmp_path / f"train{suffix}", 60, seed=1)
    table = table_of(60, seed=1)
    with JetFileReader(TOP_TAGGING, path) as file:
        assert file.n_jets == 60
        pieces = list(file.jets(("part_deta", "part_dphi"), 5, 60, step=25))
    assert [piece.first_entry for piece in pieces] == [5, 30, 55]
    for piece in pieces:
        for b in range(piece.n_jets):
            row = table.iloc[piece.first_entry + b]
            particles = [[float(row[f"{name}_{i}"]) for name in ("E", "PX", "PY", "PZ")] for i in range(200)]
            particles = [particle for particle in particles if particle[0] > 0]
            _, x, y, z = (math.fsum(column) for column in zip(*particles, strict=True))
            eta, phi = math.asinh(z / math.hypot(x, y)), math.atan2(y, x)
            here = slice(piece.offsets[b], piece.offsets[b + 1])
            assert (
                piece.offsets[b + 1] - piece.offsets[b] == len(particles) == piece.jets["jet_nparticles"][b]
            )
            assert piece.jets["jet_pt"][b] == pytest.approx(math.hypot(x, y), rel=1e-6)
            assert piece.jets["jet_eta"][b] == pytest.approx(eta, rel=1e-5)
            assert piece.labels[b] == row["is_signal_new"]
            side = 1 if eta > 0 else -1  # as JetClass is published
            deta = [side * (math.asinh(p[3] / math.hypot(p[1], p[2])) - eta) for p in particles]
            dphi = [math.remainder(math.atan2(p[2], p[1]) - phi, 2 * math.pi) for p in particles]
            assert piece.constituents["part_deta"][here] == pytest.approx(deta, abs=1e-5)
            assert piece.constituents["part_dphi"][here] == pytest.approx(dphi, abs=1e-5)
            assert piece.constituents["part_energy"][here] == pytest.approx(
                [p[0] for p in particles], rel=1e-6
            )


def test_what_is_absent_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        JetDataError, match=r"features=paper needs part_charge, .*part_d0val.* which top tagging"
    ):
        StoreRequest(tmp_path, tmp_path, "top_tagging", "train", "paper", "none")
    with pytest.raises(JetDataError, match=r"features=part17 needs .*; take features=kinematics"):
        TOP_TAGGING.feature_set("part17")
    with pytest.raises(
        JetDataError, match=r"selection=sophon needs jet_sdmass, which .* take selection=none"
    ):
        StoreRequest(tmp_path, tmp_path, "top_tagging", "train", "kinematics", "sophon")
    with pytest.raises(JetDataError, match="jet_sdmass of 'top' needs jet_sdmass, which top tagging"):
        Composition.from_request({"top": {"weight": 1, "jet_sdmass": [50, 200]}}, TOP_TAGGING.label_map())
    mix = Composition.from_request(
        {"heavy": {"weight": 1, "classes": "*", "prongs": 3}}, TOP_TAGGING.label_map()
    )
    assert [component.classes for component in mix.components] == [(LABELS.index("top"),)]


def test_prepare_and_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suffix in (".h5", ".parquet"):
        folder = tmp_path / suffix[1:] / "TopTagging"
        for number, split in enumerate(("train", "val", "test")):
            write_top_tagging(folder / f"{split}{suffix}", 120, seed=number)
        main([f"dir={folder.parent}", "dataset=top_tagging", "features=kinematics", "workers=1"])
        assert [one.name for one in find_sources(folder.parent, "top_tagging", "val")] == [f"val{suffix}"]
    assert "120 jets" in capsys.readouterr().err
    one, other = (
        EvalSet(DataSettings(dir=str(tmp_path / kind), features="kinematics"), "top_tagging")
        for kind in ("h5", "parquet")
    )
    assert one.class_names == LABELS
    assert one.n_jets == 120
    first, second = (next(jets.batches(120)) for jets in (one, other))
    assert first.pid_T is None
    assert first.x_TF.shape[1] == 4
    # the order in the store depends on the file's name, so the same jets come in another order
    assert torch.equal(torch.sort(first.lengths_B)[0], torch.sort(second.lengths_B)[0])
    assert torch.equal(torch.sort(first.x_TF[:, 3])[0], torch.sort(second.x_TF[:, 3])[0])


def test_absent_columns_are_not_in_the_store(tmp_path: Path) -> None:
    write_top_tagging(tmp_path / "TopTagging" / "train.parquet", 20, seed=0)
    main([f"dir={tmp_path}", "dataset=top_tagging", "features=kinematics", "workers=1"])
    store = tmp_path / "store" / "top_tagging_train_kinematics"
    assert Store.open(store).part(0).of_jets == ("jet_pt", "jet_eta", "jet_nparticles")


def test_all_leaves_out_what_lacks_a_column_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_top_tagging(tmp_path / "TopTagging" / "train.parquet", 20, seed=0)
    with pytest.raises(JetDataError, match="no train jets of jetclass"):
        main([f"dir={tmp_path}", "workers=1"])
    assert "TopTagging is left out: features=paper needs part_charge" in caplog.text


def _without(name: str) -> pd.DataFrame:
    return table_of(10, seed=0).drop(columns=name)


def _with(name: str, value: float) -> pd.DataFrame:
    table = table_of(10, seed=0)
    table.loc[3, name] = value
    return table


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda: _without("PX_7"), r"train\S+: no column PX_7"),
        (lambda: _without("is_signal_new"), "no column is_signal_new"),
        (lambda: _with("is_signal_new", 2), "entry 3: the label is 2.*, outside 0 to 1"),
        (lambda: _with("E_1", -5.0), "entry 3, constituent 1: part_energy = -5.0 must be above 0"),
        # pandas writes nan to parquet as a null
        (lambda: _with("PZ_0", np.nan), "entry 3: (.* is nan; inputs must be finite|PZ_0 is null)"),
        (
            lambda: table_of(10, seed=0).assign(E_0="12.5"),
            r"train\S+: column E_0 is \w+, not one number per jet",
        ),
        (
            lambda: table_of(10, seed=0).assign(is_signal_new="QCD"),
            r"train\S+: column is_signal_new is \w+, not one number per jet",
        ),
    ],
)
def test_bad_files(tmp_path: Path, table, message: str, suffix: str) -> None:
    path = write_top_tagging(tmp_path / f"train{suffix}", table=table())
    with (
        pytest.raises(JetDataError, match=message),
        JetFileReader(TOP_TAGGING, path) as file,
    ):
        list(file.jets(("part_deta", "part_dphi")))


@pytest.mark.parametrize("name", ["E_0", "PY_199", "is_signal_new"])
def test_a_null_is_named(tmp_path: Path, name: str) -> None:
    """Of a column that may have some, as pandas' own types and Arrow's do."""
    table = table_of(40, seed=0)
    values = table[name].astype("Int64" if name == "is_signal_new" else "Float32")
    values[23] = pd.NA
    path = write_top_tagging(tmp_path / "train.parquet", table=table.assign(**{name: values}))
    with (
        pytest.raises(JetDataError, match=rf"^{path}: entry 23: {name} is null$"),
        JetFileReader(TOP_TAGGING, path) as file,
    ):
        list(file.jets(("part_deta", "part_dphi"), step=15))


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    stored = pa.Table.from_pandas(table_of(10, seed=0))
    path = tmp_path / "train.parquet"
    pq.write_table(stored.append_column("PX_3", stored["PX_4"]), path)
    with pytest.raises(JetDataError, match=rf"^{path}: several columns are named PX_3; keep one of them$"):
        JetFileReader(TOP_TAGGING, path)


def test_hdf5_in_fixed_format(tmp_path: Path) -> None:
    """The format that pandas writes where none is asked for."""
    path = tmp_path / "train.h5"
    table_of(5, seed=0).to_hdf(path, key="table")
    with pytest.raises(JetDataError) as error:
        JetFileReader(TOP_TAGGING, path)
    assert str(error.value) == (
        f"{path}: what it holds under the key 'table' is in pandas' fixed format, which is not read in "
        "pieces; write it with to_hdf(..., key='table', format='table')"
    )


def test_no_jets(tmp_path: Path) -> None:
    path = write_top_tagging(tmp_path / "train.parquet", table=table_of(3, seed=0).iloc[:0])
    with pytest.raises(JetDataError, match=r"train.parquet: the file holds no jets"):
        JetFileReader(TOP_TAGGING, path)


def test_padding_alone_is_no_jet(tmp_path: Path) -> None:
    table = table_of(10, seed=0)
    momenta = [name for name in table if name[:1] in "EP"]
    table.loc[4, momenta] = 0.0
    path = write_top_tagging(tmp_path / "train.parquet", table=table)
    with (
        pytest.raises(JetDataError, match="entry 4: the jet has no constituents"),
        JetFileReader(TOP_TAGGING, path) as file,
    ):
        list(file.jets(("part_deta", "part_dphi")))


def test_other_files(tmp_path: Path) -> None:
    table_of(5, seed=0).to_hdf(tmp_path / "train.h5", key="jets", format="table")
    with pytest.raises(JetDataError, match="no pandas table under the key 'table'; it holds /jets"):
        JetFileReader(TOP_TAGGING, tmp_path / "train.h5")
    (tmp_path / "test.h5").write_bytes(b"<html>gone</html>")
    with pytest.raises(
        JetDataError, match=r"test.h5: cannot be read, it is an HTML page .*, not an HDF5 file"
    ):
        JetFileReader(TOP_TAGGING, tmp_path / "test.h5")
    damaged = write_top_tagging(tmp_path / "val.h5", 50, seed=0)
    damaged.write_bytes(damaged.read_bytes()[:3000])
    with pytest.raises(JetDataError, match=r"val.h5: cannot be read, damaged or truncated"):
        JetFileReader(TOP_TAGGING, damaged)
    write_top_tagging(tmp_path / "data" / "TopTagging" / "training.parquet", 5, seed=0)
    with pytest.raises(JetDataError, match=r"training.parquet: not named train.h5.*rename it"):
        find_sources(tmp_path / "data", "top_tagging", "train")


def test_stores_of_the_other_datasets_are_what_they_were() -> None:
    """The definitions of JetClass and JetClass-II stores, which fingerprints of old stores are made of."""
    for name in ("jetclass", "jetclass2"):
        definition = StoreRequest(Path("a"), Path("b"), name, "train", "paper", "sophon").definition()
        assert definition["n_labels"] == {"jetclass": 10, "jetclass2": 188}[name]
        assert definition["format"] == 3
        assert list(definition) == ["format", "dataset", "split", "n_labels", "features", "selection"]
    assert DATASETS.names()[:3] == ["jetclass", "jetclass2", "top_tagging"]


def test_a_file_and_its_conversion_hold_the_same_jets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever converts train.h5 to parquet may leave the original there."""
    table = table_of(60, seed=1)
    for name in ("train.h5", "train.parquet"):
        write_top_tagging(tmp_path / "TopTagging" / name, table=table)
    main([f"dir={tmp_path}", "dataset=top_tagging", "features=kinematics", "workers=1"])
    assert re.search(r"train\.parquet: has the same jets as .*train\.h5, or some", caplog.text)


@pytest.mark.parametrize("name", ["train_1.hdf5", "train_1.HDF", "train_1.pq", "train_1.parq"])
def test_other_suffixes_of_the_same_formats_are_not_passed_over(tmp_path: Path, name: str) -> None:
    write_top_tagging(tmp_path / "TopTagging/train.h5", 5, seed=1)
    (tmp_path / "TopTagging" / name).write_bytes(b"jets")
    with pytest.raises(JetDataError, match=rf"{name}: looks like jets but is not read: top tagging is"):
        find_sources(tmp_path, "top_tagging", "train")


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
@pytest.mark.parametrize(("label", "problem"), [(7, "outside 0 to 1"), ("top", "not one number")])
def test_labels_that_cannot_be_used_are_left_out_of_scores(
    tmp_path: Path, suffix: str, label: object, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of(20, seed=1)
    table["is_signal_new"] = [label] * len(table)
    path = tmp_path / f"mine{suffix}"
    if suffix == ".h5":
        table.to_hdf(path, key="table", format="table")
    else:
        table.to_parquet(path)
    with JetFileReader(TOP_TAGGING, path, scoring=True) as file:
        file.ignore_bad_labels()
        assert not file.is_labelled
        (jets,) = file.jets(("part_energy", "part_px", "part_py"))
    assert not jets.labels.any()  # zeros stand for none
    assert jets.n_jets == 20
    assert problem in caplog.text
    with JetFileReader(TOP_TAGGING, path) as file, pytest.raises(JetDataError, match=problem):
        list(file.jets(("part_energy", "part_px", "part_py")))
