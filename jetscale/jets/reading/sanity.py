"""What no jet can have: values that are not finite, and constituents that are no particles.

Shapes: B jets, T their constituents.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import JetDataError, mention_once
from jetscale.jets.kernels import all_possible, all_within, first_below_pt
from jetscale.jets.reading.plausible import mention_implausible
from jetscale.jets.reading.raw import ALWAYS_READ, IDENTITY, Array, RawJets, demand, where

_LARGEST = float(np.finfo(np.float32).max)
_WITHIN = {
    "part_dphi": (3.1416, "must be wrapped to -pi to pi, as published"),
    "part_deta": (20.0, "must be a distance to the jet's axis, at most 20"),
}
"""Largest size of a column and what to say beyond it: a value that stands for "missing" (-999), an angle that
was never wrapped. Half precision, which the store keeps, ends at 65504."""

_ERRORS = ("part_d0err", "part_dzerr")
_POSITIVE = ("jet_pt", "jet_energy", "jet_nparticles")
_LOWEST = {"jet_sdmass": -10.0} | {f"jet_tau{n}": 0.0 for n in (1, 2, 3, 4)}
"""Values below stand for "missing" (-1, -999). Rounding makes the mass of a light jet slightly negative."""

_ENERGY_SHARE = 0.99
"""Energies below this share of pT are mentioned: 1% is room for sources in half precision."""


def check_jets(raw: RawJets, source: str | None = None) -> None:
    """Stop at an empty jet, a non-finite or impossible value; warn of what is only unlikely.

    Parameters
    ----------
    raw : jets
    source : what is warned of once, where it is not the file

    Raises
    ------
    JetDataError
        Names the file, the entry, the column and the value.
    """
    _check_jets(raw)
    part = raw.constituents
    floats = {name: values for name, values in part.items() if values.dtype == np.float32}
    if not (
        all(all_within(values.view(np.uint32), _limit_bits(name)) for name, values in floats.items())
        and _all_possible(raw)
        and _one_flag_at_most(raw).all()
        and all((part[name] >= 0).all() for name in _ERRORS if name in part)
    ):
        _name_the_first(raw)
    low = first_below_pt(part["part_px"], part["part_py"], part["part_energy"], np.float32(_ENERGY_SHARE))
    if low >= 0:
        _mention_low_energy(raw, low, source or str(raw.path))
    elif raw.first_entry == 0:
        mention_implausible(raw, source or str(raw.path))


def _has_identity(raw: RawJets) -> bool:
    return all(name in raw.constituents for name in IDENTITY)


def _all_possible(raw: RawJets) -> bool:
    """Whether every constituent has an energy and a pT, and charge and flags that fit, where it has these."""
    part = raw.constituents
    if _has_identity(raw):
        return bool(all_possible(*(part[name] for name in ALWAYS_READ)))
    moves = (part["part_energy"] > 0) & ((part["part_px"] != 0) | (part["part_py"] != 0))
    return bool(moves.all())


@lru_cache
def _limit_bits(name: str) -> np.uint32:
    limit, _ = _WITHIN.get(name, (_LARGEST, ""))
    return np.float32(limit).view(np.uint32)


def _one_flag_at_most(raw: RawJets) -> npt.NDArray[np.bool_]:
    """(T,) whether no two flags are set; (1,) where there are none, or only those of `all_possible`."""
    flags = [values for name, values in raw.constituents.items() if name.startswith("part_is")]
    if not flags or (len(flags) == 3 and _has_identity(raw)):
        return np.ones(1, np.bool_)
    kinds = np.zeros(len(flags[0]), np.int8)
    for values in flags:
        kinds += values.view(np.int8)
    one: npt.NDArray[np.bool_] = kinds <= 1
    return one


def _mention_low_energy(raw: RawJets, at: int, source: str) -> None:
    energy, px, py = (raw.constituents[f"part_{name}"][at] for name in ("energy", "px", "py"))
    mention_once(
        f"low energy in {source}",
        f"{where(raw, 'part_energy', at)}: part_energy = {energy} GeV is below pT = {np.hypot(px, py)} GeV, "
        "which no particle has; are energies and momenta in the same unit? (said once a file)",
    )


def _check_jets(raw: RawJets) -> None:
    empty = np.flatnonzero(np.diff(raw.offsets) == 0)
    if len(empty):
        raise JetDataError(f"{raw.path}: entry {raw.first_entry + empty[0]}: the jet has no constituents")
    for name, values in raw.jets.items():
        _check_finite(raw, name, values)
    for name, values in raw.jets.items():
        if name in _POSITIVE:
            unit = "" if name == "jet_nparticles" else " GeV"
            _demand_of_jets(raw, name, values > 0, f"must be above 0{unit}")
        elif name in _LOWEST:
            why = f"must not be below {_LOWEST[name]:g}: leave out jets without a value"
            _demand_of_jets(raw, name, values >= _LOWEST[name], why)


def _demand_of_jets(raw: RawJets, name: str, good: npt.NDArray[np.bool_], why: str) -> None:
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        raise JetDataError(f"{raw.path}: entry {raw.first_entry + at}: {name} = {raw.jets[name][at]} {why}")


def _check_finite(raw: RawJets, name: str, values: Array) -> None:
    if values.dtype != np.float32 or np.isfinite(values).all():
        return
    at = int(np.flatnonzero(~np.isfinite(values))[0])
    entry = raw.entry_of(at) if name in raw.constituents else raw.first_entry + at
    raise JetDataError(f"{raw.path}: entry {entry}: {name} is {values[at]}; inputs must be finite")


def _name_the_first(raw: RawJets) -> None:
    """Say which constituent cannot be, where one pass over all has found that there is one."""
    part = raw.constituents
    for name, values in part.items():
        _check_finite(raw, name, values)
        if name in _WITHIN:
            limit, why = _WITHIN[name]
            demand(raw, np.abs(values) <= np.float32(limit), name, why)
        if name in _ERRORS:
            demand(raw, values >= 0, name, "must not be below 0, as no uncertainty is")
    demand(raw, part["part_energy"] > 0, "part_energy", "must be above 0 GeV")
    demand(
        raw,
        (part["part_px"] != 0) | (part["part_py"] != 0),
        "part_px",
        "and part_py are both 0: pT must be > 0",
    )
    if not _has_identity(raw):
        return
    charge = part["part_charge"]
    demand(raw, np.abs(charge) * (1 - np.abs(charge)) == 0, "part_charge", "is none of -1, 0, +1")
    flags = ("part_isPhoton", "part_isElectron", "part_isMuon")
    kinds = part[flags[0]].view(np.int8) + part[flags[1]].view(np.int8) + part[flags[2]].view(np.int8)
    demand(raw, kinds <= 1, "part_isPhoton", "is set together with part_isElectron or part_isMuon")
    demand(raw, _one_flag_at_most(raw), flags[0], "and the other part_is* flags: two are set")
    lepton = part["part_isElectron"] | part["part_isMuon"]
    demand(raw, ~lepton | (charge != 0), "part_charge", "of an electron or muon must be -1 or +1")
    demand(raw, ~part["part_isPhoton"] | (charge == 0), "part_charge", "of a photon must be 0")
