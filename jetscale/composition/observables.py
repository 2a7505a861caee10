"""Observables of jets in a packed store. Shapes: B jets, T their constituents, O observables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jetscale.jets.features import FeatureSet
from jetscale.jets.source import JetSource
from jetscale.jets.stores.packed_store import Part

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SIGNIFICANCE = 5.0
"""A track is displaced where |d0| exceeds so many times its uncertainty."""


@dataclass(frozen=True)
class Observable:
    """A number per jet.

    Attributes
    ----------
    label : of an axis
    needs : columns of jets, or of constituents' inputs, that it is made of
    values : of the jets in these rows of a part, (B,) float64
    is_log : distances make sense between logarithms
    is_count : values are whole numbers
    """

    label: str
    needs: tuple[str, ...]
    values: Callable[[Part, Integers, FeatureSet], Array]
    is_log: bool = False
    is_count: bool = False


def _column(name: str) -> Callable[[Part, Integers, FeatureSet], Array]:
    return lambda part, rows, _: part.column(name, rows).astype(float)


def _tau_ratio(number: int) -> Observable:
    """tau_number / tau_(number - 1); 0 where a jet has so few constituents that both vanish."""

    def values(part: Part, rows: Integers, _: FeatureSet) -> Array:
        above, below = (
            np.maximum(part.column(f"jet_tau{n}", rows).astype(float), 0.0) for n in (number, number - 1)
        )
        ratio: Array = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
        return ratio

    label = rf"$\tau_{{{number}{number - 1}}}$"
    return Observable(label, (f"jet_tau{number}", f"jet_tau{number - 1}"), values)


def _displaced(part: Part, rows: Integers, features: FeatureSet) -> Array:
    """Tracks of each jet with |d0| > 5 sigma; neutrals have d0 = 0.

    The store has no such column of jets, so they are counted from the inputs, tanh(d0 / mm) and its
    uncertainty.
    """
    names = [name for name, _ in features.columns]
    d0, d0err = names.index("part_d0"), names.index("part_d0err")
    start_B, stop_B = (bound_B.astype(np.int64) for bound_B in part.bounds(rows))
    length_B = stop_B - start_B
    jet_T = np.repeat(np.arange(len(rows)), length_B)
    place_T = np.arange(len(jet_T)) - np.repeat(np.cumsum(length_B) - length_B, length_B) + start_B[jet_T]
    x_TF = part.constituents(start_B, stop_B)[0][place_T]
    # half precision rounds tanh to 1 at 4 mm, where no track's uncertainty matters any more
    size_T = np.arctanh(np.minimum(np.abs(x_TF[:, d0].astype(float)), 1 - 1e-6))
    far_T = size_T > SIGNIFICANCE * x_TF[:, d0err].astype(float)
    return np.bincount(jet_T[far_T & (size_T > 0)], minlength=len(rows)).astype(float)


OBSERVABLES = {
    "jet_pt": Observable("$p_T$ [GeV]", ("jet_pt",), _column("jet_pt"), is_log=True),
    "jet_sdmass": Observable("$m_{SD}$ [GeV]", ("jet_sdmass",), _column("jet_sdmass"), is_log=True),
    "tau21": _tau_ratio(2),
    "tau32": _tau_ratio(3),
    "tau43": _tau_ratio(4),
    "multiplicity": Observable(
        "constituents", ("jet_nparticles",), _column("jet_nparticles"), is_log=True, is_count=True
    ),
    "displaced": Observable(
        "displaced tracks", ("part_d0", "part_d0err"), _displaced, is_log=True, is_count=True
    ),
}
"""All observables by name, in the order of the columns of a `JetTable`."""


def observables_of(source: JetSource) -> tuple[str, ...]:
    """Names of the observables that the jets of `source` have: what they are made of is in the store."""
    inputs = {name for name, _ in source.features.columns}
    known = {*source.dataset.columns} - {name for name in source.dataset.columns if name.startswith("part_")}
    return tuple(name for name, one in OBSERVABLES.items() if {*one.needs} <= known | inputs)


@dataclass(frozen=True)
class JetTable:
    """Jets as observables.

    Attributes
    ----------
    observables : names, see `OBSERVABLES`
    values_BO : (B, O) float64, columns as in `observables`, GeV where they have a unit
    classes_B : (B,) class index in the dataset's label map
    """

    observables: tuple[str, ...]
    values_BO: Array
    classes_B: Integers

    def __len__(self) -> int:
        return len(self.classes_B)

    def only(self, observables: Sequence[str]) -> JetTable:
        """The same jets with these observables alone."""
        columns = [self.observables.index(name) for name in observables]
        return JetTable(tuple(observables), self.values_BO[:, columns], self.classes_B)

    def coordinates(self) -> Array:
        """(B, O) float64 where distances make sense: logarithms of pT, mass and counts, ratios as are."""
        logs = [OBSERVABLES[name].is_log for name in self.observables]
        return np.where(logs, np.log1p(np.maximum(self.values_BO, 0.0)), self.values_BO)


def observe(source: JetSource, part_B: Integers, row_B: Integers) -> JetTable:
    """Observables of jets of a source.

    Parameters
    ----------
    source : whose store they are in
    part_B, row_B : (B,) int64, their places in the store

    Returns
    -------
    The jets in this order, with all observables that the source has.
    """
    names = observables_of(source)
    values_BO = np.empty((len(row_B), len(names)))
    labels_B = np.empty(len(row_B), np.int64)
    for number in np.unique(part_B):
        here = np.flatnonzero(part_B == number)
        part, rows = source.store.part(int(number)), row_B[here]
        for column, name in enumerate(names):
            values_BO[here, column] = OBSERVABLES[name].values(part, rows, source.features)
        labels_B[here] = part.labels(rows)
    return JetTable(names, values_BO, np.array(source.labels.class_of_label)[labels_B])
