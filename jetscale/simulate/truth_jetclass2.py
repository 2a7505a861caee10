"""JetClass-II labels (``jet-universe/jetclass2_generation:delphes_analyzers/FatJetMatching.h``)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from jetscale.jets.datasets.jetclass2 import BUCKET_LABELS, JETCLASS2_LABELS
from jetscale.simulate.arrays import Bools, Ints, delta_r, offsets, ranges
from jetscale.simulate.jetfinding import Jets
from jetscale.simulate.pythia import Events
from jetscale.simulate.truth import (
    MATCH,
    NONE,
    TAU_TO_HADRONS,
    TauDecays,
    decay_products,
    distance,
    final_copy,
    inside,
    last_copies,
    slots,
    tau_decays,
)

BEFORE_HADRONS = 71
"""|status| of partons just before hadronisation."""
QCD_PT_MIN = 10.0
"""GeV, of the quarks that make a QCD label."""

TOKENS = ("b", "c", "s", "q", "g", "e", "m")
ENDINGS = ("", "ev", "mv", "tauev", "taumv", "tauhv", "tauhtaue", "tauhtaum", "tauhtauh")
EV, MV, TAU_V, TAU_TAU = 1, 2, 3, 6
"""Position of an ending; tau endings add the tau's mode (electron, muon, hadrons)."""
_OF_CODE = {5: 0, 4: 1, 3: 2, 2: 3, 1: 3, 21: 4, 11: 5, 13: 6}
_POWERS = 5 ** np.arange(len(TOKENS))


@dataclass
class Match:
    """Labels of J jets, and the truth particles that are written with them.

    Attributes
    ----------
    label : (J,) position in JETCLASS2_LABELS, NONE for no label
    resonances, products, tau_products, partons : (J + 1,) starts and the rows of all jets, concatenated
    """

    label: Ints
    resonances: tuple[Ints, Ints]
    products: tuple[Ints, Ints]
    tau_products: tuple[Ints, Ints]
    partons: tuple[Ints, Ints]

    def select(self, which: Ints) -> Match:
        """The match of some jets.

        Parameters
        ----------
        which : (n,) positions of the jets

        Returns
        -------
        Labels and particles of these jets, in this order.
        """
        lists = (self.resonances, self.products, self.tau_products, self.partons)
        return Match(self.label[which], *(_select(starts, rows, which) for starts, rows in lists))


def _select(starts: Ints, rows: Ints, which: Ints) -> tuple[Ints, Ints]:
    counts = np.diff(starts)[which]
    return offsets(counts), rows[ranges(starts[which], counts)]


def match(bucket: str, events: Events, jets: Jets, resonance_codes: tuple[int, ...]) -> Match:
    """Label the jets of a bucket.

    Parameters
    ----------
    bucket : ``QCD``, ``Res2P`` or ``Res34P``
    events : the batch
    jets : J jets of these events
    resonance_codes : absolute PDG codes that stand in for X

    Returns
    -------
    Label and truth particles of each jet.
    """
    return _qcd(events, jets) if bucket == "QCD" else _resonant(bucket, events, jets, resonance_codes)


# ---- QCD -------------------------------------------------------------------------------------------------


def _qcd_lookup() -> Ints:
    """(3, 3, 3) label of min(n, 2) bottom, charm and strange quarks."""
    table = np.empty((3, 3, 3), np.int64)
    for index in np.ndindex(table.shape):
        flavours = "".join(name * count for name, count in zip("bcs", index, strict=True))
        table[index] = JETCLASS2_LABELS.index(f"QCD_{flavours or 'light'}")
    return table


_QCD_TABLE = _qcd_lookup()


def _qcd(events: Events, jets: Jets) -> Match:
    kind = np.abs(events.pid)
    rows = np.flatnonzero((np.abs(events.status) == BEFORE_HADRONS) & (kind >= 1) & (kind <= 5))
    rows = rows[events.pt(rows) > QCD_PT_MIN]
    counts = np.bincount(events.event[rows], minlength=events.n_events)
    per_jet = counts[jets.event]
    jet = np.repeat(np.arange(len(jets)), per_jet)
    quark = rows[ranges(offsets(counts)[jets.event], per_jet)]
    near = delta_r(events.eta(quark), events.phi(quark), jets.eta[jet], jets.phi[jet]) < MATCH
    jet, quark = jet[near], quark[near]
    flavours = [np.bincount(jet[kind[quark] == code], minlength=len(jets)) for code in (5, 4, 3)]
    label = _QCD_TABLE[tuple(np.minimum(number, 2) for number in flavours)]
    empty = (np.zeros(len(jets) + 1, np.int64), np.zeros(0, np.int64))
    partons = (offsets(np.bincount(jet, minlength=len(jets))), quark)
    return Match(label, empty, empty, empty, partons)


# ---- resonances ------------------------------------------------------------------------------------------


def _keys(prefix: str, bucket: str) -> dict[int, int]:
    """Label position of every multiset of matched objects."""
    table = {}
    for name in BUCKET_LABELS[bucket]:
        text = name.removeprefix(prefix)
        ending = max((e for e in ENDINGS if text.endswith(e)), key=len)
        letters = Counter(text[: len(text) - len(ending)])
        table[
            _key(np.array([[letters[token] for token in TOKENS]]), np.array([ENDINGS.index(ending)]))[0]
        ] = JETCLASS2_LABELS.index(name)
    return table


def _key(letters: Ints, ending: Ints) -> Ints:
    """One integer for (n, 7) counts of letters and (n,) endings."""
    return np.asarray(letters @ _POWERS * len(ENDINGS) + ending, np.int64)


_LABELS = {"Res2P": _keys("X_", "Res2P"), "Res34P": _keys("X_YY_", "Res34P")}


@dataclass
class _Leg:
    """Two decay products for each jet, the decisive one first, and their part of the label."""

    rows: Ints  # (J, 2)
    matched: Bools  # (J, 2)
    ending: Ints  # (J,)
    valid: Bools  # (J,) a mode that has labels
    hadronic: Bools  # (J,)
    taus: tuple[TauDecays, TauDecays]


def _leg(events: Events, jets: Jets, rows: Ints, *, order_taus: bool) -> _Leg:
    """Order and match the two decay products of X or Y for each jet."""
    neutrino_first = np.isin(np.abs(events.pid[rows[:, 0]]), (12, 14, 16))
    rows = np.where(neutrino_first[:, None], rows[:, ::-1], rows)
    kind = np.abs(events.pid[rows])
    taus = [tau_decays(events, rows[:, side]) for side in (0, 1)]
    pair = np.all(kind == 15, axis=1)
    swap = pair & (taus[0].mode != TAU_TO_HADRONS) & (taus[1].mode == TAU_TO_HADRONS)
    ordered = np.where(swap[:, None], rows[:, ::-1], rows)
    modes = np.stack([taus[0].mode, taus[1].mode], axis=1)
    firsts = np.stack([taus[0].first, taus[1].first], axis=1)
    modes, firsts = (np.where(swap[:, None], part[:, ::-1], part) for part in (modes, firsts))

    is_tau = np.abs(events.pid[ordered]) == 15
    seen = np.where(is_tau & (modes != TAU_TO_HADRONS), firsts, ordered)
    neutrino = np.isin(np.abs(events.pid[ordered]), (12, 14, 16))
    matched = np.stack([inside(events, jets, seen[:, side]) for side in (0, 1)], axis=1) & ~neutrino

    ending = np.zeros(len(rows), np.int64)
    with_neutrino = neutrino[:, 1]
    ending[with_neutrino & (kind[:, 0] == 11)] = EV
    ending[with_neutrino & (kind[:, 0] == 13)] = MV
    single = with_neutrino & is_tau[:, 0]
    ending[single] = (TAU_V + modes[:, 0])[single]
    ending[pair] = (TAU_TAU + modes[:, 1])[pair]
    hadronic = (kind[:, 0] <= 5) | (kind[:, 0] == 21)
    swapped = (
        TauDecays(*(np.where(swap, b, a) for a, b in zip(_fields(taus[0]), _fields(taus[1]), strict=True))),
        TauDecays(*(np.where(swap, a, b) for a, b in zip(_fields(taus[0]), _fields(taus[1]), strict=True))),
    )
    return _Leg(
        rows=ordered if order_taus else rows,
        matched=matched,
        ending=ending,
        valid=~pair | (modes[:, 0] == TAU_TO_HADRONS),
        hadronic=hadronic,
        taus=swapped if order_taus else (taus[0], taus[1]),
    )


def _fields(taus: TauDecays) -> tuple[Ints, Ints, Ints]:
    return taus.mode, taus.first, taus.count


def _letters(events: Events, leg: _Leg) -> Ints:
    """(J, 7) count of matched quarks, gluons, electrons and muons; none where the leg has an ending."""
    out = np.zeros((len(leg.rows), len(TOKENS)), np.int64)
    kind = np.abs(events.pid[leg.rows])
    named = leg.matched & (leg.ending == 0)[:, None]
    for code, position in _OF_CODE.items():
        out[:, position] += np.sum(named & (kind == code), axis=1)
    return out


def _resonant(bucket: str, events: Events, jets: Jets, codes: tuple[int, ...]) -> Match:
    """First X of the event whose products match the jet."""
    label = np.full(len(jets), NONE)
    owner = np.full(len(jets), NONE)
    xs = slots(events, last_copies(events, codes))
    for column in xs.T:
        rows = column[jets.event]
        open_jets = np.flatnonzero((label == NONE) & (rows != NONE))
        part = jets.select(open_jets)
        found = (_label2 if bucket == "Res2P" else _label34)(events, part, rows[open_jets])
        label[open_jets] = found
        owner[open_jets] = np.where(found != NONE, rows[open_jets], NONE)
    matched = np.flatnonzero(label != NONE)
    return _with_particles(bucket, events, jets, label, matched, owner)


def _look_up(bucket: str, key: Ints, chosen: Bools) -> Ints:
    table = _LABELS[bucket]
    missing = set(key[chosen].tolist()) - table.keys()
    if missing:
        raise RuntimeError(
            f"{bucket}: matched objects that no published label names (keys {sorted(missing)})"
        )
    return np.array([table[k] if ok else NONE for k, ok in zip(key.tolist(), chosen, strict=True)], np.int64)


def _label2(events: Events, jets: Jets, xs: Ints) -> Ints:
    leg = _leg(events, jets, decay_products(events, xs), order_taus=True)
    chosen = np.all(leg.matched, axis=1) & leg.valid
    return _look_up("Res2P", _key(_letters(events, leg), leg.ending), chosen)


def _legs34(events: Events, jets: Jets, xs: Ints) -> tuple[_Leg, _Leg, Ints]:
    """Legs of the two Y, the hadronic one first, and the (J, 2) rows of the Y in the order of the record."""
    ys = decay_products(events, xs)
    ys = np.stack([final_copy(events, ys[:, side]) for side in (0, 1)], axis=1)
    kind = np.abs(events.pid[events.daughter1[ys]])
    hadronic = (kind <= 5) | (kind == 21)
    swap = ~hadronic[:, 0] & hadronic[:, 1]
    ordered = np.where(swap[:, None], ys[:, ::-1], ys)
    legs = [_leg(events, jets, decay_products(events, ordered[:, side]), order_taus=False) for side in (0, 1)]
    return legs[0], legs[1], ys


def _label34(events: Events, jets: Jets, xs: Ints) -> Ints:
    first, second, _ = _legs34(events, jets, xs)
    pair = second.ending >= TAU_TAU
    n_matched = first.matched.sum(axis=1) + second.matched.sum(axis=1)
    chosen = first.hadronic & first.valid & second.valid & (n_matched >= 3)
    chosen &= ~pair | np.all(second.matched, axis=1)
    letters = _letters(events, first) + _letters(events, second)
    return _look_up("Res34P", _key(letters, second.ending), chosen)


# ---- the particles of the aux columns --------------------------------------------------------------------


def _scatter(
    n_jets: int, jets: Ints, columns: list[Ints], counts: list[Ints] | None = None
) -> tuple[Ints, Ints]:
    """For each of `jets`, the rows of all columns in turn (or `counts` rows from each); others get none."""
    if not len(jets):
        return np.zeros(n_jets + 1, np.int64), np.zeros(0, np.int64)
    firsts = np.stack(columns, axis=1)
    sizes = np.ones_like(firsts) if counts is None else np.stack(counts, axis=1)
    per_jet = np.zeros(n_jets, np.int64)
    per_jet[jets] = sizes.sum(axis=1)
    return offsets(per_jet), ranges(firsts.ravel(), sizes.ravel())


def _with_particles(bucket: str, events: Events, jets: Jets, label: Ints, chosen: Ints, owner: Ints) -> Match:
    part, xs = jets.select(chosen), owner[chosen]
    if bucket == "Res2P":
        leg = _leg(events, part, decay_products(events, xs), order_taus=True)
        legs, resonances = [leg], [xs]
        pair = leg.ending >= TAU_TAU
        nearer = distance(events, part, leg.rows[:, 0]) <= distance(events, part, leg.rows[:, 1])
        keep = (pair | nearer)[:, None]
        products = list(np.where(keep, leg.rows, leg.rows[:, ::-1]).T)
    else:
        first, second, ys = _legs34(events, part, xs)
        legs, resonances = [first, second], [xs, *ys.T]
        products = [*first.rows.T, *second.rows.T]
    taus = [tau for leg in legs for tau in leg.taus]
    n_jets = len(jets)
    tau_lists = _scatter(n_jets, chosen, [tau.first for tau in taus], [tau.count for tau in taus])
    empty = (np.zeros(n_jets + 1, np.int64), np.zeros(0, np.int64))
    return Match(
        label,
        _scatter(n_jets, chosen, resonances),
        _scatter(n_jets, chosen, products),
        tau_lists,
        empty,
    )
