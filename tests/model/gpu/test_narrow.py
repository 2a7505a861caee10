"""The network of fused kernels against autograd of the plain `SetTransformer` in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jetscale.model.kernels.gpu import weights as kernels
from jetscale.model.kernels.gpu.buffers import Gradients, JetBuffers, Layout, Tables
from jetscale.model.kernels.gpu.narrow import Narrow
from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState
from jetscale.model.kernels.gpu.step import DeviceStep
from jetscale.model.transformer import SetTransformer
from tests.model.gpu.chunks import DEVICE, N_PID, assert_close, batch, chunk

pytestmark = pytest.mark.gpu

LENGTHS = [4, 1, 17, 9, 12, 2]
LONG = [4, 1, 127, 5, 2, 2]
FIRST, B = 1, 4  # jets of the chunk before and after the batch
S = sum(LENGTHS[FIRST : FIRST + B]) + B
N_CLASSES = 5


class Case:
    """A model, a chunk, and the network on them."""

    def __init__(
        self,
        dim: int,
        depth: int,
        n_features: int = 8,
        n_pid: int = N_PID,
        deta_column: int = -1,
        capacity: int | None = None,
        dtype: torch.dtype = torch.float32,
        lengths: Sequence[int] = LENGTHS,
        train: bool = True,
    ) -> None:
        torch.manual_seed(3)
        self.model = SetTransformer(dim, N_CLASSES, n_features, n_pid, depth).to(DEVICE)
        for name, parameter in self.model.named_parameters():
            if name.endswith(("norm.weight", "bias")):  # not the ones and zeros they start as
                torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
        self.state = FlatState(self.model, half_dtype=dtype)
        self.jets: JetBuffers = chunk(list(lengths), n_features, deta_column, n_classes=N_CLASSES)
        self.jets.first.fill_(FIRST)
        capacity = capacity or sum(lengths[FIRST : FIRST + B]) + B
        self.gradients: Gradients = Layout.of(self.model, Narrow.parts(self.model, B)).gradients(DEVICE)
        self.network = Narrow(self.model, B, capacity, self.jets, dtype, self.gradients if train else None)
        self.k = torch.zeros(1, dtype=torch.int32, device=DEVICE)

    def train(self) -> dict[str, Tensor]:
        self.network.train(self.state.weights, self.k)
        return {name: self.gradients.summed(name) for name in self.state.layout.slots}

    def expected(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Losses, whether right, and gradients."""
        jets = batch(self.jets, FIRST, B, self.model.n_pid > 0)
        model = SetTransformer(
            self.model.dim, N_CLASSES, self.model.n_features, self.model.n_pid, len(self.model.blocks)
        ).double()
        model.load_state_dict(self.model.state_dict())
        fields = {**vars(jets), "x_TF": jets.x_TF.double()}
        logits = model(type(jets)(**fields))
        losses = functional.cross_entropy(logits, jets.labels_B, reduction="none")
        losses.mean().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return losses.detach(), logits.argmax(1) == jets.labels_B, gradients


@pytest.fixture(autouse=True)
def few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few dozen tokens need no 32 partial sums, and the interpreter is slow."""
    monkeypatch.setattr(kernels, "_MOST_PARTS", 2)


@pytest.mark.parametrize(
    "case",
    [
        {"dim": 8, "depth": 4, "deta_column": 0},
        {"dim": 16, "depth": 2, "n_features": 17, "n_pid": 0, "deta_column": 15},
        {"dim": 24, "depth": 1, "n_features": 4, "n_pid": 0},
        {"dim": 24, "depth": 2, "lengths": LONG},
        {"dim": 72, "depth": 1, "n_features": 4},
    ],
    ids=lambda case: "-".join(str(value) for value in case.values() if isinstance(value, int)),
)
def test_losses_and_gradients(case: dict[str, Any]) -> None:
    ours = Case(**case)
    gradients = ours.train()
    losses, correct, expected = ours.expected()
    assert_close(ours.network.losses_B, losses)
    assert torch.equal(ours.network.correct_B.bool().cpu(), correct)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        assert_close(gradients[name], gradient, 2e-5)
    assert int(ours.k) == 1


def test_half_precision_rounds_and_no_more() -> None:
    ours = Case(16, 2, dtype=torch.float16)
    gradients = ours.train()
    losses, _, expected = ours.expected()
    assert_close(ours.network.losses_B, losses, 5e-3)
    for name, gradient in expected.items():
        difference = float((gradients[name].double().cpu() - gradient).norm() / gradient.norm())
        assert difference < 2e-2, name


def test_capacity_and_what_a_longer_batch_left_do_not_matter() -> None:
    """To the last bit: the two graphs of a run are the same function."""
    tight, roomy = Case(8, 2), Case(8, 2, capacity=S + 77)
    expected = tight.train()
    losses = tight.network.losses_B.clone()
    roomy.jets.first.fill_(2)  # jets of another batch first
    roomy.train()
    roomy.jets.first.fill_(FIRST)
    for name, gradient in roomy.train().items():
        assert torch.equal(gradient, expected[name]), name
    assert torch.equal(roomy.network.losses_B, losses)


def test_evaluation_is_the_forward_pass() -> None:
    ours, evaluating = Case(8, 4, capacity=S + 20), Case(8, 4, train=False)
    ours.train()
    evaluating.network.evaluate(evaluating.state.weights)
    # not to the last bit: a card runs another compilation of the kernels, without what is kept
    assert_close(evaluating.network.losses_B, ours.network.losses_B, 1e-6)
    assert torch.equal(ours.network.correct_B, evaluating.network.correct_B)


def test_jets_without_constituents_are_harmless() -> None:
    """The padding of a last evaluation batch, and a batch of nothing else, as when a graph is captured."""
    whole = Case(8, 2, lengths=[4, 1, 17, 3, 2, 5], train=False)
    whole.network.evaluate(whole.state.weights)
    expected = whole.network.losses_B.clone()
    whole.jets.offsets[4:] = whole.jets.offsets[3]
    whole.network.evaluate(whole.state.weights)
    padded = whole
    assert torch.equal(padded.network.losses_B[:2], expected[:2])
    assert not torch.equal(padded.network.losses_B[2:], expected[2:])
    assert padded.network.losses_B.isfinite().all()
    empty = Case(8, 2, lengths=[0] * 6)
    assert all(gradient.isfinite().all() for gradient in empty.train().values())


def test_ranges_without_a_token_are_empty_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card: more ranges of rows than a short batch has tiles."""
    expected = Case(8, 1).train()
    monkeypatch.setattr(kernels, "_MOST_PARTS", 5)
    split = Case(8, 1)
    assert split.gradients.layout.slots["embed.weight"].parts == 5
    for name, gradient in split.train().items():
        assert_close(gradient, expected[name], 1e-6)


def test_launches_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that docs and narrow.py name: 20 at depth 4, and one for the update."""
    interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton is not installed")
    if DEVICE != "cpu":
        pytest.skip("counts the launches of Triton's interpreter")
    ours, launches = Case(8, 4, lengths=[1] * 6), []
    run = interpreter.GridExecutor.__call__
    monkeypatch.setattr(
        interpreter.GridExecutor, "__call__", lambda *a, **k: (launches.append(1), run(*a, **k))[1]
    )
    ours.train()
    assert len(launches) == 20
    tables = Tables.allocate(1, DEVICE)
    tables.rows_K4.fill_(0.5)
    DeviceStep(ours.model, B, S, ours.state, ours.jets, tables, AdamWSettings()).train()
    assert len(launches) == 20 + 21
