"""Forward and backward pass of wide networks on static memory, against autograd of the plain model."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jetscale.jets.batch import JetBatch
from jetscale.model.kernels.gpu import wide
from jetscale.model.kernels.gpu.buffers import Gradients, JetBuffers, Layout, Weights
from jetscale.model.transformer import SetTransformer
from tests.model.gpu.chunks import DEVICE, N_PID, TOLERANCE, assert_close, batch, chunk

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that find no rows cost the interpreter as much as others."""
    monkeypatch.setattr(wide, "NORM_PARTS", 3)
    monkeypatch.setattr(wide, "EMBEDDING_PARTS", 2)


LENGTHS = [2, 5, 0, 33, 1, 11]
FIRST, N_JETS = 2, 4
CAPACITY = sum(LENGTHS[FIRST:]) + N_JETS + 21
# Triton's interpreter multiplies the bit patterns of bfloat16
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16


def model_of(dim: int, n_features: int, has_pid: bool, depth: int, n_classes: int = 10) -> SetTransformer:
    torch.manual_seed(dim + depth)
    model = SetTransformer(dim, n_classes, n_features, N_PID if has_pid else 0, depth)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):  # ones would hide a norm that is applied twice or not at all
                parameter.uniform_(0.5, 1.5)
            if name.endswith("bias") or name == "head.weight":
                parameter.normal_(std=0.3)
    return model


def weights_of(model: SetTransformer, dtype: torch.dtype = torch.float32) -> Weights:
    layout = Layout.of(model)
    params = torch.zeros(layout.length, device=DEVICE)
    weights = Weights(layout, params, params if dtype == torch.float32 else params.to(dtype))
    for name, parameter in model.named_parameters():
        weights.single(name).copy_(parameter.detach())
    if dtype != torch.float32:
        weights.half.copy_(params)
    return weights


def network_of(
    model: SetTransformer, jets: JetBuffers, dtype: torch.dtype = torch.float32
) -> tuple[wide.Wide, Gradients]:
    gradients = Layout.of(model, wide.Wide.parts(model, N_JETS)).gradients(DEVICE)
    return wide.Wide(model, N_JETS, CAPACITY, jets, dtype, gradients), gradients


def exact(model: SetTransformer, jets: JetBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Losses of the jets, whether they are classified right, gradients of the mean loss, in double precision.

    The plain model refuses jets without constituents: such a jet is a class token alone.
    """
    model = deepcopy(model).double().cpu()
    losses, correct = [], []
    for b, rows in enumerate(torch.arange(jets.n_constituents).split(jets.lengths_B.tolist())):
        if len(rows) == 0:
            logits = logits_of_class_token(model)
        else:
            pid = None if jets.pid_T is None else jets.pid_T[rows]
            one = JetBatch(
                jets.x_TF[rows].double(), pid, jets.lengths_B[b : b + 1], jets.labels_B[b : b + 1], rows[:1]
            )
            logits = model(one)
        losses.append(functional.cross_entropy(logits, jets.labels_B[b : b + 1]))
        correct.append(logits.argmax() == jets.labels_B[b])
    loss_B = torch.stack(losses)
    loss_B.mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss_B.detach(), torch.stack(correct), gradients


def logits_of_class_token(model: SetTransformer) -> Tensor:
    """A single token attends to itself alone: its values are the attention's result."""
    x = model.class_token[None]
    for block in model.blocks:
        value = block.qkv.weight[2 * model.dim :]
        x = x + block.out(block.attention_norm(x) @ value.T)
        gate, up = block.gate_up(block.feedforward_norm(x)).chunk(2, dim=1)
        x = x + block.down(functional.silu(gate) * up)
    return model.head(model.norm(x))


@pytest.mark.parametrize(
    ("dim", "n_features", "has_pid", "depth", "deta"),
    [(8, 8, True, 4, -1), (24, 4, False, 2, 1), (16, 17, True, 1, 5)],
)
def test_losses_and_gradients_are_those_of_autograd(
    dim: int, n_features: int, has_pid: bool, depth: int, deta: int
) -> None:
    jets, model = chunk(LENGTHS, n_features, deta), model_of(dim, n_features, has_pid, depth)
    network, gradients = network_of(model, jets)
    k = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    for first in (FIRST, 0):  # the longer batch leaves rows and partial sums that the other must not read
        jets.first.fill_(first)
        network.train(weights_of(model), k)
    loss_B, correct_B, expected = exact(model, batch(jets, 0, N_JETS, has_pid))
    assert int(k) == 2
    assert_close(network.losses_B, loss_B, 1e-5)
    assert network.correct_B.tolist() == correct_B.tolist()
    assert expected.keys() == gradients.layout.slots.keys()
    for name, gradient in expected.items():
        assert_close(gradients.summed(name), gradient, 2 * TOLERANCE)


def test_evaluation_gives_the_losses_of_training() -> None:
    jets, model = chunk(LENGTHS), model_of(8, 8, True, 3)
    jets.first.fill_(FIRST)
    network, _ = network_of(model, jets)
    network.train(weights_of(model), torch.zeros(1, dtype=torch.int32, device=DEVICE))
    alone = wide.Wide(model, N_JETS, CAPACITY, jets, torch.float32, None)
    alone.evaluate(weights_of(model))
    assert torch.equal(alone.losses_B, network.losses_B)
    assert torch.equal(alone.correct_B, network.correct_B)


def test_a_batch_without_constituents_is_harmless() -> None:
    model = model_of(8, 8, True, 2)
    jets = JetBuffers.allocate(10, N_JETS, torch.zeros(8), torch.ones(8), DEVICE)
    network, gradients = network_of(model, jets)
    network.train(weights_of(model), torch.zeros(1, dtype=torch.int32, device=DEVICE))
    loss_B, _, _ = exact(model, replace(batch(jets, 0, N_JETS)))
    assert_close(network.losses_B, loss_B)
    assert all(torch.isfinite(gradients.summed(name)).all() for name in gradients.layout.slots)


def test_half_precision_is_as_near_as_autocast() -> None:
    lengths = [3, 2, 25, 9, 18, 21]
    jets, model = chunk(lengths), model_of(16, 8, True, 3)
    jets.first.fill_(FIRST)
    plain = batch(jets, FIRST, N_JETS)
    gradients = Layout.of(model, wide.Wide.parts(model, N_JETS)).gradients(DEVICE)
    network = wide.Wide(model, N_JETS, sum(lengths), jets, HALF, gradients)
    network.train(weights_of(model, HALF), torch.zeros(1, dtype=torch.int32, device=DEVICE))
    _, _, expected = exact(model, plain)

    eager = deepcopy(model).to(DEVICE)
    with torch.autocast(DEVICE, HALF):
        logits = eager(plain.to(DEVICE))
    functional.cross_entropy(logits.float(), plain.labels_B.to(DEVICE)).backward()
    of_eager = {name: p.grad for name, p in eager.named_parameters() if p.grad is not None}

    def error(found: dict[str, Tensor]) -> float:
        squares = sum(float((found[n].cpu().double() - expected[n]).square().sum()) for n in expected)
        return (squares / sum(float(g.square().sum()) for g in expected.values())) ** 0.5

    ours = error({name: gradients.summed(name) for name in expected})
    assert 0 < ours <= 1.5 * error(of_eager)


def test_batches_beyond_what_kernels_count_are_refused() -> None:
    jets = JetBuffers.allocate(1, 2, torch.zeros(8), torch.ones(8), DEVICE)
    with pytest.raises(ValueError, match="at most 67,108,864"):
        wide.Wide(model_of(8, 8, True, 1), 2, 2**26, jets, torch.float32, None)


def test_launches_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that the documentation names for depth 4, without the update."""
    interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton is not installed")
    if DEVICE != "cpu":
        pytest.skip("counts the launches of Triton's interpreter")
    network, _ = network_of(model_of(8, 8, True, 4), chunk([1] * 6))
    kernels, products = [], []
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", lambda *_, **__: kernels.append(1))
    monkeypatch.setattr(torch, "mm", lambda *_, out: products.append(1))
    network.train(weights_of(model_of(8, 8, True, 4)), torch.zeros(1, dtype=torch.int32))
    assert (len(kernels), len(products)) == (34, 51)
