"""Tokens and the gradient of what makes them, against the plain model's embedding."""

from __future__ import annotations

import pytest
import torch

from jetscale.model import operations
from jetscale.model.kernels.gpu import embedding as kernels
from jetscale.model.packing import PackingPlan
from tests.model.gpu.chunks import DEVICE, N_PID, TOLERANCE, assert_close, batch, chunk

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("n_features", "has_pid", "deta_column", "width"),
    [(8, True, -1, 24), (8, True, 0, 8), (4, False, 1, 16), (17, True, 4, 136)],
)
def test_tokens_are_those_of_the_plain_model(
    n_features: int, has_pid: bool, deta_column: int, width: int
) -> None:
    jets, n_jets, first, spare = chunk([4, 2, 3, 1, 20, 17], n_features, deta_column), 4, 2, 7
    jets.first.fill_(first)
    plain = batch(jets, first, n_jets, has_pid)
    plan = PackingPlan(plain.lengths_B, torch.device("cpu"))
    shapes = (width, n_features), (width,), (N_PID, width), (width,)
    leaves = [torch.randn(shape).requires_grad_() for shape in shapes]
    weight, bias, table, token = leaves
    exact = operations.tokens(plain.x_TF, plain.pid_T, weight, bias, table if has_pid else None, token, plan)
    norm = torch.rand(width) + 0.5
    rows = plan.n_tokens + spare

    ours = [leaf.detach().to(DEVICE) for leaf in leaves]
    weights = kernels.Embedding(ours[0], ours[1], ours[2] if has_pid else None, ours[3])
    x, normed = (torch.full((rows, width), 7.0, device=DEVICE) for _ in range(2))
    of_class = torch.empty(n_jets, width, device=DEVICE), torch.empty(n_jets, width, device=DEVICE)
    kernels.embed(jets, n_jets, weights, norm.to(DEVICE), x, normed, of_class)
    assert_close(x[: plan.n_tokens], exact)
    assert_close(normed[: plan.n_tokens], operations.layer_norm(exact, norm))
    assert (x[plan.n_tokens :] == 7).all()
    assert not normed[plan.n_tokens :].any()
    for whole, rows_of_class in zip((x, normed), of_class, strict=True):
        assert torch.equal(whole[plan.class_rows.to(DEVICE)], rows_of_class)

    d_x = torch.randn(rows, width)
    exact.backward(d_x[: plan.n_tokens])
    parts = [torch.full((3, leaf.numel()), 7.0, device=DEVICE) for leaf in leaves]
    of_parts = kernels.Embedding(parts[0], parts[1], parts[2] if has_pid else None, parts[3])
    kernels.embed_backward(jets, n_jets, d_x.to(DEVICE), of_parts)
    for leaf, part in zip(leaves, parts, strict=True):
        if leaf.grad is not None:
            assert_close(part.sum(0).view(leaf.shape), leaf.grad, TOLERANCE)
