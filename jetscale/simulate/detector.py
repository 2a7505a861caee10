"""From stable particles to energy-flow objects: tracks, photons and neutral hadrons.

The chain of the published Delphes cards, without pile-up: propagation, tracking efficiency,
impact-parameter smearing, ECal, HCal, particle flow. It was compared with the public JetClass-II sample,
whose tracks can be paired with its generator particles: muons have the generator's pT to the last float
digit, displaced tracks have the azimuth of the closest approach, and every stored track has the
pseudorapidity of the calorimeter entry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from jetscale.simulate.arrays import Bools, Floats, Ints
from jetscale.simulate.calorimeter import ECAL, HCAL, Hits, energy_flow
from jetscale.simulate.helix import (
    Motion,
    calorimeter_entry,
    closest_approach_phi,
    impact_parameters,
    starts_inside,
)
from jetscale.simulate.pythia import Events
from jetscale.simulate.resolution import (
    impact_resolution,
    log_normal,
    momentum_resolution,
    tracking_efficiency,
)

NEUTRINOS = (12, 14, 16)
PHOTON = 22
NEUTRAL_HADRON = 0
"""Code of a neutral HCal object, Delphes' choice."""


@dataclass(frozen=True)
class Objects:
    """Energy-flow objects of a batch, sorted by event.

    Attributes
    ----------
    event : (O,) event number
    pid : (O,) PDG code of a track; 22 for a photon, 0 for a neutral hadron
    pt, eta, phi, mass : (O,) of the momentum, from which jets are made; GeV, 1, rad, GeV
    position_eta : (O,) pseudorapidity, seen from the origin, of the point of entry into the calorimeter;
        equal to `eta` for neutral objects, which are measured only there
    charge : (O,) units of e
    d0, d0_error, dz, dz_error : (O,) mm; 0 for neutral objects
    """

    event: Ints
    pid: Ints
    pt: Floats
    eta: Floats
    phi: Floats
    mass: Floats
    position_eta: Floats
    charge: Floats
    d0: Floats
    d0_error: Floats
    dz: Floats
    dz_error: Floats

    def __getitem__(self, which: Ints) -> Objects:
        """Objects at the positions `which`."""
        return Objects(**{name: values[which] for name, values in vars(self).items()})

    def momenta(self) -> dict[str, Floats]:
        """(O,) components px, py, pz, E in GeV, from which jets are clustered."""
        return self._components(self.eta)

    def stored_momenta(self) -> dict[str, Floats]:
        """(O,) components px, py, pz, E in GeV as the published files have them.

        The published constituents have the pT and azimuth of their momentum and the pseudorapidity of their
        position at the calorimeter (tests/simulate/test_public_sample.py shows it). So the pT of a jet is the
        sum of its stored constituents, and its pz and energy are not: soft tracks bend to larger abs(eta),
        and a displaced primary vertex moves all of them.
        """
        return self._components(self.position_eta)

    def _components(self, eta: Floats) -> dict[str, Floats]:
        pz = self.pt * np.sinh(eta)
        energy = np.sqrt(self.pt**2 + pz**2 + self.mass**2)
        return {"px": self.pt * np.cos(self.phi), "py": self.pt * np.sin(self.phi), "pz": pz, "E": energy}


def stable_visible(events: Events) -> Ints:
    """(H,) rows of the final-state particles other than neutrinos."""
    final = (events.status > 0) & ~np.isin(np.abs(events.pid), NEUTRINOS)
    return np.flatnonzero(final)


def detect(events: Events, random: np.random.Generator, vertex_z: Floats | None = None) -> Objects:
    """Simulate the detector's response to a batch of events.

    Parameters
    ----------
    events : E generated events, each with its primary vertex at the origin
    random : source of all random numbers
    vertex_z : (E,) mm, position of each event's primary vertex along the beam; None for all at the origin.
        It changes where particles enter the calorimeter; dz stays relative to the primary vertex.

    Returns
    -------
    Tracks, photons and neutral hadrons of all events, sorted by event.
    """
    rows = stable_visible(events)
    pt = events.pt(rows)
    motion = Motion(
        events.x[rows], events.y[rows], events.z[rows], pt, events.phi(rows),
        np.divide(events.pz[rows], pt, out=np.zeros_like(pt), where=pt > 0), events.charge[rows],
    )  # fmt: skip
    moved = motion if vertex_z is None else replace(motion, z=motion.z + vertex_z[events.event[rows]])
    seen = starts_inside(moved)
    rows, motion, moved = rows[seen], motion[seen], moved[seen]
    eta, phi = calorimeter_entry(moved)
    code = np.abs(events.pid[rows])
    electromagnetic = (code == 11) | (code == PHOTON)
    invisible = code == 13

    tracks, at = _tracks(events, rows, motion, eta, random)
    track_hits = Hits(tracks.event, eta[at], phi[at], _energy(tracks))
    particle_hits = Hits(events.event[rows], eta, phi, events.energy[rows])
    is_electron, is_muon = np.abs(tracks.pid) == 11, np.abs(tracks.pid) == 13

    scale = np.ones(len(at))
    photons, scale[is_electron] = energy_flow(
        ECAL, _select(particle_hits, electromagnetic), _select(track_hits, is_electron), random
    )
    hadronic = ~is_electron & ~is_muon
    hadrons, scale[hadronic] = energy_flow(
        HCAL, _select(particle_hits, ~electromagnetic & ~invisible), _select(track_hits, hadronic), random
    )
    tracks = Objects(**{**vars(tracks), "pt": tracks.pt * scale})[np.flatnonzero(scale > 0)]
    return _merge(tracks, _towers(photons, PHOTON), _towers(hadrons, NEUTRAL_HADRON))


def _tracks(
    events: Events, rows: Ints, motion: Motion, entry_eta: Floats, random: np.random.Generator
) -> tuple[Objects, Ints]:
    """Reconstructed tracks, and the position in `rows` of the particle of each.

    As in Delphes, efficiency and momentum resolution depend on the pseudorapidity of the calorimeter entry,
    and the impact-parameter resolution on that of the momentum. Also as in Delphes, TrackSmearing uses the
    smeared pT only to look up the impact-parameter resolution. It then returns to the true momentum at the
    closest approach (``Candidate::P``, which MomentumSmearing does not change) and smears that by the
    resolution of the cards, which is zero.
    """
    pid = events.pid[rows]
    electron, muon = np.abs(pid) == 11, np.abs(pid) == 13
    efficiency = tracking_efficiency(motion.pt, entry_eta, electron, muon)
    found = (motion.charge != 0) & (random.random(len(rows)) < efficiency)
    at = np.flatnonzero(found)
    track = motion[found]
    sigma = momentum_resolution(track.pt, entry_eta[at], electron[at], muon[at])
    smeared_pt = log_normal(track.pt, sigma * track.pt, random.standard_normal(len(at)))
    eta = np.arcsinh(track.slope)
    d0, dz = impact_parameters(track)
    d0_error, dz_error = impact_resolution(smeared_pt, eta)
    smear = random.standard_normal((2, len(at)))
    return Objects(
        event=events.event[rows][at],
        pid=pid[at],
        pt=track.pt,
        eta=eta,
        phi=closest_approach_phi(track),
        mass=events.mass[rows][at],
        position_eta=entry_eta[at],
        charge=track.charge,
        d0=d0 + d0_error * smear[0],
        d0_error=d0_error,
        dz=dz + dz_error * smear[1],
        dz_error=dz_error,
    ), at


def _energy(objects: Objects) -> Floats:
    return np.sqrt((objects.pt * np.cosh(objects.eta)) ** 2 + objects.mass**2)


def _select(hits: Hits, which: Bools) -> Hits:
    return Hits(hits.event[which], hits.eta[which], hits.phi[which], hits.energy[which])


def _towers(hits: Hits, pid: int) -> Objects:
    zero = np.zeros(len(hits.event))
    pt = hits.energy / np.cosh(hits.eta)
    code = np.full(len(hits.event), pid)
    return Objects(hits.event, code, pt, hits.eta, hits.phi, zero, hits.eta, zero, zero, zero, zero, zero)


def _merge(*parts: Objects) -> Objects:
    names = vars(parts[0])
    merged = Objects(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    return merged[np.argsort(merged.event, kind="stable")]
