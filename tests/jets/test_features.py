from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jetscale.jets import features as F
from jetscale.jets.errors import JetDataError
from jetscale.jets.features import PAPER, PART17, feature_set, particle_identity
from jetscale.jets.reading.raw import RawJets
from tests.jets.stores import open_jets


def read(path: Path) -> RawJets:
    with open_jets(path) as file:
        (raw,) = file.jets(tuple({*PAPER.reads, *PART17.reads}))
    return raw


def clip(value: float, low: float = -5.0, high: float = 5.0) -> float:
    return min(max(value, low), high)


def part17_by_hand(jet: dict, at: int) -> list[float]:
    """The 17 inputs of JetClass_full.yaml (facts: y = clip((x - sub) * mul)), in double precision."""
    pt = math.hypot(jet["part_px"][at], jet["part_py"][at])
    energy, deta, dphi = (jet[f"part_{name}"][at] for name in ("energy", "deta", "dphi"))
    return [
        clip((math.log(pt) - 1.7) * 0.7),
        clip((math.log(energy) - 2.0) * 0.7),
        clip((math.log(pt / jet["jet_pt"]) - -4.7) * 0.7),
        clip((math.log(energy / jet["jet_energy"]) - -4.7) * 0.7),
        clip((math.hypot(deta, dphi) - 0.2) * 4.0),
        jet["part_charge"][at],
        *(
            float(jet[f"part_is{kind}"][at])
            for kind in ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
        ),
        math.tanh(jet["part_d0val"][at]),
        clip(jet["part_d0err"][at], 0, 1),
        math.tanh(jet["part_dzval"][at]),
        clip(jet["part_dzerr"][at], 0, 1),
        deta,
        dphi,
    ]


def paper_by_hand(jet: dict, at: int) -> list[float]:
    pt = math.hypot(jet["part_px"][at], jet["part_py"][at])
    return [
        jet["part_deta"][at],
        jet["part_dphi"][at],
        math.log(pt),
        math.log(jet["part_energy"][at]),
        math.tanh(jet["part_d0val"][at]),
        clip(jet["part_d0err"][at], 0, 1),
        math.tanh(jet["part_dzval"][at]),
        clip(jet["part_dzerr"][at], 0, 1),
    ]


@pytest.mark.parametrize(("features", "by_hand"), [(PART17, part17_by_hand), (PAPER, paper_by_hand)])
def test_published_formulas_on_real_jets(real_jets: Path, features, by_hand) -> None:
    x_TF = features.compute(read(real_jets))
    jets = pq.read_table(real_jets).to_pylist()
    expected = [by_hand(jet, at) for jet in jets for at in range(len(jet["part_px"]))]
    assert x_TF.shape == (len(expected), features.n_features)
    np.testing.assert_allclose(x_TF, expected, rtol=2e-6, atol=2e-6)
    if features is PART17:
        assert (x_TF[:, 4] == 5).sum() > 0, "the sample has constituents far outside, which are clipped"


@pytest.mark.parametrize(("features", "by_hand"), [(PART17, part17_by_hand), (PAPER, paper_by_hand)])
def test_published_formulas_on_jetclass2_columns(
    write: SimpleNamespace, tmp_path: Path, features, by_hand
) -> None:
    path = write.jetclass2(tmp_path / "QCD_0000.parquet", np.full(30, 170), seed=8)
    jets = pq.read_table(path).to_pylist()
    expected = [by_hand(jet, at) for jet in jets for at in range(len(jet["part_px"]))]
    np.testing.assert_allclose(features.compute(read(path)), expected, rtol=3e-6, atol=3e-6)


def pid_by_hand(jet: dict, at: int) -> int:
    charge = jet["part_charge"][at]
    for kind, minus, plus in (("Electron", 5, 6), ("Muon", 7, 8)):
        if jet[f"part_is{kind}"][at]:
            return plus if charge > 0 else minus
    if jet["part_isPhoton"][at]:
        return 4
    return {-1: 1, 0: 3, 1: 2}[charge]


def test_identity_of_real_jets(real_jets: Path) -> None:
    jets = pq.read_table(real_jets).to_pylist()
    expected = [pid_by_hand(jet, at) for jet in jets for at in range(len(jet["part_px"]))]
    pid_T = particle_identity(read(real_jets))
    assert pid_T.dtype == np.uint8
    assert pid_T.tolist() == expected
    assert set(expected) == set(range(1, F.N_PID)), "the sample has every kind of particle"


def test_hadron_without_a_flag_goes_by_its_charge(write: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "QCD_0000.parquet"
    write.jetclass2(path, [161] * 20, seed=9)
    before = particle_identity(read(path))
    table = pq.read_table(path)
    cleared = {}
    for name in ("part_isChargedHadron", "part_isNeutralHadron"):
        column = table[name].combine_chunks()
        unset = pa.array(np.zeros(len(column.values), bool))
        cleared[name] = pa.ListArray.from_arrays(column.offsets, unset, type=column.type)
    write.jetclass2(path, [161] * 20, seed=9, **cleared)
    assert np.array_equal(particle_identity(read(path)), before)


def test_same_inputs_from_both_formats(write: SimpleNamespace, tmp_path: Path) -> None:
    root = read(write.jetclass(tmp_path / "HToBB_000.root", "Hbb", 25, seed=10))
    parquet = read(write.jetclass2(tmp_path / "QCD_0000.parquet", [170] * 25, seed=10))
    for features in (PAPER, PART17):
        assert np.array_equal(features.compute(root), features.compute(parquet))
    assert np.array_equal(particle_identity(root), particle_identity(parquet))


def test_columns_are_named(real_jets: Path) -> None:
    raw = read(real_jets)
    for features in (PAPER, PART17):
        assert np.array_equal(
            features.compute(raw)[:, features.deta_column], raw.constituents["part_deta"].astype(np.float32)
        )
    assert (PAPER.n_features, PART17.n_features) == (8, 17)


def test_unknown_set() -> None:
    with pytest.raises(JetDataError, match=r"no feature set 'part16'; there are paper, part17"):
        feature_set("part16")
