"""JetClass truth codes (``jet-universe/jetclass_generation:makeNtuples.C``, FatJetMatching)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jetscale.simulate.arrays import Ints
from jetscale.simulate.jetfinding import Jets
from jetscale.simulate.pythia import Events
from jetscale.simulate.truth import NONE, decay_products, final_copy, inside, last_copies, slots

QCD_CODE = 50
CODES = {
    "ZJetsToNuNu": (QCD_CODE,),
    "HToBB": (41,),
    "HToCC": (42,),
    "HToGG": (44,),
    "HToWW4Q": (45,),
    "HToWW2Q1L": (46,),
    "ZToQQ": (31, 32, 33),
    "WToQQ": (21, 22),
    "TTBar": (11, 12),
    "TTBarLep": (15, 16),
}
"""Truth codes a jet of each process must have to be kept."""
_RESONANCES = {
    **{f"HTo{decay}": (25, 36) for decay in ("BB", "CC", "GG", "WW4Q", "WW2Q1L")},
    "ZToQQ": (23,),
    "WToQQ": (24,),
    "TTBar": (6,),
    "TTBarLep": (6,),
}
_QUARKS = (1, 2, 3, 4, 5)
_LEPTONS = (11, 13)


@dataclass(frozen=True)
class Match:
    """Truth of J jets.

    Attributes
    ----------
    code : (J,) truth code, 0 for an unmatched jet
    resonance : (J,) row of the last copy of the matched resonance, or NONE
    """

    code: Ints
    resonance: Ints


def match(process: str, events: Events, jets: Jets) -> Match:
    """Match jets to the resonances of their event; the first resonance that fits gives the code.

    Parameters
    ----------
    process : of JetClass, e.g. ``HToBB``
    events : the batch
    jets : J jets of these events

    Returns
    -------
    Truth code and resonance of each jet.
    """
    code, resonance = np.zeros(len(jets), np.int64), np.full(len(jets), NONE)
    if process == "ZJetsToNuNu":
        return Match(np.full(len(jets), QCD_CODE), resonance)
    candidates = slots(events, last_copies(events, _RESONANCES[process]))
    for column in candidates.T:
        rows = column[jets.event]
        open_jets = np.flatnonzero((code == 0) & (rows != NONE))
        found = _code(process, events, jets.select(open_jets), rows[open_jets])
        code[open_jets] = found
        resonance[open_jets] = np.where(found != 0, rows[open_jets], NONE)
    return Match(code, resonance)


def _code(process: str, events: Events, jets: Jets, rows: Ints) -> Ints:
    if process.startswith("TTBar"):
        return _top(events, jets, rows)
    products = decay_products(events, rows)
    if process.startswith("HToWW"):
        return _higgs_to_ww(events, jets, products)
    both = inside(events, jets, products[:, 0]) & inside(events, jets, products[:, 1])
    kind = np.sort(np.abs(events.pid[products]), axis=1)
    same = kind[:, 0] == kind[:, 1]
    if process == "WToQQ":
        code = np.where(kind[:, 1] >= 4, 21, 22)
    elif process == "ZToQQ":
        code = np.select([same & (kind[:, 0] == 5), same & (kind[:, 0] == 4)], [31, 32], 33)
    else:
        code = np.select([same & (kind[:, 0] == flavour) for flavour in (5, 4, 21)], [41, 42, 44], 43)
    return np.where(both, code, 0)


def _higgs_to_ww(events: Events, jets: Jets, bosons: Ints) -> Ints:
    quarks, leptons = np.zeros(len(jets), np.int64), np.zeros(len(jets), np.int64)
    for boson in bosons.T:
        for product in decay_products(events, final_copy(events, boson)).T:
            kind = np.abs(events.pid[product])
            quarks += np.isin(kind, _QUARKS) & inside(events, jets, product)
            lepton = final_copy(events, np.where(np.isin(kind, _LEPTONS), product, NONE))
            leptons += inside(events, jets, lepton)
    return np.select([quarks >= 4, (quarks == 2) & (leptons == 1)], [45, 46], 0)


def _top(events: Events, jets: Jets, tops: Ints) -> Ints:
    products = decay_products(events, tops)
    w_first = np.abs(events.pid[products[:, 0]]) == 24
    boson = np.where(w_first, products[:, 0], products[:, 1])
    bottom = np.where(w_first, products[:, 1], products[:, 0])
    legs = decay_products(events, final_copy(events, boson))
    kind = np.abs(events.pid[legs])
    in_bottom = inside(events, jets, bottom)
    hadronic = np.all(np.isin(kind, _QUARKS), axis=1)
    in_legs = inside(events, jets, legs[:, 0]) & inside(events, jets, legs[:, 1])
    code = np.where(in_bottom & in_legs & hadronic, np.where(kind.max(axis=1) >= 4, 11, 12), 0)
    charged = np.where(np.isin(kind[:, 0], _LEPTONS), legs[:, 0], legs[:, 1])
    leptonic = np.isin(np.abs(events.pid[charged]), _LEPTONS)
    lepton = final_copy(events, np.where(leptonic, charged, NONE))
    in_lepton = inside(events, jets, lepton)
    flavour = np.where(np.abs(events.pid[charged]) == 11, 15, 16)
    return np.where(in_bottom & leptonic & in_lepton, flavour, code)
