"""Half precision loses nothing that matters: on real jets, against what the detector resolves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jetscale.jets.features import PAPER, PART17
from jetscale.jets.reading.raw import RawJets
from jetscale.jets.stores.packed_jets import pack
from tests.jets.stores import open_jets


@pytest.fixture
def raw(real_jets: Path) -> RawJets:
    with open_jets(real_jets) as file:
        (jets,) = file.jets(tuple({*PAPER.reads, *PART17.reads}))
    return jets


@pytest.mark.parametrize("features", [PAPER, PART17])
def test_rounding_is_half_a_unit_in_the_last_of_eleven_bits(raw: RawJets, features) -> None:
    exact = features.compute(raw)
    stored = pack(raw, features).x_TF
    assert stored.dtype == np.float16
    assert np.isfinite(stored).all()
    error = np.abs(stored.astype(np.float64) - exact)
    assert (error <= np.maximum(np.abs(exact) * 2.0**-11, 2.0**-25)).all()
    spread = exact.std(axis=0)
    assert (error.std(axis=0)[spread > 0] < 1e-3 * spread[spread > 0]).all()


def test_flags_and_charge_are_exact(raw: RawJets) -> None:
    assert np.array_equal(pack(raw, PART17).x_TF[:, 5:11].astype(np.float32), PART17.compute(raw)[:, 5:11])


def test_below_the_detector_resolution(raw: RawJets) -> None:
    """Angles: 1e-3 rad is a good track; momenta: 1 % is the best track, 0.1 the best tower."""
    exact, stored = PAPER.compute(raw).astype(np.float64), pack(raw, PAPER).x_TF.astype(np.float64)
    inside = np.abs(exact[:, :2]).max(axis=1) < 0.8
    assert np.abs(stored - exact)[inside, :2].max() < 2.5e-4
    assert np.abs(np.exp(stored[:, 2:4] - exact[:, 2:4]) - 1).max() < 0.0025
    charged = exact[:, 5] > 0
    significance = np.arctanh(np.clip(exact[charged, 4], -0.99, 0.99)) / exact[charged, 5]
    rounded = np.arctanh(np.clip(stored[charged, 4], -0.99, 0.99)) / stored[charged, 5]
    small = np.abs(exact[charged, 4]) < 0.9
    np.testing.assert_allclose(rounded[small], significance[small], rtol=4e-3, atol=1e-6)


def test_jet_mass_survives(raw: RawJets) -> None:
    """Mass of the jet from its stored inputs, against the one from exact inputs."""

    def mass(x_TF: np.ndarray) -> np.ndarray:
        deta, dphi, log_pt, _ = x_TF[:, :4].astype(np.float64).T
        pt = np.exp(log_pt)
        four = np.stack(
            [pt * np.cosh(deta), pt * np.cos(dphi), pt * np.sin(dphi), pt * np.sinh(deta)], axis=1
        )
        e, px, py, pz = np.add.reduceat(four, raw.offsets[:-1], axis=0).T
        return np.sqrt(e**2 - px**2 - py**2 - pz**2)

    exact, stored = mass(PAPER.compute(raw)), mass(pack(raw, PAPER).x_TF)
    assert np.median(exact) > 20
    off = np.abs(stored / exact - 1)  # the detector resolves the mass to about 0.1
    assert off.max() < 2.5e-3
    assert np.median(off) < 3e-4
