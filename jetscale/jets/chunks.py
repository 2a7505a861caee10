"""Jets as the store holds them, for a device that makes inputs of them itself.

A constituent of the paper's inputs has 17 bytes: eight half-precision numbers and an identity. Widened,
standardised and with an int64 identity, as in `jetscale.jets.batch.JetBatch`, it has 40.

Shapes: J jets, T their constituents, F inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RawChunk:
    """J jets with T constituents in all, concatenated in jet order.

    `JetStream.chunk` makes one. `JetStream.batch` has the same jets as inputs of a model: the halves widened
    to float32, standardised, and the column of part_deta multiplied by `side_J`.

    Attributes
    ----------
    x_TF : (T, F) float16, the store's columns
    pid_T : (T,) uint8 identity 1-8, or None for a feature set without an integer identity
    offsets_J1 : (J + 1,) int32, constituents of jet j are rows ``offsets_J1[j]:offsets_J1[j + 1]``
    labels_J : (J,) int32 class index
    side_J : (J,) int8, sign of the jet's eta where part_deta gets its geometric sign back, else 1
    start : position of the first jet
    """

    x_TF: Tensor
    pid_T: Tensor | None
    offsets_J1: Tensor
    labels_J: Tensor
    side_J: Tensor
    start: int

    @classmethod
    def room(
        cls,
        n_jets: int,
        n_constituents: int,
        n_features: int,
        has_pid: bool,
        device: torch.device | str = "cpu",
        pinned: bool = False,
    ) -> RawChunk:
        """Memory for a chunk, its content undefined.

        Parameters
        ----------
        n_jets, n_constituents : J and T of the largest chunk that is to fit
        n_features, has_pid : F, and whether there are identities
        device : where the memory is
        pinned : page-locked, so that a copy to a GPU needs no processor
        """

        def empty(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device, pin_memory=pinned)

        return cls(
            x_TF=empty(n_constituents, n_features, dtype=torch.float16),
            pid_T=empty(n_constituents, dtype=torch.uint8) if has_pid else None,
            offsets_J1=empty(n_jets + 1, dtype=torch.int32),
            labels_J=empty(n_jets, dtype=torch.int32),
            side_J=empty(n_jets, dtype=torch.int8),
            start=0,
        )

    @property
    def n_jets(self) -> int:
        """Number of jets, J."""
        return len(self.labels_J)

    @property
    def n_constituents(self) -> int:
        """Number of constituents, T."""
        return len(self.x_TF)

    def part(self, n_jets: int, n_constituents: int, start: int) -> RawChunk:
        """Views of the first rows, as a chunk.

        Parameters
        ----------
        n_jets, n_constituents : how many, at most as many as there are
        start : position of the first jet
        """
        return RawChunk(
            x_TF=self.x_TF[:n_constituents],
            pid_T=None if self.pid_T is None else self.pid_T[:n_constituents],
            offsets_J1=self.offsets_J1[: n_jets + 1],
            labels_J=self.labels_J[:n_jets],
            side_J=self.side_J[:n_jets],
            start=start,
        )

    def copy_to(self, room: RawChunk) -> RawChunk:
        """Copy to the beginning of other memory, without waiting where both sides allow that.

        Parameters
        ----------
        room : of the same feature set, at least as large

        Returns
        -------
        The copy, views of `room`.
        """
        copy = room.part(self.n_jets, self.n_constituents, self.start)
        pairs = [
            (copy.x_TF, self.x_TF),
            (copy.offsets_J1, self.offsets_J1),
            (copy.labels_J, self.labels_J),
            (copy.side_J, self.side_J),
        ]
        if copy.pid_T is not None and self.pid_T is not None:
            pairs.append((copy.pid_T, self.pid_T))
        for target, source in pairs:
            target.copy_(source, non_blocking=True)
        return copy

    def room_like(self, device: torch.device) -> RawChunk:
        """Memory for a chunk of this size, its content undefined.

        Parameters
        ----------
        device : where the memory is
        """
        n_constituents, n_features = self.x_TF.shape
        return RawChunk.room(self.n_jets, n_constituents, n_features, self.pid_T is not None, device)

    def copied(self, device: torch.device) -> RawChunk:
        """A copy that shares no memory.

        Parameters
        ----------
        device : where to
        """
        return self.copy_to(self.room_like(device))
