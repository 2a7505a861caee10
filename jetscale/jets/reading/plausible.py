"""What the first jets of a file look like if its columns are in other units, or relative to another axis.

Each value alone could be that of a jet, so these are warnings, once a file, and no errors.

Shapes: B jets, T their constituents.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import mention_once
from jetscale.jets.reading.raw import RawJets

Floats = npt.NDArray[np.float64]

MOST_JETS = 1_000
"""Jets that are looked at: units and axes are the same in a whole file."""

_PT = (1.0, 10_000.0)
"""GeV; the median pT of the jets of a file lies between. Jets above 10 GeV have more in MeV, jets below 1 TeV
have less in TeV."""
_RATIO = 30.0
"""Largest factor between a jet's pT or energy and that of its constituents, in the median: between 1 and the
1,000 of another unit, so that a file may keep the leading constituents alone."""
_COMMON_AXIS = 0.999
"""Least pT-weighted mean of cos(phi - part_dphi - its mean); 1 but for rounding in published files."""
_NEAR_AXIS = 0.9
"""Least cosine of the angle between that mean and the sum of the constituents; a file may lack some."""
_CENTRAL = 0.4
"""Jets nearer to eta = 0 are not asked for the sign of part_deta: |eta| of their constituents is folded."""
_MIRRORED = 0.2
"""Largest share of jets whose part_deta fits better with the other sign: 0 in published files, about half
where the sign of jet_eta was left out."""
_FEWEST = 20
"""Jets that a share needs."""


def mention_implausible(raw: RawJets, source: str) -> None:
    """Warn if the columns of these jets do not fit each other, or no collider.

    Parameters
    ----------
    raw : jets whose single values were checked
    source : what is warned of once: the file, or one set of arrays
    """
    for problem in _problems(_first(raw)):
        mention_once(f"{source}: {problem}", f"{raw.path}: {problem} (said once a file)")


def _first(raw: RawJets) -> RawJets:
    n_jets = min(raw.n_jets, MOST_JETS)
    stop = int(raw.offsets[n_jets])
    return RawJets(
        raw.path,
        raw.first_entry,
        raw.offsets[: n_jets + 1],
        {name: values[:stop] for name, values in raw.constituents.items()},
        {name: values[:n_jets] for name, values in raw.jets.items()},
        raw.labels[:n_jets],
    )


def _problems(raw: RawJets) -> Iterator[str]:
    part = {name: values.astype(np.float64) for name, values in raw.constituents.items()}
    px_T, py_T, energy_T = (part[f"part_{name}"] for name in ("px", "py", "energy"))
    pt_B = np.hypot(_sums(raw, px_T), _sums(raw, py_T))
    yield from _wrong_scale(pt_B)
    for name, own_B in (("jet_pt", pt_B), ("jet_energy", _sums(raw, energy_T))):
        if name in raw.jets:
            yield from _other_unit(name, raw.jets[name], own_B)
    pt_T = np.hypot(px_T, py_T)
    if "part_dphi" in part:
        axis_T = np.arctan2(py_T, px_T) - part["part_dphi"]
        yield from _other_azimuth(raw, pt_T, axis_T, np.arctan2(_sums(raw, py_T), _sums(raw, px_T)))
    if "part_deta" in part:
        yield from _mirrored(raw, pt_T, np.arccosh(np.maximum(energy_T / pt_T, 1)), part["part_deta"])
    if "part_charge" in part:
        yield from _displaced_neutrals(raw, part)


def _sums(raw: RawJets, values_T: Floats) -> Floats:
    return np.add.reduceat(values_T, raw.offsets[:-1])


def _means(raw: RawJets, weight_T: Floats, values_T: Floats) -> Floats:
    return _sums(raw, weight_T * values_T) / _sums(raw, weight_T)


def _wrong_scale(pt_B: Floats) -> Iterator[str]:
    middle = float(np.median(pt_B))
    if not _PT[0] <= middle <= _PT[1]:
        other = "TeV" if middle < _PT[0] else "MeV"
        yield (
            f"half of its jets have pT {'below' if middle < _PT[0] else 'above'} {middle:.3g} GeV by "
            f"part_px and part_py; are they in {other}? They are taken as GeV"
        )


def _other_unit(name: str, stored_B: npt.NDArray[np.float32], own_B: Floats) -> Iterator[str]:
    with np.errstate(divide="ignore"):
        ratio = float(np.median(stored_B / own_B))
    if not 1 / _RATIO <= ratio <= _RATIO:
        yield (
            f"{name} is {ratio:.3g} times that of the jet's constituents (median); are both in GeV? Both are "
            "used as they are"
        )


def _other_azimuth(raw: RawJets, pt_T: Floats, axis_T: Floats, phi_B: Floats) -> Iterator[str]:
    """Compare phi - part_dphi, (T,), the azimuth of the jet, with itself and with that of the sum, (B,)."""
    x_B, y_B = _means(raw, pt_T, np.cos(axis_T)), _means(raw, pt_T, np.sin(axis_T))
    near_B = np.cos(np.arctan2(y_B, x_B) - phi_B)
    if np.median(np.hypot(x_B, y_B)) < _COMMON_AXIS or np.median(near_B) < _NEAR_AXIS:
        yield (
            "part_dphi does not fit part_px and part_py: it must be the constituent's azimuth minus that of "
            "the jet, in rad"
        )


def _mirrored(raw: RawJets, pt_T: Floats, eta_T: Floats, deta_T: Floats) -> Iterator[str]:
    """Compare part_deta with |eta|, which is arccosh(E / pT) for a massless particle.

    Published is part_deta = sign (eta - jet_eta), sign that of jet_eta, so that |eta| - part_deta = |jet_eta|
    for all constituents of a jet that does not reach eta = 0.
    """
    away_B = _means(raw, pt_T, eta_T) > _CENTRAL
    if away_B.sum() < _FEWEST:
        return
    scatter_B, mirrored_B = (_scatter(raw, pt_T, eta_T - sign * deta_T)[away_B] for sign in (1, -1))
    wrong = int((scatter_B > mirrored_B).sum())
    if wrong > _MIRRORED * len(scatter_B):
        yield (
            f"part_deta has another sign than published in {wrong} of {len(scatter_B)} jets: it must be eta "
            "minus that of the jet, times the sign of the jet's eta"
        )


def _scatter(raw: RawJets, weight_T: Floats, values_T: Floats) -> Floats:
    """Mean distance of the values of each jet from their mean, (B,)."""
    mean_T = np.repeat(_means(raw, weight_T, values_T), np.diff(raw.offsets))
    return _means(raw, weight_T, np.abs(values_T - mean_T))


def _displaced_neutrals(raw: RawJets, part: dict[str, Floats]) -> Iterator[str]:
    neutral_T = part["part_charge"] == 0
    for name in ("part_d0val", "part_dzval"):
        displaced = np.flatnonzero(neutral_T & (part.get(name, 0) != 0))
        if len(displaced):
            entry, value = raw.entry_of(int(displaced[0])), part[name][displaced[0]]
            yield (
                f"{name} of {len(displaced):,} of the first {neutral_T.sum():,} neutral constituents is not "
                f"0, as it is in published files (entry {entry}: {value:g} mm); if the value stands for "
                "a missing one, write 0"
            )
