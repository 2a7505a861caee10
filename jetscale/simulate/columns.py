"""Columns of the published files, from jets, their objects and their truth particles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from jetscale.jets.datasets.jetclass import JETCLASS_BRANCHES, JETCLASS_LABELS, JETCLASS_PREFIXES
from jetscale.jets.datasets.jetclass2 import JETCLASS2_COLUMNS, JETCLASS2_LABELS
from jetscale.simulate import truth_jetclass, truth_jetclass2
from jetscale.simulate.arrays import Bools, Ints, offsets, wrap
from jetscale.simulate.detector import PHOTON, Objects, stable_visible
from jetscale.simulate.jetfinding import Jets, Substructure, cluster, substructure
from jetscale.simulate.processes import Point
from jetscale.simulate.pythia import Events
from jetscale.simulate.truth import NONE

PZ_MAX, ETA_MAX = 10_000.0, 5.0
"""Largest abs(pz) in GeV and abs(eta) of a constituent in the files; the jet itself has the others too."""
GEN_PT_MIN = 100.0
"""GeV; least pT of the generator jets that are matched."""
SPEED_OF_LIGHT = 299_792_458_000.0
"""mm / s; ``genpart_t`` is in seconds, as in the published files."""
LABEL_TRUTH = {label: truth_jetclass.CODES[process] for label, process in JETCLASS_PREFIXES.items()}
Lists = tuple[Ints, Ints]
"""(J + 1,) starts and concatenated indices."""

_ARROW = {
    "float32": pa.float32(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
}


def schema(dataset: str) -> pa.Schema:
    """Arrow schema of the published columns of a dataset; no column is nullable."""
    columns = JETCLASS_BRANCHES if dataset == "jetclass" else JETCLASS2_COLUMNS
    fields = []
    for name, kind in columns.items():
        inner = kind.removeprefix("list<").removesuffix(">")
        arrow = _ARROW[inner]
        if kind.startswith("list<"):
            arrow = pa.list_(pa.field("element", arrow, nullable=False))
        fields.append(pa.field(name, arrow, nullable=False))
    return pa.schema(fields)


def table(dataset: str, columns: Mapping[str, Any]) -> pa.Table:
    """Arrow table of the published columns.

    Parameters
    ----------
    dataset : ``jetclass`` or ``jetclass2``
    columns : (J,) values by column name; for a list column the pair of (J + 1,) starts and concatenated
        values

    Returns
    -------
    J rows in the schema of the dataset.
    """
    arrays = []
    form = schema(dataset)
    for column in form:
        values = columns[column.name]
        if pa.types.is_list(column.type):
            starts, flat = values
            inner = column.type.value_type
            content = pa.array(np.asarray(flat).astype(inner.to_pandas_dtype()), inner)
            arrays.append(
                pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), content, type=column.type)
            )
        else:
            arrays.append(pa.array(np.asarray(values).astype(column.type.to_pandas_dtype()), column.type))
    return pa.Table.from_arrays(arrays, schema=form)


def jetclass_columns(
    events: Events, objects: Objects, jets: Jets, match: truth_jetclass.Match, point: Point
) -> dict[str, Any]:
    """All 41 JetClass branches of matched jets.

    Parameters
    ----------
    events : the batch of events
    objects : energy-flow objects of these events
    jets : J jets, clustered from `objects`
    match : truth code and resonance of each jet
    point : of the process; it gives the published PDG codes

    Returns
    -------
    Columns by name, as `table` takes them.
    """
    momenta = objects.momenta()
    columns = _parts(objects, jets)
    columns |= _jet(jets, substructure(jets, momenta))
    columns["jet_nparticles"] = np.diff(columns["part_px"][0])
    for name in JETCLASS_LABELS:
        columns[f"label_{name}"] = np.isin(match.code, LABEL_TRUTH[name])
    found = match.resonance != NONE
    row = np.where(found, match.resonance, 0)
    pid = _published_pid(events, row, point)
    for name, values in (
        ("pt", events.pt(row)),
        ("eta", events.eta(row)),
        ("phi", events.phi(row)),
        ("pid", pid),
    ):
        columns[f"aux_genpart_{name}"] = np.where(found, values, 0)
    columns["aux_truth_match"] = match.code
    return columns


def jetclass2_columns(
    events: Events, objects: Objects, jets: Jets, match: truth_jetclass2.Match, point: Point
) -> dict[str, Any]:
    """All 54 JetClass-II columns of labelled jets.

    Parameters
    ----------
    events : the batch of events
    objects : energy-flow objects of these events
    jets : J jets, clustered from `objects`
    match : label and truth particles of each jet
    point : of the bucket; it gives the published PDG codes

    Returns
    -------
    Columns by name, as `table` takes them.
    """
    momenta = objects.momenta()
    columns = _parts(objects, jets)
    columns |= _jet(jets, substructure(jets, momenta))
    columns["jet_nparticles"] = np.diff(columns["part_px"][0])
    assert match.label.max(initial=0) < len(JETCLASS2_LABELS)
    columns["jet_label"] = match.label
    return columns | _generator_jets(events, jets) | _truth_particles(events, match, point)


def _kept(starts: Ints, rows: Ints, keep: Bools, order_by: Any) -> Lists:
    """Keep some entries of lists, and sort each list by falling `order_by`."""
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))[keep]
    rows, order_by = rows[keep], order_by[keep]
    order = np.lexsort((-order_by, owner))
    return offsets(np.bincount(owner, minlength=len(starts) - 1)), rows[order]


def _parts(objects: Objects, jets: Jets) -> dict[str, Any]:
    """Constituents within the published cuts, by falling pT; deta changes sign for jets at negative eta.

    Constituents have the pseudorapidity of their position, and jets that of their momentum, as published.
    """
    rows, momenta = jets.constituents, objects.stored_momenta()
    keep = (np.abs(momenta["pz"][rows]) <= PZ_MAX) & (np.abs(objects.position_eta[rows]) <= ETA_MAX)
    starts, rows = _kept(jets.first, rows, keep, objects.pt[rows])
    jet = np.repeat(np.arange(len(jets)), np.diff(starts))
    part = objects[rows]
    kind = np.abs(part.pid)
    electron, muon, charged = kind == 11, kind == 13, part.charge != 0
    values = {
        "px": momenta["px"][rows],
        "py": momenta["py"][rows],
        "pz": momenta["pz"][rows],
        "energy": momenta["E"][rows],
        "deta": np.where(jets.eta[jet] > 0, 1, -1) * (part.position_eta - jets.eta[jet]),
        "dphi": wrap(part.phi - jets.phi[jet]),
        "d0val": part.d0,
        "d0err": part.d0_error,
        "dzval": part.dz,
        "dzerr": part.dz_error,
        "charge": part.charge,
        "isElectron": electron,
        "isMuon": muon,
        "isPhoton": kind == PHOTON,
        "isChargedHadron": charged & ~electron & ~muon,
        "isNeutralHadron": ~charged & (kind != PHOTON),
    }
    return {f"part_{name}": (starts, flat) for name, flat in values.items()}


def _jet(jets: Jets, shape: Substructure) -> dict[str, Any]:
    columns = {"pt": jets.pt, "eta": jets.eta, "phi": jets.phi, "energy": jets.energy}
    columns["sdmass"] = shape.soft_drop_mass
    columns |= {f"tau{n + 1}": shape.tau[:, n] for n in range(shape.tau.shape[1])}
    return {f"jet_{name}": values for name, values in columns.items()}


def _published_pid(events: Events, rows: Ints, point: Point) -> Ints:
    """PDG codes, with the particles that stand in for others under their published codes."""
    pid = events.pid[rows]
    out = pid.copy()
    for published, codes in point.published.items():
        out[np.isin(np.abs(pid), codes)] = published
    return np.asarray(np.where((pid < 0) & (out > 0), -out, out))


def _truth_particles(events: Events, match: truth_jetclass2.Match, point: Point) -> dict[str, Any]:
    """Concatenate resonances, decay products, tau decay products and QCD partons of each jet."""
    groups = (match.resonances, match.products, match.tau_products, match.partons)
    counts = np.stack([np.diff(starts) for starts, _ in groups], axis=1)
    kinds = np.repeat(np.tile(np.arange(len(groups)), len(counts)), counts.ravel())
    rows = np.empty(len(kinds), np.int64)
    for number, (_, members) in enumerate(groups):
        rows[kinds == number] = members
    starts = offsets(counts.sum(axis=1))
    first = np.zeros(len(kinds), bool)
    first[starts[:-1][counts.sum(axis=1) > 0]] = True
    values = {
        "pt": events.pt(rows),
        "eta": events.eta(rows),
        "phi": events.phi(rows),
        "mass": events.mass[rows],
        "pid": _published_pid(events, rows, point),
        "isResX": (kinds == 0) & first,
        "isResY": (kinds == 0) & ~first,
        "isResDecayProd": kinds == 1,
        "isTauDecayProd": kinds == 2,
        "isQcdParton": kinds == 3,
    }
    return {f"aux_genpart_{name}": (starts, flat) for name, flat in values.items()}


def _generator_jets(events: Events, jets: Jets) -> dict[str, Any]:
    """Jets of the stable particles without neutrinos, matched to the nearest jet within 0.8."""
    stable = stable_visible(events)
    stable = stable[np.isin(events.event[stable], jets.event)]
    momenta = {
        "px": events.px[stable],
        "py": events.py[stable],
        "pz": events.pz[stable],
        "E": events.energy[stable],
    }
    found = cluster(events.event[stable], momenta, events.n_events, GEN_PT_MIN)
    partner = _pair(jets, found, events.n_events)
    matched = partner != NONE
    chosen = found.select(partner[matched])
    mass = np.zeros(len(jets))
    mass[matched] = substructure(chosen, momenta, tau=False).soft_drop_mass

    rows = stable[chosen.constituents]
    eta = events.eta(rows)
    keep = (np.abs(events.pz[rows]) <= PZ_MAX) & (np.abs(eta) <= ETA_MAX)
    starts, rows = _kept(chosen.first, rows, keep, events.pt(rows))
    counts = np.zeros(len(jets), np.int64)
    counts[matched] = np.diff(starts)
    starts = offsets(counts)
    jet = np.repeat(np.arange(len(jets)), counts)
    at_origin = np.abs(events.z[rows]) < 1e-10
    particles = {
        "px": events.px[rows],
        "py": events.py[rows],
        "pz": events.pz[rows],
        "energy": events.energy[rows],
        "jet_deta": np.where(jets.eta[jet] > 0, 1, -1) * (events.eta(rows) - jets.eta[jet]),
        "jet_dphi": wrap(events.phi(rows) - jets.phi[jet]),
        "x": np.where(at_origin, 0.0, events.x[rows]),
        "y": np.where(at_origin, 0.0, events.y[rows]),
        "z": events.z[rows],
        "t": events.t[rows] / SPEED_OF_LIGHT,
        "pid": events.pid[rows],
    }
    columns: dict[str, Any] = {f"genpart_{name}": (starts, flat) for name, flat in particles.items()}
    for name in ("pt", "eta", "phi", "energy"):
        values = np.zeros(len(jets))
        values[matched] = getattr(chosen, name)
        columns[f"genjet_{name}"] = values
    return columns | {"genjet_sdmass": mass, "genjet_nparticles": counts}


def _pair(jets: Jets, found: Jets, n_events: int) -> Ints:
    """Index of the nearest free generator jet within 0.8 of each jet, or NONE; jets choose by falling pT."""
    counts = np.bincount(found.event, minlength=n_events)
    width = int(counts.max(initial=0))
    starts = offsets(counts)
    partner = np.full(len(jets), NONE)
    free = np.arange(width) < counts[:, None]
    rank = np.arange(len(jets)) - offsets(np.bincount(jets.event, minlength=n_events))[jets.event]
    for turn in range(int(rank.max(initial=-1)) + 1 if width else 0):
        jet = np.flatnonzero(rank == turn)
        event = jets.event[jet]
        candidates = np.minimum(starts[event][:, None] + np.arange(width), len(found) - 1)
        separation = np.hypot(
            found.eta[candidates] - jets.eta[jet, None], wrap(found.phi[candidates] - jets.phi[jet, None])
        )
        separation = np.where(free[event], separation, np.inf)
        best = separation.argmin(axis=1)
        near = separation[np.arange(len(jet)), best] < 0.8
        partner[jet[near]] = (starts[event] + best)[near]
        free[event[near], best[near]] = False
    return partner
