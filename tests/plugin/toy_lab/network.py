"""A network: jets are averaged over their constituents, and one linear layer looks at the average.

python -m jetscale.train ... --trust toy_lab.network model.arch=toy
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jetscale.jets.batch import JetBatch
from jetscale.model.network import NETWORKS, Network


@NETWORKS.register("toy")
class MeanOfConstituents(Network):
    """logits = head(relu(mix(mean over the constituents of embed(x)))).

    ``model.dim`` is the only size. `Network` counts the parameters by the names of the modules: ``embed`` is
    the embedding, ``head`` the head, the rest the blocks. Fine-tuning gives the network a new ``head``.
    """

    def __init__(self, dim: int, n_classes: int, n_features: int, n_pid: int) -> None:
        super().__init__(dim, n_classes, n_features, n_pid)
        self.embed = nn.Linear(n_features, dim)
        self.mix = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, n_classes)

    def forward(self, batch: JetBatch) -> Tensor:
        """B jets with T constituents in all, one behind the other, become (B, K) logits."""
        self.check_inputs(batch)
        x_TD = self.embed(batch.x_TF)
        # Which jet a constituent belongs to: 0, 0, 0, 1, 1, ...; lengths stay on the CPU whatever the device.
        jets_T = torch.arange(batch.n_jets).repeat_interleave(batch.lengths_B).to(x_TD.device)
        sums_BD = x_TD.new_zeros(batch.n_jets, self.dim).index_add(0, jets_T, x_TD)
        means_BD = sums_BD / batch.lengths_B.to(x_TD.device)[:, None]
        logits_BK: Tensor = self.head(self.mix(means_BD).relu())
        return logits_BK

    def flops(self, lengths_B: Tensor | Sequence[int], backward: bool = True) -> int:
        """2 m n k for each matrix product; the backward pass has two for each, but `embed` has one."""
        first = 2 * sum(int(length) for length in lengths_B) * self.n_features * self.dim
        others = 2 * len(lengths_B) * self.dim * (self.dim + self.n_classes)
        return 2 * first + 3 * others if backward else first + others
