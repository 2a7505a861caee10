"""Array types of this room, and small functions on lists and angles.

Shape suffixes used throughout: E events of a batch, P particles of all its events concatenated, H stable
particles that reach the detector, T tracks, O energy-flow objects, J jets, C constituents of all jets.
"""

from __future__ import annotations

import awkward as ak
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def offsets(counts: npt.NDArray[np.integer]) -> Ints:
    """Start of each list in a concatenation.

    Parameters
    ----------
    counts : (n,) lengths of the lists

    Returns
    -------
    (n + 1,) int64: the start of each list, and the end of the last one.
    """
    out = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out


def ranges(first: Ints, counts: Ints) -> Ints:
    """Concatenate ``arange(first[i], first[i] + counts[i])`` over i.

    Parameters
    ----------
    first : (n,) first number of each range
    counts : (n,) length of each range

    Returns
    -------
    (sum of counts,) int64.
    """
    starts = offsets(counts)
    return np.arange(starts[-1]) + np.repeat(first - starts[:-1], counts)


def jagged(starts: Ints, **fields: Floats) -> ak.Array:
    """Lists of records, in the layout of FastJet's batch interface.

    Parameters
    ----------
    starts : (n + 1,) start of each list, and the end of the last one
    fields : arrays of the concatenated records, by field name

    Returns
    -------
    n lists of records with these fields.
    """
    content = ak.contents.RecordArray(
        [ak.contents.NumpyArray(values) for values in fields.values()], list(fields)
    )
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(starts), content))


def wrap(angle: Floats) -> Floats:
    """Bring angles to [-pi, pi).

    Parameters
    ----------
    angle : rad, any shape

    Returns
    -------
    The same angles modulo 2 pi, rad.
    """
    return (angle + np.pi) % (2 * np.pi) - np.pi


def delta_r(eta1: Floats, phi1: Floats, eta2: Floats, phi2: Floats) -> Floats:
    """Distance in the plane of pseudorapidity and azimuth.

    Parameters
    ----------
    eta1, phi1 : pseudorapidity and azimuth (rad) of the first directions
    eta2, phi2 : those of the second directions, of a shape that broadcasts with the first

    Returns
    -------
    sqrt(deta^2 + dphi^2), without unit.
    """
    return np.hypot(eta1 - eta2, wrap(phi1 - phi2))


def pseudorapidity(pt: Floats, pz: Floats) -> Floats:
    """Pseudorapidity asinh(pz / pT).

    Parameters
    ----------
    pt, pz : transverse and longitudinal momentum, in the same unit

    Returns
    -------
    Pseudorapidity; +-infinity along the beam.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.arcsinh(pz / pt)
