"""Anti-kT jets, soft drop and N-subjettiness, a batch of events at a time through FastJet."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache

import awkward as ak
import fastjet
import numpy as np

from jetscale.simulate.arrays import Bools, Floats, Ints, jagged, offsets, pseudorapidity, ranges
from jetscale.simulate.grooming import soft_drop_masses

RADIUS = 0.8
SOFT_DROP_ZCUT = 0.1
N_SUBJETTINESS = (1, 2, 3, 4)
ONE_JET_RADIUS = 1000.0
"""Cambridge/Aachen radius that joins all constituents of a jet again."""


@dataclass(frozen=True)
class Jets:
    """Jets of a batch, by event and falling pT.

    Attributes
    ----------
    event : (J,) event number
    pt, eta, phi, energy : (J,) of the sum of the constituents (E scheme), GeV
    first : (J + 1,) start of each jet's part of `constituents`
    constituents : (C,) index of each constituent among the clustered objects
    """

    event: Ints
    pt: Floats
    eta: Floats
    phi: Floats
    energy: Floats
    first: Ints
    constituents: Ints

    def __len__(self) -> int:
        """Number of jets J."""
        return len(self.event)

    def select(self, which: Ints | Bools) -> Jets:
        """Some of the jets.

        Parameters
        ----------
        which : positions of jets, in the wanted order, or (J,) whether to keep each

        Returns
        -------
        These jets, with their constituents.
        """
        chosen = np.arange(len(self))[which]
        counts = np.diff(self.first)[chosen]
        rows = ranges(self.first[chosen], counts)
        return Jets(
            self.event[chosen], self.pt[chosen], self.eta[chosen], self.phi[chosen], self.energy[chosen],
            offsets(counts), self.constituents[rows],
        )  # fmt: skip


def cluster(event: Ints, momenta: dict[str, Floats], n_events: int, pt_min: float) -> Jets:
    """Cluster objects into anti-kT jets of radius `RADIUS`.

    Parameters
    ----------
    event : (O,) event number of each object, ascending
    momenta : (O,) px, py, pz, E, GeV
    n_events : E
    pt_min : smallest pT of a jet, GeV

    Returns
    -------
    Jets of all events, by event and falling pT.
    """
    _silence_banner()
    counts = np.bincount(event, minlength=n_events)
    starts = offsets(counts)
    algorithm = fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS)
    sequence = fastjet.ClusterSequence(jagged(starts, **momenta), algorithm)
    jets, members = sequence.inclusive_jets(pt_min), sequence.constituent_index(pt_min)
    per_event = ak.to_numpy(ak.num(jets, axis=1)).astype(np.int64)
    jet_event = np.repeat(np.arange(n_events), per_event)
    flat = ak.flatten(jets, axis=1)
    px, py, pz, energy = (ak.to_numpy(flat[name]).astype(np.float64) for name in ("px", "py", "pz", "E"))
    members = ak.flatten(members, axis=1)
    sizes = ak.to_numpy(ak.num(members, axis=1)).astype(np.int64)
    pt = np.hypot(px, py)
    found = Jets(
        event=jet_event,
        pt=pt,
        eta=pseudorapidity(pt, pz),
        phi=np.arctan2(py, px),
        energy=energy,
        first=offsets(sizes),
        constituents=ak.to_numpy(ak.flatten(members)).astype(np.int64) + np.repeat(starts[jet_event], sizes),
    )
    return found.select(np.lexsort((-pt, jet_event)))


@dataclass(frozen=True)
class Substructure:
    """Substructure of J jets.

    Attributes
    ----------
    soft_drop_mass : (J,) GeV
    tau : (J, 4) N-subjettiness for N = 1 to 4
    """

    soft_drop_mass: Floats
    tau: Floats


def substructure(jets: Jets, momenta: dict[str, Floats], *, tau: bool = True) -> Substructure:
    """Groom jets and measure their N-subjettiness.

    Soft drop with beta 0, zcut 0.1 on Cambridge/Aachen (arXiv:1402.2657); tau_N with beta 1, radius 0.8,
    normalised, axes from exclusive kT with one pass of minimisation (arXiv:1011.2268, 1108.2701), which is
    the published card's ``AxisMode 4``.

    Parameters
    ----------
    jets : J jets
    momenta : (O,) px, py, pz, E of the objects they were clustered from, GeV
    tau : whether to compute tau, which takes longer than the mass; else it is 0

    Returns
    -------
    Mass and tau; tau_N is 0 for a jet of at most N constituents.
    """
    if not len(jets):
        return Substructure(np.zeros(0), np.zeros((0, len(N_SUBJETTINESS))))
    parts = {name: values[jets.constituents] for name, values in momenta.items()}
    mass = soft_drop_masses(jets.first, parts, SOFT_DROP_ZCUT)
    values = np.zeros((len(jets), len(N_SUBJETTINESS)))
    if tau:
        algorithm = fastjet.JetDefinition(fastjet.cambridge_algorithm, ONE_JET_RADIUS)
        sequence = fastjet.ClusterSequence(jagged(jets.first, **parts), algorithm)
        values = ak.to_numpy(
            sequence.njettiness("NormalizedMeasure", "OnePass_KT_Axes", list(N_SUBJETTINESS), 1.0, RADIUS)
        ).astype(np.float64)
        few = np.diff(jets.first)[:, None] <= np.array(N_SUBJETTINESS)
        values = np.where(few, 0.0, values)
    return Substructure(mass, values)


@cache
def _silence_banner() -> None:
    """Discard the text that FastJet prints on the C++ standard output when it first clusters."""
    sys.stdout.flush()
    kept = os.dup(1)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        one = fastjet.PseudoJet(1.0, 0.0, 0.0, 1.0)
        fastjet.ClusterSequence(
            [one], fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS)
        ).inclusive_jets()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)
