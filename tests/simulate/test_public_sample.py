"""The public JetClass-II sample against our propagation: its tracks, paired with its generator particles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from jetscale.simulate import helix
from jetscale.simulate.arrays import Floats, wrap

CHARGES = {211: 1, 321: 1, 2212: 1, 11: -1, 13: -1}


@dataclass(frozen=True)
class Pairs:
    """Tracks and the generator particles behind them, of all jets: start of the particle, what is stored."""

    jet: np.ndarray
    pid: np.ndarray
    motion: helix.Motion
    pt: Floats
    eta: Floats
    phi: Floats


@pytest.fixture(scope="module")
def pairs(shared_data: Path) -> Pairs:
    """Pair by charge and by the azimuth at the closest approach, where exactly one particle fits."""
    path = shared_data / "JetClassII_example.parquet"
    if not path.exists():
        pytest.skip(f"{path} is missing: reference data of the developers")
    rows: list[tuple[float, ...]] = []
    for number, jet in enumerate(ak.from_parquet(path)):
        part = {name: ak.to_numpy(jet[f"part_{name}"]).astype(float) for name in ("px", "py", "pz", "charge")}
        gen = {
            name: ak.to_numpy(jet[f"genpart_{name}"]).astype(float)
            for name in ("px", "py", "pz", "x", "y", "z", "pid")
        }
        charge = np.array([np.sign(code) * CHARGES.get(abs(int(code)), 0) for code in gen["pid"]])
        pt = np.hypot(gen["px"], gen["py"])
        seen = np.flatnonzero((charge != 0) & (np.hypot(gen["x"], gen["y"]) < helix.RADIUS) & (pt > 0.1))
        start = helix.Motion(
            gen["x"][seen], gen["y"][seen], gen["z"][seen], pt[seen],
            np.arctan2(gen["py"], gen["px"])[seen], (gen["pz"] / pt)[seen], charge[seen],
        )  # fmt: skip
        phi = helix.closest_approach_phi(start)
        for px, py, pz, q in zip(*part.values(), strict=True):
            fits = np.flatnonzero((np.abs(wrap(phi - np.arctan2(py, px))) < 2e-5) & (start.charge == q))
            if q and len(fits) == 1:
                at = fits[0]
                stored = (np.hypot(px, py), np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px))
                begin = [getattr(start, name)[at] for name in ("x", "y", "z", "pt", "phi", "slope", "charge")]
                rows.append((number, gen["pid"][seen][at], *begin, *stored))
    columns = np.array(rows).T
    return Pairs(columns[0], np.abs(columns[1]), helix.Motion(*columns[2:9]), *columns[9:])


def test_most_tracks_have_a_partner_at_the_azimuth_of_the_closest_approach(pairs: Pairs) -> None:
    """Displaced ones too, whose azimuth at their vertex is far off: 0.03 rad in the median."""
    far = np.hypot(pairs.motion.x, pairs.motion.y) > 20
    assert len(pairs.pt) > 1500
    assert far.sum() > 40
    assert np.median(np.abs(wrap(pairs.motion.phi - pairs.phi)[far])) > 0.02


def test_muons_have_their_true_momentum(pairs: Pairs) -> None:
    """No calorimeter changes them; the card's own smearing would be 1 to 2.5%."""
    muon = pairs.pid == 13
    assert muon.sum() >= 10
    assert pairs.pt[muon] == pytest.approx(pairs.motion.pt[muon], rel=1e-6)


def test_stored_eta_is_that_of_the_calorimeter_entry(pairs: Pairs) -> None:
    """Each barrel track tells where its event's primary vertex is, and those of a jet agree.

    With the momentum's pseudorapidity soft ones would not: they curl, and enter the calorimeter further out.
    """
    eta, _ = helix.calorimeter_entry(pairs.motion)
    barrel = (np.abs(eta) < 1.3) & (np.abs(pairs.eta) < 1.3)
    vertex = helix.RADIUS * (np.sinh(pairs.eta) - np.sinh(eta))  # mm
    straight = helix.RADIUS * (np.sinh(pairs.eta) - pairs.motion.slope) - pairs.motion.z
    jets = [number for number in np.unique(pairs.jet) if np.sum(barrel & (pairs.jet == number)) >= 5]
    centre = np.full(int(pairs.jet.max()) + 1, np.nan)
    for number in jets:
        centre[int(number)] = np.median(vertex[barrel & (pairs.jet == number)])
    away = np.abs(vertex - centre[pairs.jet.astype(int)])
    away_straight = np.abs(straight - centre[pairs.jet.astype(int)])
    soft = barrel & (pairs.motion.pt < 3) & np.isfinite(away)
    assert len(jets) > 50
    assert soft.sum() > 100
    assert np.median(away[soft]) < 0.01
    assert np.median(away_straight[soft]) > 10
    assert 40 < np.nanstd(centre) < 70  # the card's beam spot: 53 mm
