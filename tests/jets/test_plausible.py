"""Columns in other units, relative to another axis or with stand-ins for missing values are noticed."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import awkward as ak
import numpy as np
import pytest

from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.datasets.files import JetFileReader
from jetscale.jets.features import PART17
from tests.jets.variants import columns_of, write_root

ENERGIES = ("part_px", "part_py", "part_pz", "part_energy", "jet_pt", "jet_energy", "jet_sdmass")


def read(path: Path) -> None:
    dataset = "jetclass" if path.suffix == ".root" else "jetclass2"
    with JetFileReader(DATASETS[dataset], path) as reader:
        for _ in reader.jets(PART17.reads, step=70):
            pass


def times(columns: dict[str, Any], names: tuple[str, ...], factor: float) -> dict[str, Any]:
    return {
        name: ak.values_astype(values * factor, np.float32) if name in names else values
        for name, values in columns.items()
    }


def side(columns: dict[str, Any]) -> Any:
    return np.where(columns["jet_eta"] > 0, 1, -1)


def changed(columns: dict[str, Any], how: str) -> dict[str, Any]:
    azimuth = np.arctan2(columns["part_py"], columns["part_px"])
    neutral = columns["part_charge"] == 0
    return {
        "MeV": lambda: times(columns, ENERGIES, 1000),
        "TeV": lambda: times(columns, ENERGIES, 1e-3),
        "jet_pt in MeV": lambda: times(columns, ("jet_pt",), 1000),
        "jet_energy in TeV": lambda: times(columns, ("jet_energy",), 1e-3),
        "phi": lambda: {**columns, "part_dphi": azimuth},
        "minus dphi": lambda: times(columns, ("part_dphi",), -1),
        "deta without sign": lambda: {**columns, "part_deta": columns["part_deta"] * side(columns)},
        "eta": lambda: {
            **columns, "part_deta": columns["part_deta"] * side(columns) + columns["jet_eta"]
        },
        "d0 of neutrals": lambda: {**columns, "part_d0val": ak.where(neutral, -999, columns["part_d0val"])},
    }[how]()  # fmt: skip


NOTICED = {
    "MeV": "half of its jets have pT above .* are they in MeV",
    "TeV": "half of its jets have pT below .* are they in TeV",
    "jet_pt in MeV": "jet_pt is .* times that of the jet's constituents",
    "jet_energy in TeV": "jet_energy is 0.00",
    "phi": "part_dphi does not fit part_px and part_py",
    "minus dphi": "part_dphi does not fit part_px and part_py",
    "deta without sign": "part_deta has another sign than published in",
    "eta": "part_deta has another sign than published in",
    "d0 of neutrals": r"part_d0val of [\d,]+ of the first [\d,]+ neutral .*is not 0.* -999 mm\)",
}


@pytest.mark.parametrize("how", NOTICED)
def test_each_is_said_once_a_file(
    write: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    good = write.jetclass(tmp_path / "HToCC_000.root", "Hcc", 150, seed=1)
    read(good)
    assert not caplog.records
    path = write_root(tmp_path / "HToBB_000.root", changed(columns_of(good), how))
    read(path)
    read(path)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    caplog.clear()
    assert re.match(rf"{path}: {NOTICED[how]}", record.message), record.message


def test_real_and_simulated_jets_are_plausible(
    real_jets: Path, simulated_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(real_jets)
    for path in (*simulated_data.rglob("*.root"), *simulated_data.rglob("*.parquet")):
        read(path)
    assert not caplog.records


def test_leading_constituents_alone_are_plausible(
    write: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = columns_of(write.jetclass(tmp_path / "HToCC_000.root", "Hcc", 50, seed=1))
    few = {name: values[:, :3] if name.startswith("part_") else values for name, values in columns.items()}
    read(write_root(tmp_path / "HToBB_000.root", few))
    assert not caplog.records
