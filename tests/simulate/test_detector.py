"""Detector formulas against published numbers, closed forms and a step-by-step integration."""

from __future__ import annotations

import numpy as np
import pytest

from jetscale.simulate import helix
from jetscale.simulate.arrays import Floats
from jetscale.simulate.calorimeter import ECAL, HCAL, Hits, energy_flow
from jetscale.simulate.resolution import (
    ecal_resolution,
    hcal_resolution,
    impact_resolution,
    log_normal,
    momentum_resolution,
    tracking_efficiency,
)


def full(value: float, n: int = 1) -> Floats:
    return np.full(n, value)


@pytest.mark.parametrize(
    ("kind", "pt", "barrel", "endcap"),
    [
        ("hadron", 0.05, 0, 0), ("hadron", 0.5, 0.70, 0.60), ("hadron", 20, 0.95, 0.85),
        ("electron", 0.5, 0.73, 0.50), ("electron", 20, 0.95, 0.83), ("electron", 200, 0.99, 0.90),
        ("muon", 0.5, 0.75, 0.70), ("muon", 20, 0.99, 0.98),
        ("muon", 2000, 0.99 * np.exp(-0.5), 0.98 * np.exp(-0.5)),
    ],
)  # fmt: skip
def test_tracking_efficiency(kind: str, pt: float, barrel: float, endcap: float) -> None:
    eta = np.array([0.3, -1.4, 1.6, -2.4, 2.6])
    found = tracking_efficiency(
        full(pt, 5), eta, full(kind == "electron", 5) > 0, full(kind == "muon", 5) > 0
    )
    assert found == pytest.approx([barrel, barrel, endcap, endcap, 0])


@pytest.mark.parametrize(
    ("pt", "d0", "dz"),
    [
        (1.0, (0.075, 0.093, 0.156), (0.111, 0.198, 0.669)),
        (10.0, (0.019, 0.021, 0.026), (0.038, 0.051, 0.112)),
        (50.0, (0.011, 0.010, 0.014), (0.032, 0.034, 0.082)),
        (0.15, (0, 0, 0), (0, 0, 0)),
    ],
)
def test_impact_resolution_is_the_published_table(
    pt: float, d0: tuple[float, ...], dz: tuple[float, ...]
) -> None:
    found = impact_resolution(full(pt, 3), np.array([0.5, -1.2, 2.0]))
    assert found[0] == pytest.approx(d0, abs=6e-4)
    assert found[1] == pytest.approx(dz, abs=6e-4)
    assert impact_resolution(full(5.0), full(2.6))[0] == 0


def test_energy_and_momentum_resolutions() -> None:
    e50 = np.sqrt((0.008 * 50) ** 2 + 0.11**2 * 50 + 0.4**2)
    assert ecal_resolution(full(50.0, 2), np.array([0.0, -1.0])) == pytest.approx([e50, 1.64 * e50])
    assert ecal_resolution(full(50.0), full(2.0)) == pytest.approx(2.16 * e50)
    assert hcal_resolution(full(100.0), full(1.0)) == pytest.approx(np.sqrt(25 + 225))
    none = np.zeros(3, bool)
    found = momentum_resolution(full(100.0, 3), np.array([0.2, 1.0, 2.0]), none, none)
    assert found == pytest.approx([np.hypot(0.06, 0.13), np.hypot(0.10, 0.17), np.hypot(0.25, 0.31)])
    assert momentum_resolution(full(1e4), full(2.0), none[:1], none[:1]) == 1


def test_log_normal_has_the_moments_asked_for(random: np.random.Generator) -> None:
    drawn = log_normal(full(3.0, 200_000), full(1.5, 200_000), random.standard_normal(200_000))
    assert drawn.mean() == pytest.approx(3.0, rel=0.01)
    assert drawn.std() == pytest.approx(1.5, rel=0.02)
    assert log_normal(full(0.0), full(1.0), full(0.3)) == 0


def swim(motion: helix.Motion, step: float, length: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Path of one charged particle by small rotations of its direction: d(phi)/ds = -0.2998 q B / pT."""
    s = np.arange(0, length, step)
    bend = -motion.charge[0] / (motion.pt[0] * helix.MM_PER_GEV)
    phi = motion.phi[0] + bend * (s + step / 2)
    x = motion.x[0] + np.concatenate([[0], np.cumsum(np.cos(phi) * step)[:-1]])
    y = motion.y[0] + np.concatenate([[0], np.cumsum(np.sin(phi) * step)[:-1]])
    return x, y, motion.z[0] + motion.slope[0] * s, motion.phi[0] + bend * s


def particles(random: np.random.Generator, n: int, charge: float) -> helix.Motion:
    return helix.Motion(
        random.uniform(-20, 20, n), random.uniform(-20, 20, n), random.uniform(-50, 50, n),
        np.exp(random.uniform(np.log(0.2), np.log(50), n)), random.uniform(-np.pi, np.pi, n),
        random.uniform(-2, 2, n), full(charge, n) * random.choice([-1, 1], n),
    )  # fmt: skip


def test_helix_agrees_with_small_steps(random: np.random.Generator) -> None:
    motion = particles(random, 40, 1.0)
    eta, phi = helix.calorimeter_entry(motion)
    d0, dz = helix.impact_parameters(motion)
    for number in range(40):
        one = motion[np.arange(40) == number]
        x, y, z, _ = swim(one, 0.02, 12_000)
        out = np.argmax((np.hypot(x, y) >= helix.RADIUS) | (np.abs(z) >= helix.HALF_LENGTH))
        assert out > 0
        assert np.arcsinh(z[out] / np.hypot(x[out], y[out])) == pytest.approx(eta[number], abs=1e-3)
        assert np.cos(np.arctan2(y[out], x[out]) - phi[number]) == pytest.approx(1, abs=1e-6)
        back = helix.Motion(one.x, one.y, one.z, one.pt, one.phi + np.pi, -one.slope, -one.charge)
        xs, ys, zs, phis = (
            np.concatenate([a, b]) for a, b in zip(swim(one, 0.005, 100), swim(back, 0.005, 100), strict=True)
        )
        near = np.argmin(np.hypot(xs, ys))
        direction = phis[near] + (np.pi if near >= len(xs) // 2 else 0)
        signed = xs[near] * np.sin(direction) - ys[near] * np.cos(direction)
        assert d0[number] == pytest.approx(signed, abs=0.02)
        assert dz[number] == pytest.approx(zs[near], abs=0.05)


def test_straight_tracks_are_the_limit_of_large_momentum(random: np.random.Generator) -> None:
    motion = particles(random, 100, 1.0)
    fast = helix.Motion(
        motion.x, motion.y, motion.z, motion.pt + 1e6, motion.phi, motion.slope, motion.charge
    )
    d0, dz = helix.impact_parameters(fast)
    cos, sin = np.cos(motion.phi), np.sin(motion.phi)
    assert d0 == pytest.approx(motion.x * sin - motion.y * cos, abs=1e-3)
    assert dz == pytest.approx(motion.z - (motion.x * cos + motion.y * sin) * motion.slope, abs=1e-3)
    neutral = helix.Motion(
        motion.x, motion.y, motion.z, motion.pt, motion.phi, motion.slope, 0 * motion.charge
    )
    for bent, straight in zip(helix.calorimeter_entry(fast), helix.calorimeter_entry(neutral), strict=True):
        assert bent == pytest.approx(straight, abs=1e-3)


def test_particles_from_the_origin_have_no_impact_parameter(random: np.random.Generator) -> None:
    motion = particles(random, 50, 1.0)
    zero = np.zeros(50)
    d0, dz = helix.impact_parameters(
        helix.Motion(zero, zero, zero, motion.pt, motion.phi, motion.slope, motion.charge)
    )
    assert np.abs(d0).max() < 1e-6
    assert np.abs(dz).max() < 1e-6


def test_particles_made_outside_the_tracker_are_not_seen() -> None:
    xs, zs = np.array([0.0, 1291.0, 0.0]), np.array([0.0, 0.0, 3001.0])
    motion = helix.Motion(xs, 0 * xs, zs, full(1.0, 3), 0 * xs, 0 * xs, full(1.0, 3))
    assert helix.starts_inside(motion).tolist() == [True, False, False]


def hits(n: int, energy: float) -> Hits:
    """One hit an event, all in the tower around eta 0.01, phi 0.005."""
    return Hits(np.arange(n), full(0.01, n), full(0.005, n), full(energy, n))


NOBODY = Hits(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0))


def test_isolated_photon_keeps_its_energy_on_average(random: np.random.Generator) -> None:
    towers, scale = energy_flow(ECAL, hits(20_000, 40.0), NOBODY, random)
    assert len(scale) == 0
    assert len(towers.event) == 20_000
    assert towers.energy.mean() == pytest.approx(40.0, rel=0.01)
    assert towers.energy.std() == pytest.approx(ecal_resolution(full(40.0), full(0.0087))[0], rel=0.03)
    assert np.abs(towers.eta - 0.0087).max() <= 0.0087 + 1e-12
    assert towers.phi.min() >= 0
    assert towers.phi.max() <= np.pi / 180


def test_charged_hadron_takes_the_calorimeters_energy_and_makes_no_neutral(
    random: np.random.Generator,
) -> None:
    towers, scale = energy_flow(HCAL, hits(20_000, 50.0), hits(20_000, 50.0), random)
    excess = len(towers.event) / 20_000
    assert 0.1 < excess < 0.2  # one standard deviation up is an excess: 16% of a nearly Gaussian resolution
    scaled = scale[scale != 1]
    assert len(scaled) == 20_000 - len(towers.event)
    assert scaled.max() < 1 + hcal_resolution(full(50.0), full(0.04))[0] / 50 * 1.3


def test_soft_charged_hadrons_vanish_below_the_tower_threshold(random: np.random.Generator) -> None:
    _, scale = energy_flow(HCAL, hits(5_000, 0.8), hits(5_000, 0.8), random)
    assert np.mean(scale == 0) > 0.5


def test_neutral_hadron_beside_a_track_appears_as_the_excess(random: np.random.Generator) -> None:
    both = Hits(
        *(
            np.concatenate([a, b])
            for a, b in zip(vars(hits(5_000, 50.0)).values(), vars(hits(5_000, 100.0)).values(), strict=True)
        )
    )
    towers, scale = energy_flow(HCAL, both, hits(5_000, 50.0), random)
    assert len(towers.event) > 4_900
    assert np.mean(towers.energy) == pytest.approx(100.0, rel=0.03)
    assert np.mean(scale == 1) > 0.98


def test_towers_tile_the_published_grid() -> None:
    """Two points share a tower exactly if no published edge lies between them."""
    for calorimeter, eta_step, phi_bins in ((ECAL, 0.0174, 360), (HCAL, 0.087, 72)):
        assert calorimeter.eta_edges[0] == -5
        assert calorimeter.eta_edges[-1] == 5
        assert np.all(np.diff(calorimeter.eta_edges) > 1e-3)
        eta = np.array([0.1, 1.0, -1.0]) * eta_step * 3.5
        ring = np.searchsorted(calorimeter.eta_edges, eta) - 1
        assert np.diff(calorimeter.eta_edges)[ring] == pytest.approx(eta_step)
        assert np.all(calorimeter.phi_bins[ring] == phi_bins)
    events = np.zeros(4, np.int64)
    cells, inside = HCAL.cells(events, np.array([0.01, 0.08, 0.09, 5.1]), np.array([0.01, 0.08, 0.08, 0.0]))
    assert cells[0] == cells[1] != cells[2]
    assert inside.tolist() == [True, True, True, False]
    assert dict(zip(HCAL.eta_edges[1:].round(3).tolist(), HCAL.phi_bins.tolist(), strict=True))[1.653] == 72
    assert dict(zip(HCAL.eta_edges[1:].round(3).tolist(), HCAL.phi_bins.tolist(), strict=True))[1.74] == 36
    assert HCAL.phi_bins[-1] == 18
    assert ECAL.phi_bins[-1] == 36
