"""Compiled loops of `prepare` and of the stream of batches."""

# numba compiles these for the types that they are called with
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from jetscale.common.compiled import compiled as kernel


@kernel
def copy_runs(source, offsets, places, target, width):
    """Copy run b, rows ``offsets[b]:offsets[b + 1]`` of `width` items, to `target` from row ``places[b]`` on.

    A run whose place is negative is left out.

    Parameters
    ----------
    source : (n,) items
    offsets : (B + 1,) rows of each run in `source`
    places : (B,) first row of each run in `target`, or negative
    target : (m,) items, written to
    width : items in a row
    """
    for b in range(len(places)):
        if places[b] >= 0:
            start = np.uint64(offsets[b] * width)
            place = np.uint64(places[b] * width)
            for k in range(
                np.uint64(offsets[b + 1] * width) - start
            ):  # with signed indices it is 5 times slower
                target[place + k] = source[start + k]


@kernel
def gather_runs(source, starts, lengths, places, width, target):
    """Copy run b, `lengths[b]` rows of `width` items from row ``starts[b]`` on, to row ``places[b]`` on.

    Parameters
    ----------
    source : (n,) items
    starts, lengths : (B,) rows of each run in `source`
    places : (B,) first row of each run in `target`
    width : items in a row
    target : (m,) items, written to
    """
    for b in range(len(starts)):
        start, place = np.uint64(starts[b] * width), np.uint64(places[b] * width)
        for k in range(np.uint64(lengths[b] * width)):
            target[place + k] = source[start + k]


@kernel
def copy_columns(source_FT, offsets, places, target_TF):
    """`copy_runs` from columns to rows: the transposition needs no pass over memory beside the copy.

    Parameters
    ----------
    source_FT : (F, T) columns
    offsets : (B + 1,) constituents of each run in `source_FT`
    places : (B,) first row of each run in `target_TF`, or negative
    target_TF : (n, F) rows, written to
    """
    for b in range(len(places)):
        if places[b] >= 0:
            rows = source_FT[:, offsets[b] : offsets[b + 1]]
            target = target_TF[places[b] : places[b] + rows.shape[1]]
            for f in range(rows.shape[0]):
                for t in range(rows.shape[1]):
                    target[t, f] = rows[f, t]


@intrinsic
def _half_bits(_, value):
    """float32 to float16, rounded to nearest even, as its 16 bits: one instruction (F16C, or any ARM)."""

    def generate(_, builder, __, arguments):
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(value), generate


@kernel
def to_half(values, target):
    """Round float32 to float16, given as uint16 bits.

    Parameters
    ----------
    values : (n,) float32
    target : (n,) uint16, written to
    """
    for i in range(len(values)):
        target[i] = _half_bits(values[i])


@intrinsic
def _single(_, bits):
    """The float32 that 16 bits of a float16 stand for."""

    def generate(_, builder, __, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(bits), generate


@kernel
def unpack(source, pid, starts, lengths, places, width, centre, scale, target, pid_target):
    """Rows of `width` halves of each jet, standardised to float32, and its identities, if there are any.

    `centre` and `scale` cover the longest jet, so that the loop has no inner one.

    Parameters
    ----------
    source : (T * width,) uint16, bits of float16
    pid : (T,) uint8 identities; empty without
    starts, lengths : (B,) constituents of each jet in `source`
    places : (B,) first constituent of each jet in `target`
    width : inputs of a constituent
    centre, scale : (width * longest jet,) float32
    target : (n * width,) float32, written to
    pid_target : (n,) int64, written to; empty without
    """
    for b in range(len(starts)):
        start, place = np.uint64(starts[b] * width), np.uint64(places[b] * width)
        for k in range(np.uint64(lengths[b] * width)):
            target[place + k] = (_single(source[start + k]) - centre[k]) * scale[k]
        if len(pid):
            start, place = np.uint64(starts[b]), np.uint64(places[b])
            for k in range(np.uint64(lengths[b])):
                pid_target[place + k] = pid[start + k]


@kernel
def transverse(px, py, pt):
    """sqrt(px^2 + py^2) in one pass.

    Parameters
    ----------
    px, py : (T,) float32
    pt : (T,) float32, written to
    """
    for i in range(len(pt)):
        pt[i] = np.sqrt(px[i] * px[i] + py[i] * py[i])


@kernel
def all_within(bits, limit):
    """Whether every float32 is a number of at most this size; values and limit are given as uint32 bits.

    Parameters
    ----------
    bits : (n,) uint32, bits of float32
    limit : bits of the largest size
    """
    bad = np.uint32(0)
    for i in range(len(bits)):
        bad |= np.uint32((bits[i] & np.uint32(0x7FFFFFFF)) > limit)
    return bad == 0


@kernel
def pt_rises(px, py, slack, rises):
    """Whether pT squared rises by more than the factor `slack` from each constituent to the next.

    Parameters
    ----------
    px, py : (T,) float32, GeV
    slack : factor of pT squared that is no rise
    rises : (T - 1,) bool, written to
    """
    for i in range(np.uint64(len(rises))):
        j = i + np.uint64(1)
        x, y, u, v = np.float64(px[i]), np.float64(py[i]), np.float64(px[j]), np.float64(py[j])
        rises[i] = u * u + v * v > (x * x + y * y) * slack


@kernel
def first_below_pt(px, py, energy, share):
    """Index of the first constituent whose energy is below this share of its pT; -1 if there is none.

    Parameters
    ----------
    px, py, energy : (T,) float32, GeV
    share : of pT
    """
    limit, found = share * share, False
    for i in range(len(px)):
        found |= energy[i] * energy[i] < (px[i] * px[i] + py[i] * py[i]) * limit
    if found:
        for i in range(len(px)):
            if energy[i] * energy[i] < (px[i] * px[i] + py[i] * py[i]) * limit:
                return i
    return -1


@kernel
def all_possible(px, py, energy, charge, photon, electron, muon):
    """Whether every constituent has an energy, a pT, a charge of -1, 0 or 1, and flags that fit it.

    Parameters
    ----------
    px, py, energy : (T,) float32, GeV
    charge : (T,) float32
    photon, electron, muon : (T,) bool
    """
    bad = False
    for i in range(len(px)):
        q, lepton = charge[i], electron[i] + muon[i]
        bad |= not energy[i] > 0
        bad |= (px[i] == 0) & (py[i] == 0)
        bad |= (q != 0) & (q != 1) & (q != -1)
        bad |= photon[i] + lepton > 1
        bad |= (lepton > 0) & (q == 0)
        bad |= (photon[i] > 0) & (q != 0)
    return not bad


@kernel
def identities(charge, photon, electron, muon, first, pid):
    """Fill in identities; `first` are those of h-, neutral hadron, electron-, muon-, in this order.

    Parameters
    ----------
    charge : (T,) float32
    photon, electron, muon : (T,) bool
    first : four identities, see above
    pid : (T,) uint8, written to
    """
    hadron, neutral, light, heavy = first
    for i in range(len(pid)):
        q = charge[i]
        charged = hadron + (light - hadron) * electron[i] + (heavy - hadron) * muon[i] + (q > 0)
        pid[i] = charged if q != 0 else neutral + photon[i]
