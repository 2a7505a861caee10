"""Published efficiencies and resolutions of the CMS-like detector, as functions of arrays.

Numbers: ``jet-universe/jetclass_generation:delphes_card.tcl``, which takes them from CMS: tracks and impact
parameters arXiv:1405.6569 (the latter figure 15), electrons arXiv:1502.02701, ECal arXiv:1306.2016 and
1502.02701. JetClass-II's card has the same tracker tables. Momenta in GeV, lengths in mm.
"""

from __future__ import annotations

import numpy as np

from jetscale.simulate.arrays import Bools, Floats

TRACK_ETA = 2.5
"""No tracks beyond this pseudorapidity."""
TRACK_PT = 0.1
"""GeV; no tracks at or below."""


def tracking_efficiency(pt: Floats, eta: Floats, electron: Bools, muon: Bools) -> Floats:
    """Probability that a charged particle leaves a track.

    Parameters
    ----------
    pt : (n,) GeV
    eta : (n,) pseudorapidity of the calorimeter entry
    electron, muon : (n,) which particles are electrons and muons; the others are hadrons

    Returns
    -------
    (n,) 0 to 1.
    """
    barrel = np.abs(eta) <= 1.5

    def steps(soft: tuple[float, float], hard: tuple[float, float]) -> Floats:
        return np.where(pt <= 1.0, np.where(barrel, *soft), np.where(barrel, *hard))

    hadron = steps((0.70, 0.60), (0.95, 0.85))
    electrons = np.where(pt <= 100.0, steps((0.73, 0.50), (0.95, 0.83)), np.where(barrel, 0.99, 0.90))
    fall = np.where(pt > 1000.0, np.exp(np.minimum(0.5 - pt * 5.0e-4, 0.0)), 1.0)
    muons = steps((0.75, 0.70), (0.99, 0.98)) * fall
    efficiency: Floats = np.where(electron, electrons, np.where(muon, muons, hadron))
    return np.where((pt > TRACK_PT) & (np.abs(eta) <= TRACK_ETA), efficiency, 0.0)


_MOMENTUM_TERMS = {
    "hadron": ((0.06, 1.3e-3), (0.10, 1.7e-3), (0.25, 3.1e-3)),
    "electron": ((0.03, 1.3e-3), (0.05, 1.7e-3), (0.15, 3.1e-3)),
    "muon": ((0.01, 1.0e-4), (0.015, 1.5e-4), (0.025, 3.5e-4)),
}
"""Constant and linear (per GeV) term of sigma(pT) / pT for |eta| up to 0.5, 1.5 and 2.5."""


def momentum_resolution(pt: Floats, eta: Floats, electron: Bools, muon: Bools) -> Floats:
    """Relative resolution of a track's pT: constant and linear term in quadrature, at most 1.

    The smeared pT is used only to look up the impact-parameter resolution (`detector._tracks`).

    Parameters
    ----------
    pt : (n,) GeV
    eta : (n,) pseudorapidity of the calorimeter entry
    electron, muon : (n,) which particles are electrons and muons; the others are hadrons

    Returns
    -------
    (n,) sigma(pT) / pT.
    """
    region = np.searchsorted([0.5, 1.5], np.abs(eta))

    def sigma(kind: str) -> Floats:
        constant, linear = np.array(_MOMENTUM_TERMS[kind])[region].T
        return np.asarray(np.hypot(constant, linear * pt), np.float64)

    chosen: Floats = np.where(electron, sigma("electron"), np.where(muon, sigma("muon"), sigma("hadron")))
    return np.minimum(chosen, 1.0)


def ecal_resolution(energy: Floats, eta: Floats) -> Floats:
    """Energy resolution of ECal towers.

    Parameters
    ----------
    energy : (n,) GeV
    eta : (n,) pseudorapidity of the tower's centre

    Returns
    -------
    (n,) GeV.
    """
    root = np.sqrt((0.008 * energy) ** 2 + 0.11**2 * energy + 0.40**2)
    forward = np.sqrt((0.107 * energy) ** 2 + 2.08**2 * energy)
    size = np.abs(eta)
    central = np.where(size <= 1.5, 1 + 0.64 * eta**2, 2.16 + 5.6 * (size - 2) ** 2) * root
    return np.where(size <= 2.5, central, forward)


def hcal_resolution(energy: Floats, eta: Floats) -> Floats:
    """Energy resolution of HCal towers.

    Parameters
    ----------
    energy : (n,) GeV
    eta : (n,) pseudorapidity of the tower's centre

    Returns
    -------
    (n,) GeV.
    """
    central = np.sqrt((0.05 * energy) ** 2 + 1.5**2 * energy)
    forward = np.sqrt((0.13 * energy) ** 2 + 2.7**2 * energy)
    return np.where(np.abs(eta) <= 3.0, central, forward)


# fmt: off
_PT_EDGES = np.array([
    0.1823, 0.2227, 0.2720, 0.3323, 0.4060, 0.4959, 0.6058, 0.7401, 0.9041, 1.1044, 1.3492, 1.6481, 2.0134,
    2.4595, 3.0045, 3.6703, 4.4837, 5.4772, 6.6910, 8.1737, 9.9849, 12.1976, 14.9005, 18.2024, 22.2360,
    27.1635, 33.1828, 40.5360, 49.5187, 60.4919, 73.8967, 90.2720, 110.2760, 134.7130,
])
_IMPACT_ETA = (0.9, 1.4)
_D0 = np.array([
    [.3543, .2809, .2304, .1917, .1737, .1434, .1060, .0893, .0753, .0670, .0577, .0524, .0452, .0376,
     .0350, .0324, .0283, .0258, .0237, .0211, .0191, .0164, .0150, .0143, .0130, .0130, .0116, .0116,
     .0110, .0110, .0110, .0104, .0109, .0110],
    [.4564, .3580, .3010, .2353, .2026, .1595, .1383, .1119, .0926, .0816, .0663, .0553, .0488, .0431,
     .0399, .0357, .0313, .0277, .0233, .0221, .0214, .0180, .0155, .0141, .0128, .0134, .0121, .0108,
     .0101, .0101, .0101, .0102, .0088, .0095],
    [.6970, .6046, .5315, .4306, .3398, .2788, .2387, .1814, .1557, .1230, .1009, .0914, .0767, .0638,
     .0544, .0468, .0425, .0385, .0331, .0278, .0256, .0236, .0217, .0196, .0176, .0165, .0157, .0150,
     .0144, .0144, .0137, .0130, .0137, .0137],
])
_DZ = np.array([
    [.3693, .3135, .3125, .2578, .2221, .1936, .1686, .1351, .1113, .0983, .0882, .0786, .0684, .0615,
     .0551, .0516, .0484, .0450, .0416, .0416, .0382, .0350, .0317, .0316, .0316, .0316, .0348, .0316,
     .0316, .0316, .0284, .0283, .0315, .0318],
    [.7062, .6010, .5992, .4959, .3877, .3199, .2649, .2518, .1982, .1587, .1399, .1199, .1031, .0967,
     .0805, .0736, .0707, .0603, .0609, .0541, .0511, .0443, .0409, .0408, .0409, .0377, .0375, .0377,
     .0342, .0342, .0343, .0343, .0309, .0310],
    [2.1717, 2.0715, 2.0679, 1.7679, 1.4393, 1.1997, .9800, .8251, .6695, .5545, .4366, .3711, .3319,
     .2721, .2443, .2085, .1816, .1641, .1451, .1317, .1117, .1020, .1017, .0983, .0882, .0847, .0814,
     .0784, .0817, .0750, .0816, .0820, .0814, .0850],
])
# fmt: on


def impact_resolution(pt: Floats, eta: Floats) -> tuple[Floats, Floats]:
    """Resolutions of the impact parameters d0 and dz.

    Parameters
    ----------
    pt : (n,) GeV
    eta : (n,) pseudorapidity of the momentum

    Returns
    -------
    (n,) of d0 and (n,) of dz, mm; 0 where the card gives none (pT below 0.18 GeV or abs(eta) above 2.5).
    """
    column = np.searchsorted(_PT_EDGES, pt) - 1
    row = np.searchsorted(_IMPACT_ETA, np.abs(eta))
    measured = (column >= 0) & (np.abs(eta) <= TRACK_ETA)
    column = np.maximum(column, 0)
    return np.where(measured, _D0[row, column], 0.0), np.where(measured, _DZ[row, column], 0.0)


def log_normal(mean: Floats, sigma: Floats, normal: Floats) -> Floats:
    """Log-normal random numbers.

    Parameters
    ----------
    mean, sigma : (n,) mean and standard deviation of the result
    normal : (n,) standard normal random numbers

    Returns
    -------
    (n,); 0 where the mean is not positive.
    """
    positive = mean > 0
    safe = np.where(positive, mean, 1.0)
    spread = np.sqrt(np.log1p((sigma / safe) ** 2))
    return np.where(positive, safe * np.exp(spread * normal - 0.5 * spread**2), 0.0)
