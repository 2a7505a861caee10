"""Arrow files of which no byte is used before it was compared with its checksum, and their records.

`describe` makes the record of a whole file, `ArrowFile` reads the file by its record. Checksums are XXH3-64
of blocks of `BLOCK` bytes, so that a few jets of a large file cost a few blocks. Bytes to verify are read,
not touched through the mapping: a file that was cut off, or a disk that fails, is then an error and not a
signal that ends the process. Arrow itself crashes on a damaged schema or footer, so it sees them last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from jetscale.common.files import DamagedFile, read_sealed, write_sealed
from jetscale.jets.errors import JetDataError
from jetscale.jets.stores.packed_jets import Array, PackedJets, map_batches

BLOCK = 1 << 18
"""Bytes of a checksum: stays in the core's own cache between read and hash (20 GB/s), and is of the order of
what a disk reads ahead anyway. A store of 100M jets has 300,000 of them, 5 MB of its ``store.json``."""
SUMS = "xxh3_64"
"""Key of the checksums in a record: 16 hex digits for each block of the file."""

RECORDS = "records"
"""Folder of the records of an unfinished build. A file counts as made when its record is there too; one that
was damaged while the build was interrupted is made again."""
REMEDY = "start again, what is damaged is made again"

Integers = npt.NDArray[np.int64]

log = logging.getLogger(__name__)


def describe(path: Path) -> dict[str, Any]:
    """Record of a file that was just written.

    Returns
    -------
    ``file``, its name; ``size``, in bytes; ``bodies``, for each record batch the first byte of its columns
    and the one behind the last; and `SUMS`.
    """
    whole, batches = map_batches(path)
    bodies = [_body(batch, whole.address) for batch in batches]
    n_blocks = _n_blocks(whole.size)
    sums = np.fromiter((found for _, found in _checksums(path, range(n_blocks))), ">u8", n_blocks)
    return {"file": path.name, "size": whole.size, "bodies": bodies, SUMS: sums.tobytes().hex()}


def _body(batch: Any, address: int) -> list[int]:
    """Where the buffers of a batch lie: on opening, Arrow reads what is outside and nothing inside."""
    buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer and buffer.size]
    starts = [buffer.address - address for buffer in buffers]
    stops = [buffer.address - address + buffer.size for buffer in buffers]
    return [min(starts, default=0), max(stops, default=0)]


def _n_blocks(size: int) -> int:
    return -(-size // BLOCK)


def _checksums(path: Path, blocks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Numbers and checksums of these blocks, as far as the file goes."""
    room = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as stream:
        for number in blocks:
            stream.seek(number * BLOCK)
            filled = 0
            while filled < BLOCK and (count := stream.readinto(room[filled:])):  # a network may give less
                filled += count
            yield number, xxhash.xxh3_64_intdigest(room[:filled])


class ArrowFile:
    """Record batches of an Arrow file, memory-mapped; who uses a column verifies it first, whole or in part.

    Attributes
    ----------
    batches : the record batches, whose columns nothing has verified yet

    Parameters
    ----------
    record : see `describe`
    remedy : how to repair a damaged file, the end of every message

    Raises
    ------
    JetDataError
        The file is missing, has another size, or is damaged outside the columns.
    """

    def __init__(self, path: Path, record: Mapping[str, Any], remedy: str) -> None:
        self._path, self._remedy = path, remedy
        self._size = int(record["size"])
        self._sums = np.frombuffer(bytes.fromhex(record[SUMS]), ">u8")
        self._good = np.zeros(_n_blocks(self._size), np.bool_)
        if problem := wrong_size(path, self._size, remedy):
            raise JetDataError(problem)
        edges = [0, *(edge for body in record["bodies"] for edge in body), self._size]
        self.verify_spans(np.array(edges[::2]), np.array(edges[1::2]))
        whole, self.batches = map_batches(path)
        self._address = whole.address

    def verify(self, *columns: Array) -> None:
        """Verify the bytes of contiguous `columns`, views into the file.

        Raises
        ------
        JetDataError
            They are not those that were written.
        """
        starts = np.array([self.place(column) for column in columns])
        self.verify_spans(starts, starts + [column.nbytes for column in columns])

    def verify_jets(self, jets: PackedJets, start: int, stop: int) -> None:
        """Verify all columns of jets `start` to `stop` of a batch; see `verify`.

        Parameters
        ----------
        jets : a batch, views into the file
        start, stop : numbers of jets, `stop` exclusive
        """
        offsets = jets.offsets[start : stop + 1]
        self.verify(offsets)
        low, high = int(offsets[0]), int(offsets[-1])
        columns = [jets.x_TF[low:high], jets.labels[start:stop]]
        columns += [values[start:stop] for values in jets.jets.values()]
        columns += [] if jets.pid_T is None else [jets.pid_T[low:high]]
        self.verify(*columns)

    def verify_all(self) -> None:
        """Verify every byte of the file; see `verify`."""
        self.verify_spans(np.array([0]), np.array([self._size]))

    def place(self, column: Array) -> int:
        """First byte of a column in the file."""
        place: int = column.__array_interface__["data"][0] - self._address
        return place

    def is_verified(self, start: int, stop: int) -> bool:
        """Whether all bytes `start` to `stop` of the file were verified.

        Parameters
        ----------
        start, stop : first byte, and the one behind the last
        """
        return bool(self._good[start // BLOCK : _n_blocks(stop)].all())

    def verify_spans(self, starts: Integers, stops: Integers) -> None:
        """Verify the blocks that bytes ``starts[i]:stops[i]`` of the file lie in, each once.

        Of each block that is first of a span one is added, of each behind the last one is taken away: the
        running sum counts the spans over a block.

        Parameters
        ----------
        starts, stops : (n,) int64, first byte of each span, and the one behind its last
        """
        filled = stops > starts
        first, behind = starts[filled] // BLOCK, -(-stops[filled] // BLOCK)
        n = len(self._good)
        opened = np.bincount(first, minlength=n + 1) - np.bincount(behind, minlength=n + 1)
        wanted = np.flatnonzero((np.cumsum(opened[:n]) > 0) & ~self._good)
        if len(wanted):
            self._compare(wanted)

    def _compare(self, blocks: Integers) -> None:
        try:
            for number, found in _checksums(self._path, blocks.tolist()):
                expected = int(self._sums[number])
                if found != expected:
                    last = min((number + 1) * BLOCK, self._size)
                    raise JetDataError(
                        f"{self._path}: damaged, checksum {found:016x} of bytes {number * BLOCK} to {last} "
                        f"instead of {expected:016x}; {self._remedy}"
                    )
                self._good[number] = True
        except OSError as error:
            raise JetDataError(f"{self._path}: cannot be read ({error.strerror}); {self._remedy}") from error


class Column:
    """A column of an `ArrowFile` of which rows are verified as they are used.

    Parameters
    ----------
    values : view into the file, contiguous; the first axis are the rows
    """

    def __init__(self, file: ArrowFile, values: Array) -> None:
        self._file = file
        self._values = values
        self._start, self._width = file.place(values), values.strides[0]
        self._whole = False

    def ranges(self, starts: Integers, stops: Integers) -> Array:
        """The column, of which rows ``starts[i]:stops[i]`` are verified.

        Parameters
        ----------
        starts, stops : (n,) int64, first row of each range, and the one behind its last

        Raises
        ------
        JetDataError
            They are not those that were written.
        """
        if not self._whole:
            self._file.verify_spans(self._start + starts * self._width, self._start + stops * self._width)
            self._whole = self._file.is_verified(self._start, self._start + self._values.nbytes)
        return self._values

    def rows(self, rows: Integers) -> Array:
        """Values of these rows, verified; see `ranges`."""
        found: Array = self.ranges(rows, rows + 1)[rows]
        return found

    def all(self) -> Array:
        """The column, all of it verified; see `ranges`."""
        return self.ranges(np.array([0]), np.array([len(self._values)]))


def wrong_size(path: Path, size: int, remedy: str) -> str | None:
    """Message for a file that is missing or has another size; None where it has this one.

    Parameters
    ----------
    path : the file
    size : in bytes, as recorded
    remedy : how to repair what it belongs to
    """
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return f"{path}: the part is missing; {remedy}"
    return None if found == size else f"{path}: the part has {found} bytes instead of {size}; {remedy}"


def keep_record(folder: Path, name: str, record: dict[str, Any]) -> None:
    """Keep the record of a file of a build.

    Parameters
    ----------
    folder : of the build
    name : of the file
    record : made by `describe`
    """
    write_sealed(_place(folder, name), record)


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """Record of a file.

    Parameters
    ----------
    folder : of the build
    name : of the file

    Raises
    ------
    JetDataError
        It is missing or damaged.
    """
    try:
        return read_sealed(_place(folder, name))
    except (DamagedFile, FileNotFoundError) as error:
        raise JetDataError(f"{error}; {REMEDY}") from error


def whole_record(folder: Path, path: Path) -> dict[str, Any] | None:
    """Record of a file of a build, if each of its bytes is as it was written; else None.

    Parameters
    ----------
    folder : of the build
    path : the file
    """
    if not (path.exists() and _place(folder, path.name).exists()):
        return None
    try:
        record = read_record(folder, path.name)
        ArrowFile(path, record, REMEDY).verify_all()
    except JetDataError as error:
        log.warning("left by an interrupted build: %s", error)
        return None
    return record


def _place(folder: Path, name: str) -> Path:
    return folder / RECORDS / f"{name}.json"
