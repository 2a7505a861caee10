"""Branches of numbers of a TTree, basket by basket, without what uproot spends on generality.

uproot finds the branches and their baskets. Plain baskets, uncompressed or LZ4, are decoded here: a third of
uproot's time, which goes into objects per basket and fresh memory. All others are left to uproot.
Layout: root-project/root:tree/tree/src/TBasket.cxx and core/zip/src/RZip.cxx.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import awkward as ak
import cramjam
import numpy as np
import numpy.typing as npt
import uproot
import xxhash

from jetscale.jets.kernels import copy_runs, swap_bytes, to_flags

Array = npt.NDArray[Any]
_KEY = struct.Struct(">ihiIhh")  # fNbytes, version, fObjlen, fDatime, fKeylen, fCycle
_BASKET = struct.Struct(">Hiiiib")  # version, fBufferSize, fNevBufSize, fNevBuf, fLast, flag; ends the key
_BLOCK = 9  # bytes before a compressed block, then 8 of checksum

_NO_OFFSETS = np.empty(0, np.int64)

Known = dict[tuple[int, int], tuple[Array, Array]]
"""By header and item size: byte positions of the lists in the last basket, and their offsets. The next branch
has mostly the same."""


@dataclass(frozen=True)
class Basket:
    """Decoded entries.

    Attributes
    ----------
    values : numbers, in the machine's byte order
    offsets : entry b holds ``values[offsets[b]:offsets[b + 1]]``; None where each entry is one number
    """

    values: Array
    offsets: Array | None


class NumberBranch:
    """A branch of numbers, one per entry or a list of them, read forwards.

    Parameters
    ----------
    branch : uproot's TBranch
    stream : the open file, unbuffered
    known : shared by the branches of a tree
    is_flag : give integers as bool, where each is 0 or 1; a basket with another value comes as it is
    """

    def __init__(self, branch: Any, stream: BinaryIO, known: Known, is_flag: bool) -> None:
        interpretation = branch.interpretation
        self.typename: str = branch.typename
        self.is_list = isinstance(interpretation, uproot.AsJagged)
        content = interpretation.content if self.is_list else interpretation
        plain = isinstance(content, uproot.AsDtype) and content.inner_shape == ()
        self.is_numeric: bool = plain and content.from_dtype.kind in "biuf"
        if self.is_numeric:
            self._dtype: Any = content.from_dtype
            self._is_flag = self._dtype.kind == "b" or (is_flag and self._dtype.kind in "iu")
            self._header: int = interpretation.header_bytes if self.is_list else 0
            self._branch = branch
            self._known = known
            self._stream = stream
            self._starts = np.asarray(branch.entry_offsets)
            self.n_entries = int(branch.num_entries)
            self._seeks = branch.member("fBasketSeek")
            self._sizes = branch.member("fBasketBytes")
            self._number = -1
            self._basket: Basket | None = None

    def read(self, start: int, stop: int) -> tuple[Array, Array]:
        """Values of entries `start` to `stop`, and their offsets from 0 (empty for one number per entry)."""
        values: list[Array] = []
        offsets_of: list[Array] = []
        number = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            basket = self._decoded(number)
            low = start - int(self._starts[number])
            high = min(stop, int(self._starts[number + 1])) - int(self._starts[number])
            if basket.offsets is None:
                values.append(basket.values[low:high])
            else:
                offsets = basket.offsets[low : high + 1]
                values.append(basket.values[offsets[0] : offsets[-1]])
                offsets_of.append(offsets - offsets[0] if low else offsets)
            start += high - low
            number += 1
        return _joined(values, offsets_of)

    def _decoded(self, number: int) -> Basket:
        if number != self._number or self._basket is None:
            n_entries = int(self._starts[number + 1] - self._starts[number])
            self._basket = self._decode(number, n_entries) or self._by_uproot(number)
            self._number = number
        return self._basket

    def _decode(self, number: int, n_entries: int) -> Basket | None:
        """A plain basket; None for one that is not."""
        if number >= len(self._seeks) or self._seeks[number] == 0:
            return None  # embedded in the tree's own metadata
        self._stream.seek(int(self._seeks[number]))
        raw = self._stream.read(int(self._sizes[number]))
        n_bytes, _, n_unpacked, _, n_key, _ = _KEY.unpack_from(raw)
        *_, n_entries_here, last, _ = _BASKET.unpack_from(raw, n_key - _BASKET.size)
        if n_bytes != len(raw) or n_entries_here != n_entries:
            raise ValueError(f"basket {number} of {self._branch.name} is not where the tree says")
        content = _unpacked(raw, n_key, n_unpacked)
        if content is None:
            return None
        border = last - n_key
        if not self.is_list:
            return Basket(self._native(content[:border]), None)
        if border == n_unpacked:
            return None  # counts are in another branch
        ends = content[border:].view(">i4")[1:] - np.int32(n_key)
        ends[-1] = border
        if len(ends) != n_entries + 1:
            raise ValueError(f"basket {number} of {self._branch.name} has offsets of {len(ends) - 1} entries")
        return self._lists(content[:border], ends)

    def _lists(self, content: Array, bounds: Array) -> Basket:
        """Lists that may each start with `_header` bytes that belong to no number."""
        known = self._known.get((self._header, self._dtype.itemsize))
        if known is None or not np.array_equal(known[0], bounds):
            known = bounds, self._offsets(bounds)
            self._known[self._header, self._dtype.itemsize] = known
        offsets = known[1]
        if self._header:
            packed = np.empty(offsets[-1] * self._dtype.itemsize, np.uint8)
            copy_runs(content, bounds, offsets[:-1] * self._dtype.itemsize, packed, 1, self._header)
            content = packed
        return Basket(self._native(content), offsets)

    def _offsets(self, bounds: Array) -> Array:
        """From byte positions to positions of numbers."""
        lengths = np.diff(bounds) - self._header
        if bounds[0] != 0 or (lengths < 0).any() or (lengths % self._dtype.itemsize).any():
            raise ValueError(f"damaged offsets in {self._branch.name}")
        return np.concatenate([[0], np.cumsum(lengths // self._dtype.itemsize, dtype=np.int64)])

    def _native(self, content: Array) -> Array:
        values = content.view(self._dtype)
        if self._is_flag:
            flags = np.empty(len(values), np.bool_)
            words = values.view(f"u{values.itemsize}")  # in whatever byte order
            if to_flags(words, np.ones(1, self._dtype).view(words.dtype)[0], flags):
                return flags
            if self._dtype.kind == "b":
                numbers: Array = words
                return numbers
        kind = values.dtype.newbyteorder("=")
        if values.dtype.isnative or values.itemsize != 4:
            native: Array = values.astype(kind, copy=False)
            return native
        words = np.empty(len(values), np.uint32)
        swap_bytes(values.view(np.uint32), words)
        return words.view(kind)

    def _by_uproot(self, number: int) -> Basket:
        low, high = int(self._starts[number]), int(self._starts[number + 1])
        layout = ak.to_layout(self._branch.array(entry_start=low, entry_stop=high, library="ak"))
        if not self.is_list:
            return Basket(np.asarray(layout.data), None)
        packed = layout.to_ListOffsetArray64(True)
        offsets = np.asarray(packed.offsets.data)
        return Basket(np.asarray(packed.content.data)[: offsets[-1]], offsets)


def _joined(values: list[Array], offsets: list[Array]) -> tuple[Array, Array]:
    """One array of each; the values of a single basket stay where they are."""
    if len(values) == 1:
        return values[0], offsets[0] if offsets else _NO_OFFSETS
    whole = np.concatenate(values)
    if not offsets:
        return whole, _NO_OFFSETS
    lengths = np.concatenate([np.diff(piece) for piece in offsets])
    return whole, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _unpacked(raw: bytes, n_key: int, n_unpacked: int) -> Array | None:
    """Content of a basket; None if it is compressed by anything but LZ4."""
    if len(raw) - n_key == n_unpacked:
        return np.frombuffer(raw, np.uint8, offset=n_key)
    content = np.empty(n_unpacked, np.uint8)
    at, filled = n_key, 0
    while at < len(raw):
        if raw[at : at + 2] != b"L4":
            return None
        size = int.from_bytes(raw[at + 3 : at + 6], "little")
        unpacked = int.from_bytes(raw[at + 6 : at + _BLOCK], "little")
        checksum = int.from_bytes(raw[at + _BLOCK : at + _BLOCK + 8], "big")
        block = memoryview(raw)[at + _BLOCK + 8 : at + _BLOCK + size]
        if xxhash.xxh64_intdigest(block) != checksum:
            raise ValueError("the checksum of a compressed block does not fit")
        into: Any = content[filled : filled + unpacked]
        cramjam.lz4.decompress_block_into(block, into, output_len=unpacked)
        at += _BLOCK + size
        filled += unpacked
    if filled != n_unpacked:
        raise ValueError(f"a basket holds {filled} of {n_unpacked} bytes")
    return content
