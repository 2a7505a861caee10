"""Pythia 8 in batches: events as flat arrays, without a missing event.

``Pythia.nextBatch`` leaves failed events out by default ("skip"). Here failed events are tried again a
limited number of times, and the number of events is compared with the number that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import pythia8mc
import xxhash

from jetscale.common.files import CHECKSUM, atomic_path
from jetscale.simulate.arrays import Floats, Ints, offsets, pseudorapidity
from jetscale.simulate.processes import Point

COMMON = (
    "Beams:eCM=13000",
    "Print:quiet=on",
    "Random:setSeed=on",
)
TRIALS = 10.0
"""Trials per event of a batch before it is given up; a float, because an integer is no valid error mode."""
HARD_RESONANCE = 22
"""|status| of an intermediate particle of the hardest process."""
_SEAL_MARK = f"! {CHECKSUM}:".encode()
SYSTEM = 90
"""Particle code of entry 0 of every Pythia event: the whole event."""


@dataclass(frozen=True)
class Events:
    """A batch of E events, their P particles concatenated (the full history, entry 0 included).

    Attributes
    ----------
    first : (E + 1,) row of the first particle of each event
    event : (P,) event of each particle
    pid, status : (P,) PDG code and Pythia status, negative for particles that decayed or branched
    mother1, mother2, daughter1, daughter2 : (P,) rows; -1 where Pythia gives none
    px, py, pz, energy, mass : (P,) GeV
    x, y, z, t : (P,) production vertex in mm and mm/c
    charge : (P,) units of e
    """

    first: Ints
    event: Ints
    pid: Ints
    status: Ints
    mother1: Ints
    mother2: Ints
    daughter1: Ints
    daughter2: Ints
    px: Floats
    py: Floats
    pz: Floats
    energy: Floats
    mass: Floats
    x: Floats
    y: Floats
    z: Floats
    t: Floats
    charge: Floats

    @property
    def n_events(self) -> int:
        """Number of events E."""
        return len(self.first) - 1

    def pt(self, rows: Ints) -> Floats:
        """Transverse momentum of particles.

        Parameters
        ----------
        rows : (n,) rows of the particles

        Returns
        -------
        (n,) GeV.
        """
        return np.hypot(self.px[rows], self.py[rows])

    def eta(self, rows: Ints) -> Floats:
        """Pseudorapidity of particles.

        Parameters
        ----------
        rows : (n,) rows of the particles

        Returns
        -------
        (n,) of their momenta.
        """
        return pseudorapidity(self.pt(rows), self.pz[rows])

    def phi(self, rows: Ints) -> Floats:
        """Azimuth of particles.

        Parameters
        ----------
        rows : (n,) rows of the particles

        Returns
        -------
        (n,) of their momenta, rad.
        """
        return np.arctan2(self.py[rows], self.px[rows])


def save_mpi_table(path: Path) -> None:
    """Integrate multiparton interactions once and save the result, a small text file.

    The integration takes a third of every initialisation and depends on beams and tune alone. The file is
    always made in the same way, so it adds nothing to what determines a jet. Its last line is a checksum,
    which is a comment to Pythia.
    """
    with atomic_path(path) as aside:
        Generator(
            Point("the multiparton interactions", ("HardQCD:all=on", "PhaseSpace:pTHatMin=100")),
            seed=1,
            extra=("MultipartonInteractions:reuseInit=1", f"MultipartonInteractions:initFile={aside}"),
        )
        table = aside.read_bytes()
        aside.write_bytes(table + _seal(table))


def is_whole(table: Path) -> bool:
    """Whether a saved table is undamaged."""
    content, mark, checksum = table.read_bytes().rpartition(_SEAL_MARK)
    return mark + checksum == _seal(content)


def _seal(content: bytes) -> bytes:
    return _SEAL_MARK + xxhash.xxh3_128_hexdigest(content).encode() + b"\n"


def mpi_settings(table: Path | None) -> tuple[str, ...]:
    """Settings that use multiparton interactions from a saved table; switched off without one.

    Raises
    ------
    RuntimeError
        The table is damaged, so the jets would not be those of the seed.
    """
    if table is None:
        return ("PartonLevel:MPI=off",)
    if table.exists() and not is_whole(table):
        raise RuntimeError(f"{table} is damaged; run the same command again, it is made again")
    return ("MultipartonInteractions:reuseInit=2", f"MultipartonInteractions:initFile={table}")


class Generator:
    """One initialised Pythia at one point of one process.

    Parameters
    ----------
    point : process and parameters
    seed : of Pythia, 1 to 900,000,000
    extra : further lines of settings, which take precedence

    Attributes
    ----------
    seconds : CPU time spent inside Pythia so far: `init` and `events`

    Raises
    ------
    RuntimeError
        Pythia refuses a setting or cannot be initialised.
    """

    def __init__(self, point: Point, seed: int, extra: Sequence[str] = ()) -> None:
        began = time.process_time()
        self.point = point
        self._pythia = pythia8mc.Pythia("", False)
        for line in (*COMMON, f"Random:seed={seed}", *point.settings, *extra):
            if not self._pythia.readString(line):
                raise RuntimeError(f"Pythia does not accept {line!r} ({point.name})")
        if not self._pythia.init():
            raise RuntimeError(f"Pythia cannot be initialised for {point.name}: {', '.join(point.settings)}")
        self.seconds = {"init": time.process_time() - began, "events": 0.0}

    def batch(self, n_events: int) -> Events:
        """Generate exactly `n_events` events.

        Raises
        ------
        RuntimeError
            Events keep failing (`TRIALS` trials each on average), or a resonance has a mass that the point
            does not allow.
        """
        began = time.process_time()
        try:
            batch = self._pythia.nextBatch(n_events, TRIALS)
        except RuntimeError as error:
            raise RuntimeError(
                f"Pythia cannot make {n_events} events for {self.point.name}: {error}"
            ) from error
        self.seconds["events"] += time.process_time() - began
        n_found = 0 if batch is None else len(batch)
        if n_found != n_events:
            raise RuntimeError(
                f"Pythia made {n_found} of {n_events} events for {self.point.name}, "
                f"each in at most {TRIALS:.0f} trials"
            )
        events = self._flatten(batch.prt)
        _check_masses(events, self.point)
        return events

    def _flatten(self, particles: ak.Array) -> Events:
        counts = ak.to_numpy(ak.num(particles.id, axis=1)).astype(np.int64)
        first = offsets(counts)
        event = np.repeat(np.arange(len(counts)), counts)
        flat = ak.flatten(particles, axis=1)

        def rows(name: str) -> Ints:
            within = ak.to_numpy(flat[name]).astype(np.int64)
            return np.where(within > 0, within + first[event], -1)

        def floats(array: ak.Array) -> Floats:
            return np.ascontiguousarray(ak.to_numpy(array), np.float64)

        pid = ak.to_numpy(flat.id).astype(np.int64)
        if not np.all(pid[first[:-1]] == SYSTEM):
            raise RuntimeError(
                "Pythia's events do not start with their system entry: rows would be off by one"
            )
        vertex = {name: floats(ak.fill_none(flat.vProd[name], 0.0)) for name in ("px", "py", "pz", "e")}
        codes, inverse = np.unique(pid, return_inverse=True)
        charges = np.array([self._pythia.particleData.charge(int(code)) for code in codes], np.float64)
        return Events(
            first=first,
            event=event,
            pid=pid,
            status=ak.to_numpy(flat.status).astype(np.int64),
            mother1=rows("mother1"),
            mother2=rows("mother2"),
            daughter1=rows("daughter1"),
            daughter2=rows("daughter2"),
            px=floats(flat.p.px),
            py=floats(flat.p.py),
            pz=floats(flat.p.pz),
            energy=floats(flat.p.e),
            mass=floats(flat.m),
            x=vertex["px"],
            y=vertex["py"],
            z=vertex["pz"],
            t=vertex["e"],
            charge=charges[inverse],
        )


def _check_masses(events: Events, point: Point) -> None:
    """Raise if a resonance of the hard process is outside its mass range.

    Pythia silently keeps ``mMin`` = 50 GeV for Higgs bosons whose ``m0`` was set lower.
    """
    hard = np.abs(events.status) == HARD_RESONANCE
    for code, (low, high) in point.masses.items():
        found = events.mass[hard & (np.abs(events.pid) == code)]
        if found.size and (found.min() < low - 1e-6 or found.max() > high + 1e-6):
            raise RuntimeError(
                f"{point.name}: particle {code} has masses of {found.min():.2f} to {found.max():.2f} GeV, "
                f"{low} to {high} asked for"
            )
