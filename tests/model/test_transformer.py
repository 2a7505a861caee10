from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from jetscale.model import transformer
from jetscale.model.operations import PLAIN
from jetscale.model.reference import padded_logits
from jetscale.model.transformer import SetTransformer
from tests.model.jets import logits_and_gradients, random_jets, random_lengths


@pytest.fixture(params=["plain", "kernels"], autouse=True)
def operations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test of this file runs both ways of computing a block."""
    if request.param == "plain":
        monkeypatch.setattr(transformer, "operations_for", lambda *args: PLAIN)
    return request.param


def make_model(dim: int = 16, n_classes: int = 10, seed: int = 0, **kwargs: int) -> SetTransformer:
    torch.manual_seed(seed)
    return SetTransformer(dim, n_classes, **kwargs)


@pytest.mark.parametrize("dim", [8, 24, 64])
@pytest.mark.parametrize("depth", [1, 4])
def test_packed_equals_padded_in_logits_and_gradients(dim: int, depth: int) -> None:
    model = make_model(dim, depth=depth)
    jets = random_jets(random_lengths(24))
    assert model.class_token.abs().min() > 0
    packed, packed_gradients = logits_and_gradients(model, lambda: model(jets), jets.labels_B)
    for constituents in (None, 160):
        plain, plain_gradients = logits_and_gradients(
            model, lambda n=constituents: padded_logits(model, jets, n), jets.labels_B
        )
        torch.testing.assert_close(packed, plain, rtol=0, atol=1e-5)
        for name, gradient in packed_gradients.items():
            torch.testing.assert_close(gradient, plain_gradients[name], rtol=0, atol=1e-5, msg=name)


def test_ten_optimiser_steps_stay_with_the_reference() -> None:
    jets = random_jets(random_lengths(16))
    losses = {}
    for way in ("packed", "padded"):
        model = make_model(16)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses[way] = []
        for _ in range(10):
            logits_BK = model(jets) if way == "packed" else padded_logits(model, jets)
            loss = functional.cross_entropy(logits_BK, jets.labels_B)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[way].append(loss.item())
    assert losses["packed"][-1] < 0.8 * losses["packed"][0]
    assert losses["packed"] == pytest.approx(losses["padded"], abs=1e-5)


def test_a_jet_is_a_set_and_knows_nothing_of_the_others() -> None:
    model = make_model(32)
    jets = random_jets([5, 30, 1, 12])
    logits_BK = model(jets)
    order = torch.cat([torch.arange(35, 36), torch.arange(5, 35).flip(0)])
    alone = model(
        replace(jets, x_TF=jets.x_TF[order], pid_T=jets.pid_T[order], lengths_B=torch.tensor([1, 30]))
    )
    torch.testing.assert_close(alone, logits_BK[[2, 1]], rtol=0, atol=1e-6)


def test_same_seed_same_bits() -> None:
    jets = random_jets(random_lengths(8))
    results = []
    for _ in range(2):
        model = make_model(24, seed=0)
        results.append(logits_and_gradients(model, lambda m=model: m(jets), jets.labels_B))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(g, results[1][1][name]) for name, g in results[0][1].items())


def test_memory_order_of_the_input_does_not_matter() -> None:
    model, jets = make_model(16), random_jets([3, 4])
    strided = replace(jets, x_TF=jets.x_TF.T.contiguous().T, pid_T=jets.pid_T.repeat(2, 1).T[:, 0])
    expected = model(jets)
    assert torch.equal(model(strided), expected)


def test_first_loss_is_that_of_a_uniform_guess() -> None:
    for dim in (8, 128):
        model = make_model(dim)
        jets = random_jets([40] * 32)
        with torch.no_grad():
            loss = functional.cross_entropy(model(jets), jets.labels_B)
        assert loss.item() == pytest.approx(math.log(10), abs=0.05)


def test_bf16_autocast_agrees_with_float32() -> None:
    model = make_model(64)
    jets = random_jets(random_lengths(16))

    def run() -> torch.Tensor:
        logits_BK: torch.Tensor = model(jets)
        return logits_BK

    exact, exact_gradients = logits_and_gradients(model, run, jets.labels_B)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = run()
        assert half.dtype == torch.bfloat16
        model.zero_grad()
        functional.cross_entropy(half.float(), jets.labels_B).backward()
    # bfloat16 keeps 8 bits: 2^-8 per rounding, a few in a row
    assert (half.float() - exact).abs().max() < 0.03 * exact.abs().max()
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert (p.grad - exact_gradients[name]).norm() < 0.05 * exact_gradients[name].norm(), name


def test_features_without_identity() -> None:
    model = make_model(16, n_features=17, n_pid=0)
    with_identity = replace(random_jets([3, 4]), x_TF=torch.randn(7, 17))
    jets = replace(with_identity, pid_T=None)
    torch.testing.assert_close(model(jets), padded_logits(model, jets), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="particle identities"):
        model(with_identity)
    with pytest.raises(ValueError, match="x_TF has 17 features, the network takes 8"):
        make_model(16)(with_identity)
    with pytest.raises(ValueError, match="particle identities"):
        make_model(16)(replace(jets, x_TF=jets.x_TF[:, :8]))


@pytest.mark.parametrize("dim", [0, 4, 12])
def test_width_must_be_whole_heads(dim: int) -> None:
    with pytest.raises(ValueError, match=f"dim={dim} must be a positive multiple of the head dimension 8"):
        make_model(dim)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([3, 3]), "add up to 6 constituents, x_TF has 7"),
        (torch.tensor([7, 0]), "every jet at least one"),
        (torch.tensor([], dtype=torch.int64), "at least one jet"),
        (torch.tensor([7.0]), "integer tensor on the CPU"),
        (torch.tensor([[7]]), "integer tensor on the CPU"),
        (torch.tensor([7], device="meta"), "integer tensor on the CPU"),
    ],
)
def test_wrong_lengths_are_refused(lengths: torch.Tensor, message: str) -> None:
    jets = random_jets([7])
    with pytest.raises(ValueError, match=message):
        make_model()(replace(jets, lengths_B=lengths))


def test_backbone_moves_to_another_head() -> None:
    pretrained, finetuned = make_model(16, n_classes=188, seed=0), make_model(16, n_classes=10, seed=1)
    head = finetuned.head.weight.clone()
    before = {name: value.clone() for name, value in finetuned.backbone_state().items()}
    state = pretrained.backbone_state()
    finetuned.load_backbone(state)
    after = finetuned.backbone_state()
    assert set(after) == {n for n, _ in finetuned.named_parameters()} - {"head.weight", "head.bias"}
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(finetuned.head.weight, head)


def test_a_backbone_that_does_not_fit_is_refused_whole() -> None:
    model, state = make_model(16, seed=1), make_model(16, seed=0).backbone_state()
    before = model.class_token.clone()
    broken = {name: value for name, value in state.items() if name != "embed.bias"}
    broken["extra"] = torch.zeros(1)
    broken["norm.weight"] = torch.ones(3)
    with pytest.raises(ValueError, match="does not fit") as caught:
        model.load_backbone(broken)
    for problem in (
        "missing embed.bias",
        "unknown extra",
        r"norm.weight has shape (3,), the model wants (16,)",
    ):
        assert problem in str(caught.value)
    assert torch.equal(model.class_token, before)
