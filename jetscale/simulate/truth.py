"""Search of Pythia's event record: last copies of a particle, decay products, tau decays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jetscale.simulate.arrays import Bools, Floats, Ints, delta_r
from jetscale.simulate.jetfinding import Jets
from jetscale.simulate.pythia import Events

MATCH = 0.8
"""Largest distance between a jet's axis and a matched parton."""
NONE = -1
TAU_TO_ELECTRON, TAU_TO_MUON, TAU_TO_HADRONS = 0, 1, 2


def last_copies(events: Events, codes: tuple[int, ...]) -> Ints:
    """Particles of some kinds that have no later copy.

    Parameters
    ----------
    events : the batch
    codes : absolute PDG codes

    Returns
    -------
    (n,) rows, ascending.
    """
    rows: Ints = np.flatnonzero(np.isin(np.abs(events.pid), codes))
    last: Ints = rows[_next_copy(events, rows) == NONE]
    return last


def final_copy(events: Events, rows: Ints) -> Ints:
    """Last copy of each particle.

    Parameters
    ----------
    events : the batch
    rows : (n,) rows, or NONE

    Returns
    -------
    (n,) rows; NONE stays NONE.
    """
    rows = rows.copy()
    while True:
        following = _next_copy(events, rows)
        moving = following != NONE
        if not moving.any():
            return rows
        rows[moving] = following[moving]


def _next_copy(events: Events, rows: Ints) -> Ints:
    """First of the two listed daughters that is the same particle, or NONE."""
    following = np.full(len(rows), NONE)
    valid = rows != NONE
    for daughters in (events.daughter2, events.daughter1):
        daughter = np.where(valid, daughters[rows], NONE)
        same = (daughter != NONE) & (events.pid[daughter] == events.pid[rows])
        following[same] = daughter[same]
    return following


def decay_products(events: Events, rows: Ints) -> Ints:
    """The two direct decay products of each particle.

    Parameters
    ----------
    events : the batch
    rows : (n,) rows of last copies

    Returns
    -------
    (n, 2) rows.

    Raises
    ------
    RuntimeError
        A particle does not decay to two particles; all resonances of the processes here do.
    """
    first, last = events.daughter1[rows], events.daughter2[rows]
    if np.any((first == NONE) | (last != first + 1)):
        wrong = rows[(first == NONE) | (last != first + 1)][0]
        raise RuntimeError(f"resonance {events.pid[wrong]} does not decay to two particles")
    return np.stack([first, last], axis=1)


def slots(events: Events, rows: Ints) -> Ints:
    """Arrange rows by event.

    Parameters
    ----------
    events : E events
    rows : (n,) rows, ascending

    Returns
    -------
    (E, K) the rows of each event in order, padded with NONE; K is the largest number in any event.
    """
    counts = np.bincount(events.event[rows], minlength=events.n_events)
    out = np.full((events.n_events, int(counts.max(initial=0))), NONE)
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    out[events.event[rows], rank] = rows
    return out


def inside(events: Events, jets: Jets, rows_J: Ints) -> Bools:
    """Whether one particle for each jet is within `MATCH` of its axis.

    Parameters
    ----------
    events : the batch
    jets : J jets
    rows_J : (J,) row of a particle, or NONE

    Returns
    -------
    (J,); False for NONE.
    """
    return np.asarray((rows_J != NONE) & (distance(events, jets, rows_J) < MATCH))


def distance(events: Events, jets: Jets, rows_J: Ints) -> Floats:
    """Distance of one particle for each jet from its axis.

    Parameters
    ----------
    events : the batch
    jets : J jets
    rows_J : (J,) row of a particle, or NONE

    Returns
    -------
    (J,) in the plane of pseudorapidity and azimuth; meaningless for NONE.
    """
    return delta_r(events.eta(rows_J), events.phi(rows_J), jets.eta, jets.phi)


@dataclass(frozen=True)
class TauDecays:
    """Decays of n taus.

    Attributes
    ----------
    mode : (n,) TAU_TO_ELECTRON, TAU_TO_MUON or TAU_TO_HADRONS
    first : (n,) row of the first decay product in the record, or NONE
    count : (n,) number of decay products
    """

    mode: Ints
    first: Ints
    count: Ints


def tau_decays(events: Events, rows: Ints) -> TauDecays:
    """Decays of the last copies of particles.

    Parameters
    ----------
    events : the batch
    rows : (n,) rows, or NONE

    Returns
    -------
    The decays; the count is 0 for a row that is no tau.
    """
    is_tau = (rows != NONE) & (np.abs(events.pid[rows]) == 15)
    final = final_copy(events, np.where(is_tau, rows, NONE))
    first = np.where(is_tau, events.daughter1[final], NONE)
    count = np.where(is_tau, events.daughter2[final] - events.daughter1[final] + 1, 0)
    mode = np.full(len(rows), TAU_TO_HADRONS)
    undecided = is_tau.copy()
    for step in range(int(count.max(initial=0))):
        code = np.abs(events.pid[np.minimum(first + step, len(events.pid) - 1)])
        lepton = undecided & (step < count) & ((code == 11) | (code == 13))
        mode[lepton] = np.where(code[lepton] == 11, TAU_TO_ELECTRON, TAU_TO_MUON)
        undecided &= ~lepton
    return TauDecays(mode, first, count)
