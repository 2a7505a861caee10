"""The one thing that leaves `jets`: a batch of jets without padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class JetBatch:
    """B jets with T constituents in all, concatenated in jet order.

    Attributes
    ----------
    x_TF : (T, F) float32, continuous inputs of each constituent (8 columns for the paper's set)
    pid_T : (T,) int64 particle identity 1-8, or None for a feature set without an integer identity
    lengths_B : (B,) int64 constituents per jet, always on the CPU (attention is planned there); every one > 0
    labels_B : (B,) int64 class index
    positions_B : (B,) int64 on the CPU, position of each jet in its stream (training) or split (evaluation)
    """

    x_TF: Tensor
    pid_T: Tensor | None
    lengths_B: Tensor
    labels_B: Tensor
    positions_B: Tensor

    @property
    def n_jets(self) -> int:
        """Number of jets in the batch, B."""
        return self.lengths_B.numel()

    @property
    def n_constituents(self) -> int:
        """Number of constituents in the batch, T."""
        return self.x_TF.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> JetBatch:
        """Move what the model computes with; lengths and positions stay on the CPU.

        Parameters
        ----------
        device : where to
        non_blocking : do not wait for a copy from page-locked memory
        """
        return JetBatch(
            x_TF=self.x_TF.to(device, non_blocking=non_blocking),
            pid_T=None if self.pid_T is None else self.pid_T.to(device, non_blocking=non_blocking),
            lengths_B=self.lengths_B,
            labels_B=self.labels_B.to(device, non_blocking=non_blocking),
            positions_B=self.positions_B,
        )

    def pin_memory(self) -> JetBatch:
        """Page-locked copies, for an asynchronous `to`."""
        return JetBatch(
            x_TF=self.x_TF.pin_memory(),
            pid_T=None if self.pid_T is None else self.pid_T.pin_memory(),
            lengths_B=self.lengths_B,
            labels_B=self.labels_B.pin_memory(),
            positions_B=self.positions_B,
        )
