"""Motion in the solenoid: where a particle enters the calorimeter, and its impact parameters.

Uniform field along +z inside a cylinder, as in Delphes' ParticlePropagator; distances in mm, momenta in GeV.
A particle of charge q and transverse momentum pT moves on a circle of signed radius r = pT / (0.2998 q B),
clockwise for positive r, around (x + r sin phi, y - r cos phi).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jetscale.simulate.arrays import Bools, Floats, wrap

FIELD = 3.8
"""Tesla."""
RADIUS = 1290.0
"""mm, of the tracker and its field."""
HALF_LENGTH = 3000.0
"""mm."""
MM_PER_GEV = 1e3 / (0.299792458 * FIELD)
"""Radius of curvature of a unit charge, mm per GeV of transverse momentum."""


@dataclass(frozen=True)
class Motion:
    """Start of n particles.

    Attributes
    ----------
    x, y, z : (n,) production vertex, mm
    pt : (n,) transverse momentum, GeV
    phi : (n,) azimuth of the momentum, rad
    slope : (n,) pz / pT
    charge : (n,) units of e
    """

    x: Floats
    y: Floats
    z: Floats
    pt: Floats
    phi: Floats
    slope: Floats  # pz / pT
    charge: Floats

    def __getitem__(self, which: Bools) -> Motion:
        """Particles for which `which` (n,) is true."""
        names = ("x", "y", "z", "pt", "phi", "slope", "charge")
        return Motion(**{name: getattr(self, name)[which] for name in names})


def starts_inside(motion: Motion) -> Bools:
    """(n,) whether each particle is made inside the cylinder; others are not detected."""
    inside = np.hypot(motion.x, motion.y) <= RADIUS
    return np.asarray(inside & (np.abs(motion.z) <= HALF_LENGTH) & (motion.pt > 3.2e-5))


def _circle(motion: Motion) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    radius = motion.pt * MM_PER_GEV / motion.charge
    centre_x = motion.x + radius * np.sin(motion.phi)
    centre_y = motion.y - radius * np.cos(motion.phi)
    return radius, centre_x, centre_y, np.hypot(centre_x, centre_y), np.arctan2(centre_y, centre_x)


def calorimeter_entry(motion: Motion) -> tuple[Floats, Floats]:
    """Pseudorapidity and azimuth, seen from the origin, where particles leave the cylinder.

    Parameters
    ----------
    motion : n particles that start inside

    Returns
    -------
    (n,) pseudorapidity; (n,) azimuth in rad.
    """
    eta, phi = np.empty(len(motion.x)), np.empty(len(motion.x))
    bent = motion.charge != 0
    for which, leave in ((bent, _leave_bent), (~bent, _leave_straight)):
        x, y, z = leave(motion[which])
        eta[which] = np.arcsinh(z / np.hypot(x, y))
        phi[which] = np.arctan2(y, x)
    return eta, phi


def _endcap_path(motion: Motion) -> Floats:
    """Transverse path length to the end cap; infinite for a particle without pz."""
    with np.errstate(divide="ignore", invalid="ignore"):
        path = (np.copysign(HALF_LENGTH, motion.slope) - motion.z) / motion.slope
    return np.where(motion.slope == 0, np.inf, path)


def _leave_straight(motion: Motion) -> tuple[Floats, Floats, Floats]:
    cos, sin = np.cos(motion.phi), np.sin(motion.phi)
    along = motion.x * cos + motion.y * sin
    across = motion.x * sin - motion.y * cos
    path = np.minimum(np.sqrt(np.maximum(RADIUS**2 - across**2, 0)) - along, _endcap_path(motion))
    return motion.x + path * cos, motion.y + path * sin, motion.z + path * motion.slope


def _leave_bent(motion: Motion) -> tuple[Floats, Floats, Floats]:
    radius, centre_x, centre_y, distance, azimuth = _circle(motion)
    size, turn = np.abs(radius), -np.sign(radius)
    start = np.arctan2(motion.y - centre_y, motion.x - centre_x)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (RADIUS**2 - distance**2 - size**2) / (2 * distance * size)
    reaches = np.abs(cosine) <= 1
    half = np.arccos(np.where(reaches, cosine, 1.0))
    first, second = ((turn * (sign * half + azimuth - start)) % (2 * np.pi) for sign in (1, -1))
    barrel = np.where(reaches, np.minimum(first, second) * size, np.inf)
    path = np.minimum(barrel, _endcap_path(motion))
    path = np.where(np.isfinite(path), path, 0.0)
    angle = start + turn * path / size
    return centre_x + size * np.cos(angle), centre_y + size * np.sin(angle), motion.z + path * motion.slope


def closest_approach_phi(motion: Motion) -> Floats:
    """Azimuth of the momentum (rad) at the point of closest approach to the z axis, for charged particles."""
    radius, _, _, _, azimuth = _circle(motion)
    return wrap(azimuth + np.sign(radius) * np.pi / 2)


def impact_parameters(motion: Motion) -> tuple[Floats, Floats]:
    """Signed d0 and dz (mm) at the point of closest approach to the z axis, for charged particles.

    d0 = (x py - y px) / pT there, Delphes' sign: opposite to CMS's dxy. dz is that point's z.
    """
    radius, _, _, distance, _ = _circle(motion)
    d0 = np.sign(radius) * (distance - np.abs(radius))
    turned = wrap(closest_approach_phi(motion) - motion.phi)
    return d0, motion.z - radius * turned * motion.slope
