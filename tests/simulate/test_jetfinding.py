from __future__ import annotations

from pathlib import Path

import awkward as ak
import fastjet
import numpy as np
import pytest

from jetscale.simulate.arrays import Floats, Ints, delta_r, jagged, offsets, wrap
from jetscale.simulate.grooming import soft_drop_masses
from jetscale.simulate.jetfinding import Jets, cluster, substructure


def four_momenta(pt: Floats, eta: Floats, phi: Floats) -> dict[str, Floats]:
    return {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "E": pt * np.cosh(eta)}


def whole(counts: list[int]) -> Jets:
    """Jets whose constituents are all given particles in turn; their own kinematics do not matter here."""
    zero = np.zeros(len(counts))
    first = offsets(np.array(counts))
    return Jets(np.arange(len(counts)), zero, zero, zero, zero, first, np.arange(first[-1]))


def anti_kt(pt: Floats, eta: Floats, phi: Floats, radius: float) -> list[set[int]]:
    """Plain anti-kT by its definition, recombining four-momenta (massless inputs)."""
    p = four_momenta(pt, eta, phi)
    items = [({i}, np.array([p[k][i] for k in ("px", "py", "pz", "E")])) for i in range(len(pt))]
    jets = []

    def coordinates(v: Floats) -> tuple[float, float, float]:
        return np.hypot(v[0], v[1]), 0.5 * np.log((v[3] + v[2]) / (v[3] - v[2])), np.arctan2(v[1], v[0])

    while items:
        at = [coordinates(v) for _, v in items]
        best, pair = min((a[0] ** -2, (i, -1)) for i, a in enumerate(at))
        for i in range(len(items)):
            for j in range(i):
                near = (at[i][1] - at[j][1]) ** 2 + wrap(np.array(at[i][2] - at[j][2])) ** 2
                distance = min(at[i][0] ** -2, at[j][0] ** -2) * near / radius**2
                if distance < best:
                    best, pair = distance, (i, j)
        i, j = pair
        if j < 0:
            jets.append(items.pop(i)[0])
        else:
            items[j] = (items[i][0] | items[j][0], items[i][1] + items[j][1])
            items.pop(i)
    return jets


def test_clusters_are_anti_kt_jets_by_event_and_falling_pt(random: np.random.Generator) -> None:
    counts = [30, 0, 25]
    n = sum(counts)
    event: Ints = np.repeat(np.arange(3), counts)
    pt, eta, phi = random.exponential(20, n), random.normal(0, 1, n), random.uniform(-np.pi, np.pi, n)
    jets = cluster(event, four_momenta(pt, eta, phi), 3, 15.0)
    starts = offsets(np.array(counts))
    for number in (0, 2):
        rows = slice(starts[number], starts[number + 1])
        expected = anti_kt(pt[rows], eta[rows], phi[rows], 0.8)
        mine = np.flatnonzero(jets.event == number)
        found = [
            set((jets.constituents[jets.first[j] : jets.first[j + 1]] - starts[number]).tolist())
            for j in mine
        ]
        assert all(members in expected for members in found)
        hard = [
            m
            for m in expected
            if np.hypot(
                *(sum(four_momenta(pt, eta, phi)[k][starts[number] + i] for i in m) for k in ("px", "py"))
            )
            > 15
        ]
        assert len(hard) == len(found)
        assert np.all(np.diff(jets.pt[mine]) <= 0)
    assert not np.any(jets.event == 1)


def test_soft_drop_removes_the_soft_and_keeps_two_prongs() -> None:
    pt, eta, phi = np.array([100.0, 80.0, 5.0]), np.array([0.0, 0.3, -0.6]), np.array([0.0, 0.2, 0.1])
    pair = {k: v[:2].sum() for k, v in four_momenta(pt, eta, phi).items()}
    expected = np.sqrt(pair["E"] ** 2 - pair["px"] ** 2 - pair["py"] ** 2 - pair["pz"] ** 2)
    found = substructure(whole([3]), four_momenta(pt, eta, phi))
    assert found.soft_drop_mass == pytest.approx([expected], rel=1e-6)


def test_tau_of_simple_jets() -> None:
    """Two equal particles: tau1 = pT dR / (2 pT R) wherever between them the axis lies; tau2 = 0."""
    pt, eta, phi = np.array([50.0, 50.0, 10.0]), np.array([0.0, 0.4, 0.0]), np.zeros(3)
    found = substructure(whole([2, 1]), four_momenta(pt, eta, phi))
    assert found.tau[0] == pytest.approx([0.4 / (2 * 0.8), 0, 0, 0], abs=1e-4)
    assert found.tau[1] == pytest.approx(0, abs=1e-6)
    assert found.soft_drop_mass[1] == pytest.approx(0, abs=1e-3)
    assert len(substructure(whole([]), four_momenta(np.zeros(0), np.zeros(0), np.zeros(0))).tau) == 0


def test_definitions_agree_with_the_public_sample(shared_data: Path) -> None:
    """Medians only: pile-up removal happened between the stored constituents and the stored substructure."""
    path = shared_data / "JetClassII_example.parquet"
    if not path.exists():
        pytest.skip(f"{path} is missing: reference data of the developers")
    jets = ak.from_parquet(path)
    near = np.hypot(jets.part_deta, jets.part_dphi)
    jets = jets[ak.all(near < 0.8, axis=1) & (jets.jet_nparticles > 4)]
    names = {"px": "px", "py": "py", "pz": "pz", "E": "energy"}
    momenta = {k: ak.to_numpy(ak.flatten(jets[f"part_{v}"])).astype(float) for k, v in names.items()}
    found = substructure(whole(ak.num(jets.part_px).to_list()), momenta)
    assert np.median(found.soft_drop_mass / ak.to_numpy(jets.jet_sdmass)) == pytest.approx(1, abs=0.02)
    for n in range(4):
        assert np.median(found.tau[:, n] / ak.to_numpy(jets[f"jet_tau{n + 1}"])) == pytest.approx(1, abs=0.03)


def test_distance_wraps() -> None:
    assert delta_r(np.zeros(1), np.array([3.1]), np.zeros(1), np.array([-3.1])) == pytest.approx(
        2 * np.pi - 6.2
    )


def test_soft_drop_is_fastjets(random: np.random.Generator) -> None:
    """Jets of one to ninety particles, some massive, in up to three lumps, against FastJet's own grooming."""
    counts = np.concatenate([random.integers(1, 90, 200), [1, 1, 2, 2, 3]])
    first, n = offsets(counts), int(counts.sum())
    jet, lump = np.repeat(np.arange(len(counts)), counts), random.integers(0, 3, n)
    eta0, phi0 = random.uniform(-2, 2, len(counts)), random.uniform(-np.pi, np.pi, len(counts))
    centres = random.normal(0, 0.25, (len(counts), 3, 2))
    pt = random.exponential(10, n) + 0.1
    eta = eta0[jet] + centres[jet, lump, 0] + random.normal(0, 0.08, n)
    phi = phi0[jet] + centres[jet, lump, 1] + random.normal(0, 0.08, n)
    momenta = four_momenta(pt, eta, phi)
    momenta["E"] = np.hypot(momenta["E"], random.choice([0.0, 0.13957, 0.938], n))
    sequence = fastjet.ClusterSequence(
        jagged(first, **momenta), fastjet.JetDefinition(fastjet.cambridge_algorithm, 1000.0)
    )
    groomed = sequence.exclusive_jets_softdrop_grooming(1, 0.0, 0.1, "scalar_z", 0.8)
    expected = np.maximum(ak.to_numpy(groomed.msoftdrop).astype(np.float64), 0.0)
    assert (expected > 20).sum() > 100
    found = soft_drop_masses(first, momenta, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)
