"""Jets from the four-momenta of their constituents, for datasets that have no more than these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import File
from jetscale.jets.reading.raw import RawJets, assemble

Array = npt.NDArray[Any]


def jets_from_momenta(
    path: File,
    first_entry: int,
    columns: Sequence[str],
    lengths_B: Array,
    p4_T4: Array,
    labels_B: Array | None,
    n_labels: int,
) -> RawJets:
    """Jets whose columns are worked out from four-momenta; the jet is the sum of its constituents.

    ``part_deta`` has the sign of JetClass: eta minus the jet's, times the sign of the jet's eta.

    Parameters
    ----------
    path : the file, for errors
    first_entry : entry number of the first jet
    columns : published names, of `jetscale.jets.datasets.base.FROM_MOMENTA`
    lengths_B : (B,) constituents of each jet
    p4_T4 : (T, 4) E, px, py, pz of all constituents, jet after jet, in GeV
    labels_B : (B,) whole numbers; None for jets without labels
    n_labels : labels are below this number

    Returns
    -------
    B jets with T constituents, float32.

    Raises
    ------
    JetDataError
        A label is out of range.
    """
    if labels_B is not None:
        check_labels(path, first_entry, labels_B, n_labels)
    offsets = np.concatenate([[0], np.cumsum(lengths_B, dtype=np.int64)])
    energy, px, py, pz = np.asarray(p4_T4, np.float64).T
    jet_T = np.repeat(np.arange(len(lengths_B)), lengths_B)
    e_B, x_B, y_B, z_B = (np.bincount(jet_T, values, len(lengths_B)) for values in (energy, px, py, pz))
    with np.errstate(divide="ignore", invalid="ignore"):  # pT of 0 is refused when jets are checked
        eta_B, eta_T = np.arcsinh(z_B / np.hypot(x_B, y_B)), np.arcsinh(pz / np.hypot(px, py))
    phi_B = np.arctan2(y_B, x_B)
    dphi_T = np.arctan2(py, px) - phi_B[jet_T]
    constituents = {
        "part_px": px,
        "part_py": py,
        "part_pz": pz,
        "part_energy": energy,
        "part_deta": (eta_T - eta_B[jet_T]) * np.where(eta_B > 0, 1, -1)[jet_T],
        "part_dphi": np.arctan2(np.sin(dphi_T), np.cos(dphi_T)),
    }
    jets = {
        "jet_pt": np.hypot(x_B, y_B),
        "jet_eta": eta_B,
        "jet_phi": phi_B,
        "jet_energy": e_B,
        "jet_nparticles": np.asarray(lengths_B, np.float64),
    }
    return assemble(
        path,
        first_entry,
        columns,
        lambda name: (offsets, constituents[name]),
        lambda name: jets[name],
        None if labels_B is None else labels_B.astype(np.uint8),
    )


def check_labels(path: File, first_entry: int, labels_B: Array, n_labels: int) -> None:
    """Check that labels are whole numbers in their range.

    Parameters
    ----------
    path : where the jets come from, for errors
    first_entry : entry number of the first jet
    labels_B : (B,) the labels
    n_labels : labels are below this number

    Raises
    ------
    JetDataError
        A label is out of range.
    """
    bad = np.flatnonzero((labels_B < 0) | (labels_B >= n_labels) | (labels_B != np.floor(labels_B)))
    if len(bad):
        raise JetDataError(
            f"{path}: entry {first_entry + bad[0]}: the label is {labels_B[bad[0]]}, "
            f"outside 0 to {n_labels - 1}"
        )
