"""The jets of a chunk, in the memory that the graphs read."""

from __future__ import annotations

import numpy as np
import torch

from jetscale.jets.chunks import RawChunk
from jetscale.jets.source import JetSource
from jetscale.model.kernels.gpu.buffers import JetBuffers


class ChunkMemory:
    """Room for the jets of one chunk at fixed addresses, and what a step needs to make inputs of them.

    Parameters
    ----------
    source : whose jets come; decides columns and standardisation
    most_jets : of a chunk
    device : where to

    Attributes
    ----------
    buffers : what the kernels read
    n_jets : jets that it has room for
    max_constituents : of a jet
    """

    def __init__(self, source: JetSource, most_jets: int, device: torch.device) -> None:
        features = source.features
        spread = np.array(features.spread, np.float32)
        self.n_jets, self.max_constituents = most_jets, source.max_constituents
        self.buffers = JetBuffers.allocate(
            most_jets * source.max_constituents,
            most_jets,
            torch.tensor(features.centre, dtype=torch.float32),
            torch.from_numpy(1 / spread),  # as `jetscale.jets.stream`: the same inputs to the last bit
            device,
            deta_column=features.deta_column if source.undo_deta_flip else -1,
        )
        self._room = RawChunk(
            x_TF=self.buffers.x,
            pid_T=self.buffers.pid if features.has_pid else None,
            offsets_J1=self.buffers.offsets,
            labels_J=self.buffers.labels,
            side_J=self.buffers.side,
            start=0,
        )

    def load(self, chunk: RawChunk, batch_size: int) -> None:
        """Make a chunk the present one; its first batch comes next.

        Parameters
        ----------
        chunk : on the device, at most as many jets as there is room for
        batch_size : where the last batch has fewer jets, empty ones of class 0 fill it up
        """
        chunk.copy_to(self._room)
        if missing := -chunk.n_jets % batch_size:
            behind = slice(chunk.n_jets, chunk.n_jets + missing)
            self.buffers.offsets[behind.start + 1 : behind.stop + 1] = chunk.n_constituents
            self.buffers.labels[behind] = 0
        self.buffers.first.zero_()
