"""Calorimeter towers and particle flow as in Delphes' SimpleCalorimeter, for whole arrays at once.

Source: Delphes 3.5, arXiv:1307.6346, section 3, and ``delphes/delphes:modules/SimpleCalorimeter.cc``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jetscale.simulate.arrays import Bools, Floats, Ints
from jetscale.simulate.resolution import ecal_resolution, hcal_resolution, log_normal


@dataclass(frozen=True)
class Calorimeter:
    """Geometry, resolution and thresholds.

    Attributes
    ----------
    eta_edges : (n + 1,) ascending tower edges in pseudorapidity
    phi_bins : (n,) number of towers around the azimuth in each ring
    resolution : sigma(energy, eta), GeV
    energy_min : GeV, least energy of a tower and of a neutral excess
    significance_min : least energy over its resolution of both
    """

    eta_edges: Floats
    phi_bins: Ints
    resolution: Callable[[Floats, Floats], Floats]
    energy_min: float
    significance_min: float

    def cells(self, event: Ints, eta: Floats, phi: Floats) -> tuple[Ints, Bools]:
        """Tower of each hit.

        Parameters
        ----------
        event : (n,) event number
        eta, phi : (n,) pseudorapidity and azimuth (rad) of the point of entry

        Returns
        -------
        (n,) number of the tower, different in every event; (n,) whether there is a tower at all.
        """
        ring = np.searchsorted(self.eta_edges, eta) - 1
        inside = (ring >= 0) & (ring < len(self.phi_bins))
        ring = np.clip(ring, 0, len(self.phi_bins) - 1)
        bins = self.phi_bins[ring]
        sector = np.clip(((phi + np.pi) / (2 * np.pi) * bins).astype(np.int64), 0, bins - 1)
        return (event * len(self.phi_bins) + ring) * int(self.phi_bins.max()) + sector, inside


@dataclass(frozen=True)
class Hits:
    """Energy that enters a calorimeter.

    Attributes
    ----------
    event : (n,) event number
    eta, phi : (n,) direction of the point of entry, seen from the origin; phi in rad
    energy : (n,) GeV
    """

    event: Ints
    eta: Floats
    phi: Floats
    energy: Floats


def energy_flow(
    calorimeter: Calorimeter, deposits: Hits, tracks: Hits, random: np.random.Generator
) -> tuple[Hits, Floats]:
    """Find neutral towers, and the factor by which particle flow scales the momentum of each track.

    Tower energies are smeared and cut. Energy beyond that of the tower's tracks becomes a neutral object if
    it is large and significant; otherwise the tracks are scaled to the tower's energy. The published cards
    give TrackSmearing a momentum resolution of zero, which Delphes takes as zero weight for the tracks: the
    calorimeter's energy replaces theirs, and tracks in a tower below threshold vanish (factor 0). This is
    kept because it shapes the published jets, which have few charged hadrons below 1 GeV.

    Parameters
    ----------
    calorimeter : towers, resolution and thresholds
    deposits : energy of the particles that shower in this calorimeter
    tracks : T tracks that point to it, with the energy of the track
    random : source of the smearing and of positions inside a tower

    Returns
    -------
    Neutral objects, one for each tower with an excess; (T,) factor for the momentum of each track.
    """
    cells, inside = calorimeter.cells(deposits.event, deposits.eta, deposits.phi)
    track_cells, track_inside = calorimeter.cells(tracks.event, tracks.eta, tracks.phi)
    towers, where = np.unique(np.concatenate([cells[inside], track_cells[track_inside]]), return_inverse=True)
    where_deposit, where_track = np.split(where, [int(inside.sum())])
    deposited = _sum(where_deposit, deposits.energy[inside], len(towers))
    tracked = _sum(where_track, tracks.energy[track_inside], len(towers))

    rings, sectors = len(calorimeter.phi_bins), int(calorimeter.phi_bins.max())
    ring, sector = (towers // sectors) % rings, towers % sectors
    low, high = calorimeter.eta_edges[ring], calorimeter.eta_edges[ring + 1]
    centre = (low + high) / 2
    draws = random.random((2, len(towers)))
    normal = random.standard_normal(len(towers))

    energy = log_normal(deposited, calorimeter.resolution(deposited, centre), normal)
    sigma = calorimeter.resolution(energy, centre)
    cut = (energy < calorimeter.energy_min) | (energy < calorimeter.significance_min * sigma)
    energy = np.where(cut, 0.0, energy)
    excess = np.maximum(energy - tracked, 0.0)
    neutral = (excess > calorimeter.energy_min) & (excess > calorimeter.significance_min * sigma)

    objects = Hits(
        event=(towers // (sectors * rings))[neutral],
        eta=(low + (high - low) * draws[0])[neutral],
        phi=(-np.pi + (sector + draws[1]) * 2 * np.pi / calorimeter.phi_bins[ring])[neutral],
        energy=excess[neutral],
    )
    scale = np.ones(len(tracks.event))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale[track_inside] = np.where(neutral, 1.0, energy / tracked)[where_track]
    return objects, scale


def _sum(where: Ints, energy: Floats, n_towers: int) -> Floats:
    return np.asarray(np.bincount(where, energy, n_towers), np.float64)


def _rings(*groups: tuple[npt.NDArray[np.floating], int]) -> tuple[Floats, Ints]:
    """Merge groups of (upper edges, towers around the azimuth); the lowest edge opens the first ring."""
    edges: Floats = np.concatenate([np.asarray(edges, np.float64) for edges, _ in groups])
    bins = np.concatenate([np.full(len(edges), count) for edges, count in groups])
    order = np.argsort(edges)
    return edges[order], bins[order][1:]


_FORWARD = np.array([3.125, 3.3, 3.475, 3.65, 3.825, 4.0, 4.175, 4.35, 4.525, 4.7, 5.0])
_ECAL_EDGES, _ECAL_BINS = _rings(
    (np.arange(-85, 87) * 0.0174, 360),
    (-2.958 + np.arange(1, 85) * 0.0174, 360),
    (1.4964 + np.arange(1, 85) * 0.0174, 360),
    (np.concatenate([-_FORWARD, [-2.958], _FORWARD]), 36),
)
_ENDCAP = [1.74, 1.83, 1.93, 2.043, 2.172, 2.322, 2.5, 2.65, 2.868, 2.95]
_HCAL_EDGES, _HCAL_BINS = _rings(
    (np.arange(-18, 20) * 0.087, 72),
    (np.array([-1.653, *(-edge for edge in _ENDCAP), *_ENDCAP, *_FORWARD[:9], *-_FORWARD[:8]]), 36),
    (np.array([-5.0, -4.7, -4.525, 4.7, 5.0]), 18),
)
ECAL = Calorimeter(_ECAL_EDGES, _ECAL_BINS, ecal_resolution, energy_min=0.5, significance_min=2.0)
"""0.0174 by 1 degree to |eta| 2.96, then 0.175 by 10 degrees."""
HCAL = Calorimeter(_HCAL_EDGES, _HCAL_BINS, hcal_resolution, energy_min=1.0, significance_min=1.0)
"""0.087 by 5 degrees to |eta| 1.65, then coarser by 10 and 20 degrees."""
