"""Positions to batches and chunks: gather from the memory map.

Shapes: B jets, T their constituents, F inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from jetscale.jets.batch import JetBatch
from jetscale.jets.chunks import RawChunk
from jetscale.jets.kernels import gather_runs, unpack
from jetscale.jets.ordering.positions import BLOCK
from jetscale.jets.source import JetSource

Integers = npt.NDArray[np.int64]

_NO_PID = np.empty(0, np.uint8)
_NO_PID.setflags(write=False)  # of the type of a memory map: one compiled version for both


@dataclass(frozen=True)
class _Places:
    """Where the constituents of some jets are, and the jets' classes."""

    part_B: Integers
    start_B: Integers
    length_B: Integers
    class_B: Integers
    side_B: Integers

    def __getitem__(self, chosen: slice) -> _Places:
        return _Places(*(values[chosen] for values in self._columns()))

    def _columns(self) -> tuple[Integers, ...]:
        return self.part_B, self.start_B, self.length_B, self.class_B, self.side_B

    def followed_by(self, others: Sequence[_Places]) -> _Places:
        """These jets, then those of `others`."""
        return _Places(*map(np.concatenate, zip(*(some._columns() for some in (self, *others)), strict=True)))


class JetStream:
    """Batches and chunks of any range of positions; one thread at a time may use it.

    Parameters
    ----------
    source : the jets, and how they become inputs

    Attributes
    ----------
    max_constituents : constituents kept per jet, the leading ones in pT
    """

    def __init__(self, source: JetSource) -> None:
        features, max_constituents = source.features, source.max_constituents
        self._store = source.store
        self._order = source.order
        self._class_of_label = np.array(source.labels.class_of_label)
        self.max_constituents = max_constituents
        self._n_features = features.n_features
        self._has_pid = features.has_pid
        self._centre = np.tile(np.array(features.centre, np.float32), max_constituents)
        self._scale = np.tile(1 / np.array(features.spread, np.float32), max_constituents)
        self._deta_column = features.deta_column if source.undo_deta_flip else None
        self._blocks: dict[int, _Places] = {}

    def batch(self, start: int, stop: int) -> JetBatch:
        """Jets at positions `start` to `stop` (exclusive), a pure function of the two numbers.

        Parameters
        ----------
        start, stop : positions, `stop` exclusive
        """
        jets = self._places(start, stop)
        x_TF, pid_T = self._gather(jets)
        if self._deta_column is not None:
            side_T = np.repeat(jets.side_B.astype(np.float32), jets.length_B)
            x_TF[:, self._deta_column] *= torch.from_numpy(side_T)
        return JetBatch(
            x_TF=x_TF,
            pid_T=pid_T,
            lengths_B=torch.from_numpy(jets.length_B),
            labels_B=torch.from_numpy(jets.class_B),
            positions_B=torch.arange(start, stop),
        )

    def chunk(self, start: int, stop: int, room: RawChunk | None = None) -> RawChunk:
        """The jets of `batch` as the store holds them.

        Parameters
        ----------
        start, stop : positions, `stop` exclusive
        room : memory on the CPU for `stop` - `start` jets of `max_constituents` constituents each; None for
            new memory of the right size

        Returns
        -------
        The jets, views of `room` where it is given.
        """
        jets = self._places(start, stop)
        ends_J = np.cumsum(jets.length_B)
        if room is None:
            room = self.room(stop - start, int(ends_J[-1]))
        chunk = room.part(stop - start, int(ends_J[-1]), start)
        chunk.offsets_J1.numpy()[0] = 0
        chunk.offsets_J1.numpy()[1:] = ends_J
        chunk.labels_J.numpy()[:] = jets.class_B
        chunk.side_J.numpy()[:] = jets.side_B
        self._copy_constituents(jets, ends_J - jets.length_B, chunk)
        return chunk

    def room(self, n_jets: int, n_constituents: int | None = None, pinned: bool = False) -> RawChunk:
        """Memory on the CPU for chunks of this stream.

        Parameters
        ----------
        n_jets : of the largest chunk
        n_constituents : of the largest chunk; None for the most that its jets can have
        pinned : page-locked
        """
        most = n_jets * self.max_constituents if n_constituents is None else n_constituents
        return RawChunk.room(n_jets, most, self._n_features, self._has_pid, pinned=pinned)

    def lengths(self, start: int, stop: int) -> Integers:
        """Constituents of the jets of `batch`, (B,), without reading them.

        Parameters
        ----------
        start, stop : positions, `stop` exclusive
        """
        return self._places(start, stop).length_B

    def _places(self, start: int, stop: int) -> _Places:
        first, *others = [
            self._block(number)[max(start - number * BLOCK, 0) : stop - number * BLOCK]
            for number in range(start // BLOCK, -(-stop // BLOCK))
        ]
        return first.followed_by(others)

    def _copy_constituents(self, jets: _Places, first_J: Integers, chunk: RawChunk) -> None:
        """Halves and identities of the jets, from the memory map; those of jet j to row ``first_J[j]``."""
        x = chunk.x_TF.numpy().view(np.uint16).reshape(-1)
        for number in set(jets.part_B.tolist()):
            here = np.flatnonzero(jets.part_B == number)
            start_B, length_B, first_B = jets.start_B[here], jets.length_B[here], first_J[here]
            part_x_TF, part_pid_T = self._store.part(number).constituents(start_B, start_B + length_B)
            halves = part_x_TF.view(np.uint16).reshape(-1)
            gather_runs(halves, start_B, length_B, first_B, self._n_features, x)
            if chunk.pid_T is not None:
                gather_runs(part_pid_T, start_B, length_B, first_B, 1, chunk.pid_T.numpy())

    def _gather(self, jets: _Places) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Standardised constituents of the jets, and their identities, straight from the memory map."""
        ends = np.cumsum(jets.length_B)
        x_TF = np.empty((ends[-1], self._n_features), np.float32)
        pid_T = np.empty(ends[-1] if self._has_pid else 0, np.int64)
        first_B = ends - jets.length_B
        for number in set(jets.part_B.tolist()):
            here = np.flatnonzero(jets.part_B == number)
            start_B, length_B = jets.start_B[here], jets.length_B[here]
            part_x_TF, part_pid_T = self._store.part(number).constituents(start_B, start_B + length_B)
            unpack(
                part_x_TF.view(np.uint16).reshape(-1),
                _NO_PID if part_pid_T is None else part_pid_T,
                start_B,
                length_B,
                first_B[here],
                self._n_features,
                self._centre,
                self._scale,
                x_TF.reshape(-1),
                pid_T,
            )
        return torch.from_numpy(x_TF), torch.from_numpy(pid_T) if self._has_pid else None

    def _block(self, number: int) -> _Places:
        if number not in self._blocks:
            while len(self._blocks) > 1:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[number] = self._locate(number)
        return self._blocks[number]

    def _locate(self, block: int) -> _Places:
        part_B, row_B = self._order.block(block)
        start_B, stop_B, label_B = np.empty_like(row_B), np.empty_like(row_B), np.empty_like(row_B)
        side_B = np.ones_like(row_B)
        for number in set(part_B.tolist()):
            here = np.flatnonzero(part_B == number)
            part, rows = self._store.part(number), row_B[here]
            start_B[here], stop_B[here] = part.bounds(rows)
            label_B[here] = part.labels(rows)
            if self._deta_column is not None:
                side_B[here] = np.where(part.column("jet_eta", rows) > 0, 1, -1)
        length_B = np.minimum(stop_B - start_B, self.max_constituents)
        return _Places(part_B, start_B, length_B, self._class_of_label[label_B], side_B)
