"""Test loss in fixed blocks.

Legend: B jets, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from jetscale.jets.batch import JetBatch
from jetscale.model.network import Network
from jetscale.runs.layout import N_BLOCKS


@dataclass(frozen=True)
class TestLoss:
    """One evaluation.

    Attributes
    ----------
    jets : (N_BLOCKS,) int64, test jets in each block
    loss_sum : (N_BLOCKS,) float64, their summed cross-entropy in nats
    correct : jets whose largest logit is the label's
    """

    __test__ = False  # not a pytest class

    jets: npt.NDArray[np.int64]
    loss_sum: npt.NDArray[np.float64]
    correct: int

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.loss_sum.sum() / self.jets.sum())

    @property
    def accuracy(self) -> float:
        """Share of jets classified right."""
        return self.correct / int(self.jets.sum())


@torch.no_grad()
def evaluate(
    model: Network, batches: Iterable[JetBatch], device: torch.device, precision: str = "32-true"
) -> TestLoss:
    """Evaluate a network on this rank's batches and add up over the ranks.

    Parameters
    ----------
    model : the network, on `device`; it is in training mode afterwards
    batches : test jets
    device : where to compute
    precision : ``32-true``, or ``bf16-mixed`` for the forward pass in half precision

    Returns
    -------
    Losses of all ranks' jets in fixed blocks, and how many jets were classified right.
    """
    jets = np.zeros(N_BLOCKS, dtype=np.int64)
    loss_sum = np.zeros(N_BLOCKS, dtype=np.float64)
    correct = 0
    model.eval()
    for batch in batches:
        on_device = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits_BK = model(on_device)
        loss_B = F.cross_entropy(logits_BK.float(), on_device.labels_B, reduction="none")
        correct += int((logits_BK.argmax(dim=1) == on_device.labels_B).sum())
        block_B = batch.positions_B.numpy() % N_BLOCKS
        jets += np.bincount(block_B, minlength=N_BLOCKS)
        loss_sum += np.bincount(block_B, weights=loss_B.double().cpu().numpy(), minlength=N_BLOCKS)
    model.train()
    return _sum_over_ranks(TestLoss(jets, loss_sum, correct), device)


def _sum_over_ranks(local: TestLoss, device: torch.device) -> TestLoss:
    if not torch.distributed.is_initialized():
        return local
    packed = torch.from_numpy(np.concatenate([local.jets, local.loss_sum, [local.correct]])).to(device)
    torch.distributed.all_reduce(packed)
    total = packed.cpu().numpy()
    return TestLoss(
        total[:N_BLOCKS].astype(np.int64), total[N_BLOCKS : 2 * N_BLOCKS].copy(), int(total[2 * N_BLOCKS])
    )
