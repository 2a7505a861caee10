from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from jetscale.jets.datasets.base import jet_file
from jetscale.jets.datasets.jetclass import JETCLASS_PREFIXES
from jetscale.jets.datasets.jetclass2 import JETCLASS2_NUMBERS
from jetscale.simulate.output_files import Target
from jetscale.simulate.production import simulate
from tests.conftest import Made

JETS = {"jetclass": 150, "jetclass2": 200}


@pytest.fixture(scope="session")
def sample_folder(made_once: Made) -> Path:
    """One file of every process and bucket, made the way users make them (in this process)."""
    files = [jet_file("jetclass", process, 0) for process in JETCLASS_PREFIXES.values()]
    files += [jet_file("jetclass2", bucket, 0) for bucket in JETCLASS2_NUMBERS]

    def fill(out: Path) -> None:
        out.mkdir()
        simulate([Target(out, file, JETS[file.dataset], seed=0, mpi=True) for file in files], 1, out)

    return made_once("sample", fill)


@pytest.fixture(scope="session")
def jetclass(sample_folder: Path) -> Mapping[str, ak.Array]:
    """JetClass label to its jets, as uproot reads them."""
    return {
        label: uproot.open(sample_folder / jet_file("jetclass", process, 0).path)["tree"].arrays()
        for label, process in JETCLASS_PREFIXES.items()
    }


@pytest.fixture(scope="session")
def jetclass2(sample_folder: Path) -> Mapping[str, ak.Array]:
    """JetClass-II bucket to its jets."""
    return {
        bucket: ak.from_parquet(sample_folder / jet_file("jetclass2", bucket, 0).path)
        for bucket in JETCLASS2_NUMBERS
    }


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)
