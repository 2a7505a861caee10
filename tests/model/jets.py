"""Random jets and one loss with its gradients, shared by the tests of this room."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetscale.jets.batch import JetBatch


def random_jets(lengths: list[int], seed: int = 1, n_classes: int = 10) -> JetBatch:
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    return JetBatch(
        x_TF=torch.randn(total, 8, generator=generator),
        pid_T=torch.randint(1, 9, (total,), generator=generator),
        lengths_B=torch.tensor(lengths),
        labels_B=torch.randint(n_classes, (len(lengths),), generator=generator),
        positions_B=torch.arange(len(lengths)),
    )


def random_lengths(n_jets: int, seed: int = 2) -> list[int]:
    """Lengths of a batch like the study's, with a one-constituent jet and a long one among them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (40 + 17 * torch.randn(n_jets, generator=generator)).round().clamp(1, 128).long().tolist()
    lengths[1], lengths[3] = 1, 150
    return lengths


def logits_and_gradients(
    model: nn.Module, forward: Callable[[], Tensor], labels_B: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    logits_BK = forward()
    functional.cross_entropy(logits_BK, labels_B).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == dict(model.named_parameters()).keys()
    return logits_BK.detach(), gradients
