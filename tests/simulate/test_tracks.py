"""What the tracks of the published chain are: true momenta, seen where they enter the calorimeter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from jetscale.simulate import helix
from jetscale.simulate.arrays import Floats, Ints, wrap
from jetscale.simulate.detector import PHOTON, Objects, detect
from jetscale.simulate.pythia import Events

ELECTRON, MUON, PION = 11, 13, 211
MASSES = {ELECTRON: 0.000511, MUON: 0.10566, PION: 0.13957}


def gun(kind: int, pt: Floats, eta: Floats, vertex: tuple[Floats, Floats, Floats] | None = None) -> Events:
    """One stable particle of charge -1 an event, at phi = 0, from the origin or `vertex` (x, y, z in mm)."""
    n = len(pt)
    zero, no_row = np.zeros(n), np.full(n, -1)
    mass = np.full(n, MASSES[kind])
    pz = pt * np.sinh(eta)
    x, y, z = vertex or (zero, zero, zero)
    return Events(
        first=np.arange(n + 1), event=np.arange(n), pid=np.full(n, kind if kind != PION else -kind),
        status=np.ones(n, np.int64), mother1=no_row, mother2=no_row, daughter1=no_row, daughter2=no_row,
        px=pt, py=zero, pz=pz, energy=np.sqrt(pt**2 + pz**2 + mass**2), mass=mass,
        x=x, y=y, z=z, t=zero, charge=np.full(n, -1.0),
    )  # fmt: skip


def of_kind(objects: Objects, kind: int) -> tuple[Ints, Objects]:
    """Objects of a kind, and the event of each."""
    rows = np.flatnonzero(np.abs(objects.pid) == kind)
    return objects.event[rows], objects[rows]


def test_tracks_keep_their_true_momentum(random: np.random.Generator) -> None:
    """Muons meet no calorimeter, so what is left is what tracking does to the momentum: nothing."""
    pt = np.geomspace(0.5, 800.0, 4000)
    event, muons = of_kind(detect(gun(MUON, pt, random.uniform(-2, 2, 4000)), random), MUON)
    assert len(event) > 3000
    assert muons.pt == pytest.approx(pt[event], rel=1e-12)


@pytest.mark.parametrize("pt", [50.0, 200.0, 500.0])
def test_electrons_have_no_fake_photon(random: np.random.Generator, pt: float) -> None:
    """A tower two standard deviations above its track makes one: 2.4%. With smeared tracks: 29 to 60%."""
    n = 8000
    objects = detect(gun(ELECTRON, np.full(n, pt), np.full(n, 0.4)), random)
    event, electrons = of_kind(objects, ELECTRON)
    photons = np.isin(event, objects.event[objects.pid == PHOTON])
    assert 0.01 < photons.mean() < 0.04
    assert electrons.pt.mean() == pytest.approx(pt, rel=0.005)
    assert electrons.pt.std() / pt < 0.05


def test_impact_errors_are_looked_up_at_the_smeared_momentum(random: np.random.Generator) -> None:
    """All of one true pT, yet a log-normal share of the errors is that of the bin from 9.98 to 12.20 GeV."""
    n = 20_000
    _, pions = of_kind(detect(gun(PION, np.full(n, 10.0), np.full(n, 1.2)), random), PION)
    sigma = np.hypot(0.10, 1.7e-3 * 10.0)
    width = np.sqrt(np.log1p(sigma**2))
    low, high = norm.cdf((np.log(np.array([9.9849, 12.1976]) / 10.0) + width**2 / 2) / width)
    assert np.mean(pions.d0_error == 0.0214) == pytest.approx(high - low, abs=0.015)
    assert len(np.unique(pions.d0_error)) >= 4


def test_displaced_tracks_have_the_azimuth_of_the_closest_approach(random: np.random.Generator) -> None:
    """A track made 100 mm away has turned since it passed the beam."""
    n = 500
    pt, x, y = random.uniform(0.6, 5, n), random.uniform(50, 200, n), random.uniform(-80, 80, n)
    eta = np.full(n, 0.3)
    event, muons = of_kind(detect(gun(MUON, pt, eta, (x, y, np.zeros(n))), random), MUON)
    radius = pt[event] * helix.MM_PER_GEV * -1.0
    centre = np.stack([x[event], y[event] - radius])
    # the momentum is perpendicular to the line from the centre to the beam, and turns clockwise for charge +1
    expected = np.arctan2(centre[1], centre[0]) - np.pi / 2
    assert np.abs(wrap(muons.phi - expected)).max() < 1e-9
    assert np.abs(muons.phi).min() > 0.005


def test_a_displaced_primary_vertex_moves_the_entry_points_and_nothing_else(
    random: np.random.Generator,
) -> None:
    """Straight lines: sinh(entry eta) = sinh(eta) + z / (transverse distance to the wall)."""
    n = 3000
    pt, eta = np.full(n, 400.0), random.uniform(-1.2, 1.2, n)
    z = 53.0 * random.standard_normal(n)
    event, moved = of_kind(detect(gun(MUON, pt, eta), random, z), MUON)
    expected = np.arcsinh(np.sinh(eta[event]) + z[event] / helix.RADIUS)
    assert moved.position_eta == pytest.approx(expected, abs=1e-4)
    assert moved.eta == pytest.approx(eta[event], abs=1e-9)
    assert moved.pt == pytest.approx(pt[event])
    pull = moved.dz / moved.dz_error
    assert abs(pull.std() - 1) < 0.05  # relative to the primary vertex: nothing of the 53 mm
    assert abs((moved.d0 / moved.d0_error).std() - 1) < 0.05
    event, still = of_kind(detect(gun(MUON, pt, eta), random), MUON)
    assert still.position_eta == pytest.approx(eta[event], abs=1e-3)


def test_neutrals_are_seen_where_they_enter(random: np.random.Generator) -> None:
    """A photon's momentum points from the origin to its tower, wherever it was made."""
    n = 3000
    eta, z = random.uniform(-1, 1, n), 53.0 * random.standard_normal(n)
    events = gun(ELECTRON, np.full(n, 100.0), eta)
    photons = Events(**{**vars(events), "pid": np.full(n, PHOTON), "charge": np.zeros(n)})
    event, found = of_kind(detect(photons, random, z), PHOTON)
    expected = np.arcsinh(np.sinh(eta[event]) + z[event] / helix.RADIUS)
    assert np.abs(found.eta - expected).max() < 0.0174
    assert np.array_equal(found.eta, found.position_eta)
    energy = found.pt * np.cosh(found.eta)
    assert np.mean(energy / (100 * np.cosh(eta[event]))) == pytest.approx(1, rel=0.005)
