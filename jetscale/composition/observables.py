"""Observables of jets in a packed store. Shapes: B jets, T their constituents, O observables."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import JetDataError
from jetscale.jets.features import feature_set
from jetscale.jets.stores.packed_store import Part, Store

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SIGNIFICANCE = 5.0
"""A track is displaced where |d0| exceeds so many times its uncertainty."""

OBSERVABLES = {
    "jet_pt": "$p_T$ [GeV]",
    "jet_sdmass": "$m_{SD}$ [GeV]",
    "tau21": r"$\tau_{21}$",
    "tau32": r"$\tau_{32}$",
    "tau43": r"$\tau_{43}$",
    "multiplicity": "constituents",
    "displaced": "displaced tracks",
}
"""By name, in the order of the columns: label of an axis."""


@dataclass(frozen=True)
class JetTable:
    """Jets as observables.

    Attributes
    ----------
    values_BO : (B, O) float64, columns as in `OBSERVABLES`, GeV where they have a unit
    classes_B : (B,) class index in the dataset's label map
    """

    values_BO: Array
    classes_B: Integers

    def __len__(self) -> int:
        return len(self.classes_B)

    def __getitem__(self, rows: Integers) -> JetTable:
        return JetTable(self.values_BO[rows], self.classes_B[rows])

    def coordinates(self) -> Array:
        """(B, O) float64 where distances make sense: logarithms of pT, mass and counts, ratios as are."""
        logs = np.isin(list(OBSERVABLES), ["jet_pt", "jet_sdmass", "multiplicity", "displaced"])
        return np.where(logs, np.log1p(np.maximum(self.values_BO, 0.0)), self.values_BO)


def observe(store: Store, part_B: Integers, row_B: Integers, class_of_label: Integers) -> JetTable:
    """Observables of the jets at these places of a store, in this order."""
    values_BO = np.empty((len(row_B), len(OBSERVABLES)))
    labels_B = np.empty(len(row_B), np.int64)
    d0, d0err = displacement_columns(store)
    for number in np.unique(part_B):
        here = np.flatnonzero(part_B == number)
        part, rows = store.part(int(number)), row_B[here]
        tau = [np.maximum(part.column(f"jet_tau{n}", rows).astype(float), 0.0) for n in (1, 2, 3, 4)]
        values_BO[here] = np.column_stack(
            [
                part.column("jet_pt", rows),
                part.column("jet_sdmass", rows),
                *(_ratio(above, below) for below, above in pairwise(tau)),
                part.column("jet_nparticles", rows),
                _displaced(part, rows, d0, d0err),
            ]
        )
        labels_B[here] = part.labels(rows)
    return JetTable(values_BO, class_of_label[labels_B])


def displacement_columns(store: Store) -> tuple[int, int]:
    """Columns of tanh(d0 / mm) and of its uncertainty in the store's inputs.

    Raises
    ------
    JetDataError
        Its feature set has none.
    """
    names = [name for name, _ in feature_set(store.definition["features"]["name"]).columns]
    if "part_d0" not in names:
        raise JetDataError(f"{store.path}: its inputs have no part_d0, so displaced tracks cannot be counted")
    return names.index("part_d0"), names.index("part_d0err")


def _ratio(above: Array, below: Array) -> Array:
    """tau_(n+1) / tau_n; 0 where a jet has so few constituents that both vanish."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _displaced(part: Part, rows: Integers, d0: int, d0err: int) -> Array:
    """Tracks of each jet with |d0| > 5 sigma; neutrals have d0 = 0."""
    start_B, stop_B = (bound_B.astype(np.int64) for bound_B in part.bounds(rows))
    length_B = stop_B - start_B
    jet_T = np.repeat(np.arange(len(rows)), length_B)
    place_T = np.arange(len(jet_T)) - np.repeat(np.cumsum(length_B) - length_B, length_B) + start_B[jet_T]
    x_TF = part.constituents(start_B, stop_B)[0][place_T]
    # half precision rounds tanh to 1 at 4 mm, where no track's uncertainty matters any more
    size_T = np.arctanh(np.minimum(np.abs(x_TF[:, d0].astype(float)), 1 - 1e-6))
    far_T = size_T > SIGNIFICANCE * x_TF[:, d0err].astype(float)
    return np.bincount(jet_T[far_T & (size_T > 0)], minlength=len(rows)).astype(float)
