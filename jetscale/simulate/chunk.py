"""The unit of work: a chunk is some jets of one file, and a pure function of its name."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from jetscale.simulate import columns as tables
from jetscale.simulate import truth_jetclass, truth_jetclass2
from jetscale.simulate.arrays import Floats, Ints
from jetscale.simulate.detector import detect
from jetscale.simulate.jetfinding import cluster
from jetscale.simulate.processes import N_DRAWS, Point, jetclass2_point, jetclass_points
from jetscale.simulate.pythia import Generator, mpi_settings
from jetscale.simulate.random_streams import generator, pythia_seed

CHUNK_JETS = {"jetclass": 1000, "jetclass2": 2000}
"""Jets in a chunk (the last of a file has the rest)."""
JETS_PER_POINT = 250
"""JetClass-II: a chunk uses one point of parameter space for this many jets. With fewer jets a point, Pythia
would spend more time in initialisation than in events."""
BATCH_EVENTS = 200
"""Events in one batch. It limits memory (0.2 MB an event), and is large enough for fast array code."""
HOPELESS_EVENTS = 20_000
"""Stop after this many events if there was less than one jet in `HOPELESS_YIELD` events."""
HOPELESS_YIELD = 1000
JET_CUTS = {"jetclass": (500.0, 1000.0, 2.0), "jetclass2": (200.0, np.inf, 2.5)}
"""pT above, pT below (GeV), |eta| at most."""
BEAM_SPOT = {"jetclass": 0.0, "jetclass2": 53.0}
"""mm; Gaussian spread along the beam of an event's primary vertex. JetClass-II's card draws it with its
pile-up; JetClass's card has neither."""


@dataclass(frozen=True)
class Chunk:
    """Name of a chunk.

    Attributes
    ----------
    dataset, process, number : of its file, as in the file's published name
    index : position in the file
    jets : number of jets to make
    seed : of the simulation
    extra : further Pythia settings (tests provoke failures with them)
    """

    dataset: str
    process: str
    number: int
    index: int
    jets: int
    seed: int
    extra: tuple[str, ...] = ()

    @property
    def purpose(self) -> tuple[str, str, int, int]:
        """Key of all random streams of this chunk."""
        return self.dataset, self.process, self.number, self.index


@dataclass
class Effort:
    """Cost of a chunk.

    Attributes
    ----------
    events, jets : numbers generated
    seconds, init, pythia : CPU seconds in all, in Pythia's initialisation, and in the generation of its
        events
    """

    events: int = 0
    jets: int = 0
    seconds: float = 0.0
    init: float = 0.0
    pythia: float = 0.0


def points(chunk: Chunk) -> tuple[Point, ...]:
    """Where in parameter space a chunk's events come from.

    JetClass-II points are a Latin hypercube of the chunk: every chunk covers each parameter's range evenly.
    """
    if chunk.dataset == "jetclass":
        return jetclass_points(chunk.process)
    number = max(1, round(chunk.jets / JETS_PER_POINT))
    random = generator(chunk.seed, *chunk.purpose, "points")
    cells = np.stack([random.permutation(number) for _ in range(N_DRAWS)], axis=1)
    draws: Floats = (cells + random.random(cells.shape)) / number
    return tuple(jetclass2_point(chunk.process, row) for row in draws)


def simulate_chunk(chunk: Chunk, mpi_table: Path | None) -> tuple[pa.Table, Effort]:
    """Make the jets of a chunk.

    Every point of the process generates the same number of events until there are enough jets. A random
    subset of exactly `chunk.jets` is kept, so the mixture of points does not depend on when there were
    enough.

    Parameters
    ----------
    chunk : which jets to make
    mpi_table : saved state of the multiparton interactions (`save_mpi_table`); None switches them off

    Returns
    -------
    Table of the published columns with `chunk.jets` rows; the cost.

    Raises
    ------
    RuntimeError
        Pythia fails, or hardly any event gives a jet.
    """
    began = time.process_time()
    extra = (*chunk.extra, *mpi_settings(mpi_table))
    generators = [
        Generator(point, pythia_seed(chunk.seed, *chunk.purpose, "pythia", turn), extra)
        for turn, point in enumerate(points(chunk))
    ]
    random = generator(chunk.seed, *chunk.purpose, "detector")
    found: list[pa.Table] = []
    effort = Effort()
    while effort.jets < chunk.jets:
        n_events = _next_batch(chunk.jets, effort, len(generators))
        for source in generators:
            found.append(_jets(chunk, source, n_events, random))
            effort.jets += found[-1].num_rows
            effort.events += n_events
        if effort.events >= HOPELESS_EVENTS and effort.jets * HOPELESS_YIELD < effort.events:
            raise RuntimeError(
                f"{effort.events} events gave {effort.jets} jets of {chunk.process}: giving up"
            )
    keep = generator(chunk.seed, *chunk.purpose, "subset").choice(effort.jets, chunk.jets, replace=False)
    made = pa.concat_tables(found).take(np.sort(keep)).combine_chunks()
    effort.jets = made.num_rows
    effort.init = sum(source.seconds["init"] for source in generators)
    effort.pythia = sum(source.seconds["events"] for source in generators)
    effort.seconds = time.process_time() - began
    return made, effort


def _next_batch(wanted: int, effort: Effort, n_points: int) -> int:
    """Events that each point generates next, from the yield so far; at first, one jet an event is assumed."""
    rate = max(effort.jets, 1) / effort.events if effort.events else 1.0
    missing = (wanted - effort.jets) / rate / n_points
    share = 0.6 if not effort.events else 1.02
    return int(np.clip(np.ceil(missing * share), 5, BATCH_EVENTS))


def _jets(chunk: Chunk, source: Generator, n_events: int, random: np.random.Generator) -> pa.Table:
    """Jets of one batch of events."""
    events = source.batch(n_events)
    vertex_z = BEAM_SPOT[chunk.dataset] * random.standard_normal(events.n_events)
    objects = detect(events, random, vertex_z)
    low, high, eta_max = JET_CUTS[chunk.dataset]
    jets = cluster(objects.event, objects.momenta(), events.n_events, low)
    jets = jets.select((jets.pt > low) & (jets.pt < high) & (np.abs(jets.eta) <= eta_max))
    if chunk.dataset == "jetclass":
        match = truth_jetclass.match(chunk.process, events, jets)
        kept = np.flatnonzero(np.isin(match.code, truth_jetclass.CODES[chunk.process]))
        match = truth_jetclass.Match(match.code[kept], match.resonance[kept])
        columns = tables.jetclass_columns(events, objects, jets.select(kept), match, source.point)
    else:
        codes = next(iter(source.point.published.values()), ())
        labels = truth_jetclass2.match(chunk.process, events, jets, codes)
        kept = np.flatnonzero(labels.label != -1)
        columns = tables.jetclass2_columns(
            events, objects, jets.select(kept), labels.select(kept), source.point
        )
    return tables.table(chunk.dataset, columns)


def chunks(dataset: str, process: str, number: int, jets: int, seed: int) -> list[Chunk]:
    """Divide the jets of a file into chunks.

    Parameters
    ----------
    dataset, process, number : of the file
    jets : in the file
    seed : of the simulation

    Returns
    -------
    Chunks of `CHUNK_JETS` jets, in order; the last one has the rest.
    """
    size = CHUNK_JETS[dataset]
    starts: Ints = np.arange(0, jets, size)
    return [
        Chunk(dataset, process, number, index, min(size, jets - int(start)), seed)
        for index, start in enumerate(starts)
    ]
