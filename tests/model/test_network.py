"""What training relies on, for every network that jetscale brings, and for what is no network."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from jetscale.common.registry import Registry
from jetscale.common.usage import UsageError
from jetscale.jets.batch import JetBatch
from jetscale.launch.probe import synthetic_batch
from jetscale.model import network as networks
from jetscale.model.cost import KINDS, flops_6n
from jetscale.model.deepsets import DeepSets, sum_per_jet
from jetscale.model.network import NETWORKS, Network, build_network
from tests.model.jets import random_jets, random_lengths

OPTIONS = {"depth": 4, "head_dim": 8}


def make(arch: str, dim: int = 16, n_classes: int = 10, n_features: int = 8, n_pid: int = 9) -> Network:
    torch.manual_seed(0)
    return build_network(arch, dim, n_classes, n_features, n_pid, OPTIONS)


def trained(model: Network, jets: JetBatch, steps: int) -> list[float]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = functional.cross_entropy(model(jets), jets.labels_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(params=NETWORKS.names())
def arch(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("n_pid", [9, 0])
def test_a_network_knows_its_sizes_and_counts_all_parameters(arch: str, n_pid: int) -> None:
    model = make(arch, dim=24, n_classes=7, n_features=5, n_pid=n_pid)
    assert (model.arch, model.dim, model.n_classes, model.n_features, model.n_pid) == (arch, 24, 7, 5, n_pid)
    counts = model.count_parameters()
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.head == 7 * 25
    assert counts.embedding == (5 + 1 + n_pid) * 24
    assert model(synthetic_batch(model, 12)).shape == (12, 7)


def test_a_jet_is_a_set_and_does_not_depend_on_the_others(arch: str) -> None:
    model, jets = make(arch), random_jets([5, 30, 1, 12])
    order = torch.cat([torch.arange(35, 36), torch.arange(5, 35).flip(0)])
    some = replace(jets, x_TF=jets.x_TF[order], pid_T=jets.pid_T[order], lengths_B=torch.tensor([1, 30]))
    torch.testing.assert_close(model(some), model(jets)[[2, 1]], rtol=0, atol=1e-5)


def test_the_first_loss_is_that_of_a_uniform_guess_and_training_lowers_it(arch: str) -> None:
    for dim in (8, 32 if arch == "particlenet" else 128):  # a step on its edges takes seconds at width 128
        losses = trained(make(arch, dim), random_jets(random_lengths(32)), 25)
        assert losses[0] == pytest.approx(math.log(10), abs=0.05)
        assert losses[-1] < 0.9 * losses[0]


def test_the_same_seed_gives_the_same_bits_also_after_a_round_trip_of_the_state(arch: str) -> None:
    jets = random_jets(random_lengths(16))
    first, second = make(arch), make(arch)
    assert trained(first, jets, 3) == trained(second, jets, 3)
    torch.manual_seed(1)
    resumed = build_network(arch, 16, 10, 8, 9, OPTIONS)
    resumed.load_state_dict(first.state_dict())
    assert torch.equal(resumed(jets), second(jets))


def test_a_backbone_moves_to_another_head(arch: str) -> None:
    pretrained, finetuned = make(arch, n_classes=188), make(arch, n_classes=10)
    trained(pretrained, random_jets([4, 9]), 2)
    head = finetuned.head.weight.clone()
    finetuned.load_backbone(pretrained.state_dict())
    after = finetuned.backbone_state()
    assert {n.partition(".")[0] for n, _ in finetuned.named_parameters()} - {"head"} == {
        n.partition(".")[0] for n in after
    }
    assert all(torch.equal(after[name], value) for name, value in pretrained.backbone_state().items())
    assert torch.equal(finetuned.head.weight, head)
    with pytest.raises(ValueError, match=r"embed.weight has shape \(32, 8\), the model wants \(16, 8\)"):
        finetuned.load_backbone(make(arch, dim=32).backbone_state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths_B": torch.tensor([3, 3])}, "add up to 6 constituents, x_TF has 7"),
        ({"lengths_B": torch.tensor([7, 0])}, "every jet at least one"),
        ({"x_TF": torch.zeros(7, 9)}, "x_TF has 9 features, the network takes 8"),
        ({"pid_T": None}, "particle identities"),
    ],
)
def test_a_batch_of_other_jets_is_refused(
    arch: str, change: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(arch)(replace(random_jets([3, 4]), **change))


def test_parameters_of_deep_sets() -> None:
    counts = DeepSets(12, 10).count_parameters()
    biases = (1 + 2 + 1 + 1 + 1) * 12
    assert counts.blocks == 7 * 12**2 + biases
    assert (counts.class_token, counts.norms) == (0, 0)


@pytest.mark.parametrize("dim", [8, 40])
def test_flops_of_deep_sets_are_what_pytorch_counts(dim: int) -> None:
    model, jets = DeepSets(dim, 10), random_jets([6, 1, 20])
    with FlopCounterMode(display=False) as counter:
        logits_BK = model(jets)
        assert counter.get_total_flops() == model.flops(jets.lengths_B, backward=False)
        logits_BK.sum().backward()
        assert counter.get_total_flops() == model.flops(jets.lengths_B)


def test_sums_per_jet_are_those_of_each_jet_alone_to_the_last_bit() -> None:
    lengths = random_lengths(20)
    x_TL = torch.randn(sum(lengths), 24, requires_grad=True)
    sums_BL = sum_per_jet(x_TL, torch.tensor(lengths))
    alone = []
    for rows in x_TL.detach().split(lengths):  # one row after the other
        total = torch.zeros(24)
        for row in rows:
            total = total + row
        alone.append(total)
    assert torch.equal(sums_BL, torch.stack(alone))
    weights_BL = torch.randn_like(sums_BL)
    sums_BL.backward(weights_BL)
    assert x_TL.grad is not None
    assert torch.equal(x_TL.grad, weights_BL.repeat_interleave(torch.tensor(lengths), 0))


def test_deep_sets_in_half_precision_add_up_in_float32() -> None:
    model, jets = make("deepsets", 64), random_jets(random_lengths(16))
    exact = model(jets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(jets)
    assert half.dtype == torch.bfloat16
    assert sum_per_jet(torch.ones(300, 1, dtype=torch.bfloat16), torch.tensor([300])).item() == 300
    assert (half.float() - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[type[Network]]:
    """A registry that a test can fill without leaving its entries to the others."""
    made: Registry[type[Network]] = Registry("network", {})
    monkeypatch.setattr(networks, "NETWORKS", made)
    return made


def test_what_is_no_network_is_refused_by_name(registry: Registry[type[Network]]) -> None:
    class Half(Network):
        def forward(self, batch: JetBatch) -> torch.Tensor:
            return batch.x_TF

    registry.register("half")(Half)
    registry.register("linear")(torch.nn.Linear)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(UsageError, match=r"model.arch=half: Half lacks the methods flops"):
        make("half")
    with pytest.raises(UsageError, match=r"model.arch=linear: .*Linear.* must be a subclass of .*Network"):
        make("linear")
    with pytest.raises(UsageError, match=r"'halve' is no network .*did you mean half\?"):
        make("halve")


def test_a_kind_of_parameter_that_does_not_exist_is_refused() -> None:
    class Odd(DeepSets):
        def parameter_kind(self, name: str) -> str:
            return "decoder"

    with pytest.raises(ValueError, match=f"is of kind 'decoder', must be one of {', '.join(KINDS)}"):
        Odd(8, 10).count_parameters()


@pytest.mark.parametrize(
    ("arch", "parameters", "operations", "share"),
    [
        ("transformer", [2_874, 166_282, 10_505_226], 37.1e6, 0.93),
        ("deepsets", [730, 30_858, 1_852_426], 3.1e6, 0.42),
        ("particlenet", [1_778, 89_418, 5_532_170], 77.8e6, 3.63),
    ],
)
def test_sizes_and_costs_in_the_documentation(
    arch: str, parameters: list[int], operations: float, share: float
) -> None:
    with torch.device("meta"):
        small, middle, large = (make(arch, dim) for dim in (8, 64, 512))
    totals = [model.count_parameters().total for model in (small, middle, large)]
    assert totals == parameters
    assert middle.flops([40]) == pytest.approx(operations, rel=0.02)
    assert middle.flops([40]) / flops_6n(totals[1], 40) == pytest.approx(share, rel=0.02)
