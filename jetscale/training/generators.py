"""States of torch's random generators, which a checkpoint keeps for networks that draw while they train.

Our own networks draw nothing after their first weights; one with dropout does, and so may a callback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jetscale.training import ranks


@dataclass(frozen=True)
class Generators:
    """The states of one process.

    Attributes
    ----------
    cpu : of the generator of the CPU
    cuda : of the generator of the GPU that the process computes on; None where it computes on none
    """

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> Generators:
        """The present states.

        Parameters
        ----------
        device : where the process computes
        """
        on_gpu = device.type == "cuda"
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None)

    def everywhere(self) -> list[dict[str, Any]]:
        """The states of all ranks, as a checkpoint keeps them; every rank must call."""
        return ranks.gathered({"cpu": self.cpu, "cuda": self.cuda})

    @classmethod
    def of_this_rank(cls, kept: Sequence[dict[str, Any]]) -> Generators | None:
        """What `everywhere` gave, for this rank.

        Returns
        -------
        None where the checkpoint has none (one of an earlier version), or was written by another number of
        processes: what one of them drew belonged to its share of a batch.
        """
        return cls(**kept[ranks.rank()]) if len(kept) == ranks.world_size() else None

    def restore(self, device: torch.device) -> None:
        """Make them the present states; that of a GPU only where there is one in both places."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, device)
