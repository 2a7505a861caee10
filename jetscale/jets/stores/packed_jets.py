"""Jets without padding, as numpy arrays and as an Arrow record batch.

Shapes: B jets, T their constituents, F continuous inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jetscale.jets.features import FeatureSet, particle_identity
from jetscale.jets.kernels import copy_columns, copy_runs, to_half
from jetscale.jets.reading.raw import JET_COLUMNS, RawJets, leading_first

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PackedJets:
    """B jets whose constituents are concatenated.

    Attributes
    ----------
    offsets : (B + 1,) constituents of jet b are rows ``offsets[b]:offsets[b + 1]``
    x_TF : (T, F) float16 continuous inputs, contiguous by row, or by column as `pack` leaves them
    pid_T : (T,) uint8 identity 1-8, or None for a feature set without one
    labels : (B,) uint8 label as published
    jets : those of `jetscale.jets.reading.raw.JET_COLUMNS` that the dataset has, each (B,) float32
    """

    offsets: Array
    x_TF: Array
    pid_T: Array | None
    labels: npt.NDArray[np.uint8]
    jets: Mapping[str, npt.NDArray[np.float32]]

    @property
    def n_jets(self) -> int:
        """Number of jets, B."""
        return len(self.labels)

    def slice(self, start: int, stop: int) -> PackedJets:
        """Jets `start` to `stop`, as views.

        Parameters
        ----------
        start, stop : numbers of jets, `stop` exclusive
        """
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        return PackedJets(
            offsets=self.offsets[start : stop + 1] - low,
            x_TF=self.x_TF[low:high],
            pid_T=None if self.pid_T is None else self.pid_T[low:high],
            labels=self.labels[start:stop],
            jets={name: values[start:stop] for name, values in self.jets.items()},
        )

    def record_batch(self, schema: Any, extra: Mapping[str, Array]) -> Any:
        """Arrow record batch of `schema` (see `packed_schema`).

        Parameters
        ----------
        schema : its columns and their types
        extra : further columns by name, each (B,)
        """
        offsets = pa.array(self.offsets.astype(np.int32))
        flat = pa.array(np.ascontiguousarray(self.x_TF).reshape(-1))
        columns: dict[str, Any] = {"label": self.labels, **self.jets, **extra}
        arrays = {name: pa.array(values) for name, values in columns.items()}
        rows = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("x").type.value_type)
        arrays["x"] = pa.ListArray.from_arrays(offsets, rows, type=schema.field("x").type)
        if self.pid_T is not None:
            arrays["pid"] = pa.ListArray.from_arrays(
                offsets, pa.array(self.pid_T), type=schema.field("pid").type
            )
        return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def pack(raw: RawJets, features: FeatureSet) -> PackedJets:
    """Inputs of raw jets in half precision, the leading constituents first.

    Rounding is at most 0.05 % of a value, or 3e-8 where the value is below 6e-5. In pT and E, whose
    logarithms are stored, it is at most 0.2 %, and 0.4 % above 3 TeV. This is far below the detector's
    resolution; tests/jets/test_precision.py shows it.

    Parameters
    ----------
    raw : jets as read
    features : the inputs
    """
    raw = leading_first(raw)
    x_FT = features.compute(raw).T
    half_FT = np.empty(x_FT.shape, np.float16)
    to_half(x_FT.reshape(-1), half_FT.view(np.uint16).reshape(-1))
    return PackedJets(
        offsets=raw.offsets,
        x_TF=half_FT.T,
        pid_T=particle_identity(raw) if features.has_pid else None,
        labels=raw.labels,
        jets={name: raw.jets[name] for name in JET_COLUMNS if name in raw.jets},
    )


class Buffers:
    """Memory for results of `gather`; each overwrites the last, as new memory costs as much as the copy."""

    def __init__(self) -> None:
        self._held: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], kind: type[np.generic]) -> Array:
        """Uninitialised array that is valid until the name is asked for again.

        Parameters
        ----------
        name : of the buffer
        shape : of the array
        kind : type of its items
        """
        size = math.prod(shape)
        if name not in self._held or self._held[name].size < size:
            self._held[name] = np.empty(size + size // 8, kind)
        return self._held[name][:size].reshape(shape)


def gather(pieces: Sequence[PackedJets], rows: Array, buffers: Buffers) -> PackedJets:
    """The jets of these rows, in this order, copied once.

    Parameters
    ----------
    pieces : jets of several sources
    rows : (n,) int64, counted over all `pieces`
    buffers : memory for the result, whose next use overwrites it
    """
    starts = np.cumsum([0, *(piece.n_jets for piece in pieces)])
    lengths = np.concatenate([np.diff(piece.offsets) for piece in pieces])
    offsets = np.concatenate([[0], np.cumsum(lengths[rows], dtype=np.int64)])
    places = np.full(starts[-1], -1)
    places[rows] = offsets[:-1]
    n = int(offsets[-1])
    x_TF = buffers.array("x", (n, pieces[0].x_TF.shape[1]), np.float16)
    pid_T = None if pieces[0].pid_T is None else buffers.array("pid", (n,), np.uint8)
    for piece, start in zip(pieces, starts[:-1], strict=True):
        to = places[start : start + piece.n_jets]
        x, target = piece.x_TF.view(np.uint16), x_TF.view(np.uint16)
        if x.flags.c_contiguous:
            copy_runs(x.reshape(-1), piece.offsets, to, target.reshape(-1), x.shape[1])
        else:
            copy_columns(x.T, piece.offsets, to, target)
        if piece.pid_T is not None and pid_T is not None:
            copy_runs(piece.pid_T, piece.offsets, to, pid_T, 1)
    return PackedJets(
        offsets=offsets,
        x_TF=x_TF,
        pid_T=pid_T,
        labels=np.concatenate([piece.labels for piece in pieces])[rows],
        jets={name: np.concatenate([piece.jets[name] for piece in pieces])[rows] for name in pieces[0].jets},
    )


def packed_schema(
    features: FeatureSet, of_jets: Sequence[str], extra: Mapping[str, Any], metadata: Mapping[str, str]
) -> Any:
    """Arrow schema of packed jets.

    Parameters
    ----------
    features : inputs of the constituents
    of_jets : columns of jets that are kept
    extra : further columns, name to Arrow type
    metadata : of the schema
    """
    fields = [pa.field("label", pa.uint8(), nullable=False)]
    fields += [pa.field(name, pa.float32(), nullable=False) for name in of_jets]
    fields += [pa.field(name, kind, nullable=False) for name, kind in extra.items()]
    row = pa.list_(pa.field("item", pa.float16(), nullable=False), features.n_features)
    fields.append(pa.field("x", pa.list_(pa.field("item", row, nullable=False)), nullable=False))
    if features.has_pid:
        fields.append(pa.field("pid", pa.list_(pa.field("item", pa.uint8(), nullable=False)), nullable=False))
    return pa.schema(fields, metadata=dict(metadata))


def map_batches(path: Path) -> tuple[Any, list[Any]]:
    """Bytes and record batches of an Arrow file, memory-mapped: no column is read before it is touched.

    For files that are known to be good; Arrow may crash on others (see `jetscale.jets.stores.checked`).
    """
    with pa.memory_map(str(path)) as stream:
        whole = stream.read_buffer()
    reader = pa.ipc.open_file(whole)
    return whole, [reader.get_batch(number) for number in range(reader.num_record_batches)]


def view(batch: Any) -> PackedJets:
    """A record batch as numpy arrays that share its memory."""
    x = batch.column("x")
    rows = x.values
    pid = batch.column("pid").values.to_numpy() if "pid" in batch.schema.names else None
    return PackedJets(
        offsets=x.offsets.to_numpy(),
        x_TF=rows.values.to_numpy().reshape(-1, rows.type.list_size),
        pid_T=pid,
        labels=batch.column("label").to_numpy(),
        jets={name: batch.column(name).to_numpy() for name in JET_COLUMNS if name in batch.schema.names},
    )
