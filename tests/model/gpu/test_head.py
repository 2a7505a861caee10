"""Norm, head and cross-entropy in one kernel against PyTorch's in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from jetscale.model.kernels.gpu.buffers import JetBuffers, Layout, Weights
from jetscale.model.kernels.gpu.head import head_forward, head_parts, head_step
from tests.model.gpu.chunks import DEVICE, assert_close

B = 19
FIRST = 3


class Head(nn.Module):
    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.head = nn.Linear(dim, n_classes)
        nn.init.normal_(self.norm.weight, 1.0, 0.3)
        nn.init.normal_(self.head.bias)


def make(dim: int, n_classes: int, dtype: torch.dtype) -> tuple[Head, Weights, JetBuffers, torch.Tensor]:
    torch.manual_seed(dim + n_classes)
    head = Head(dim, n_classes).to(DEVICE)
    layout = Layout.of(head, head_parts(B))
    params = torch.zeros(layout.length, device=DEVICE)
    weights = Weights(layout, params, params if dtype == torch.float32 else params.to(dtype))
    for name, parameter in head.named_parameters():
        weights.single(name).copy_(parameter.detach())
        weights.compute(name).copy_(parameter.detach())
    jets = JetBuffers.allocate(1, FIRST + B, torch.zeros(1), torch.ones(1), DEVICE)
    jets.labels.random_(n_classes)
    jets.first.fill_(FIRST)
    return head, weights, jets, 5 + 2 * torch.randn(B, dim, device=DEVICE)


@pytest.mark.parametrize(
    ("dim", "n_classes", "dtype", "tolerance"),
    [
        (8, 10, torch.float32, 1e-5),
        (24, 2, torch.float32, 1e-5),
        (72, 188, torch.float32, 1e-5),
        (72, 10, torch.float16, 5e-3),
    ],
)
def test_loss_and_gradients(dim: int, n_classes: int, dtype: torch.dtype, tolerance: float) -> None:
    head, weights, jets, x = make(dim, n_classes, dtype)
    branch = torch.randn_like(x).to(dtype)
    gradients = weights.layout.gradients(DEVICE)
    losses, correct = torch.zeros(B, device=DEVICE), torch.zeros(B, dtype=torch.uint8, device=DEVICE)
    d_x, d_branch = torch.zeros_like(x), torch.zeros_like(branch)
    k = torch.tensor([4], dtype=torch.int32, device=DEVICE)
    head_step(x, branch, weights, jets, B, gradients, losses, correct, d_x, d_branch, k)

    head = head.double()
    total = (x.double() + branch.double()).requires_grad_()
    logits = head.head(head.norm(total))
    labels = jets.labels[FIRST:].long()
    expected = functional.cross_entropy(logits, labels, reduction="none")
    expected.mean().backward()
    expected = expected.detach()
    assert_close(losses, expected, tolerance)
    assert torch.equal(correct.bool(), logits.argmax(1) == labels)
    assert_close(d_x, total.grad, tolerance)
    assert torch.equal(d_branch, d_x.to(dtype))
    for name, parameter in head.named_parameters():
        assert_close(gradients.summed(name), parameter.grad, tolerance)
    assert int(k) == 5

    again, first = torch.zeros_like(losses), torch.zeros_like(correct)
    head_forward(x, branch, weights, jets, B, again, first)
    assert torch.equal(again, losses)
    assert torch.equal(first, correct)


def test_the_first_of_equal_logits_wins_and_far_logits_do_not_overflow() -> None:
    _, weights, jets, x = make(8, 10, torch.float32)
    weights.compute("head.weight").zero_()
    weights.single("head.bias").copy_(torch.tensor([-300.0, 200.0, 200.0] + [0.0] * 7))
    jets.labels.fill_(1)
    losses, correct = torch.zeros(B, device=DEVICE), torch.zeros(B, dtype=torch.uint8, device=DEVICE)
    head_forward(x, None, weights, jets, B, losses, correct)
    assert_close(losses, torch.full((B,), 2.0).log())
    assert correct.all()
    jets.labels.fill_(0)
    head_forward(x, None, weights, jets, B, losses, correct)
    assert_close(losses, torch.full((B,), 500 + torch.tensor(2.0).log()))
    assert not correct.any()
