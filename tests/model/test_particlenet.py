"""ParticleNet on packed jets, against the same network written out jet by jet and edge by edge."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from jetscale.jets.batch import JetBatch
from jetscale.jets.features import KINEMATICS, PAPER, PART17
from jetscale.model.particlenet import NEIGHBOURS, ParticleNet, coordinates_in, nearest
from tests.model.jets import logits_and_gradients, random_jets, random_lengths


def made(dim: int = 12) -> ParticleNet:
    torch.manual_seed(5)
    network = ParticleNet(dim, 10)
    for name, parameter in network.named_parameters():
        if "norm" in name or "head" in name:  # as after some training: all that is 1, 0 or small is not
            torch.nn.init.normal_(parameter, 0.5 if name.endswith("norm.weight") else 0.0, 0.5)
    return network.double()


def normed(x: Tensor, layer: torch.nn.Module) -> Tensor:
    """The layer on vectors, by the definition of a layer norm."""
    y = x @ layer.linear.weight.T
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return y * layer.norm.weight + layer.norm.bias


def one_jet(network: ParticleNet, features: Tensor, pid: Tensor) -> Tensor:
    """Logits of one jet: equations of arXiv:1902.08570 on explicit edges, one constituent after the other."""
    x = [network.embed(row) + network.pid.weight[number] for row, number in zip(features, pid, strict=True)]
    where = features[:, :2]
    for block in network.blocks:
        after = []
        for i, xi in enumerate(x):
            distances = [(float(((where[i] - where[j]) ** 2).sum()), j) for j in range(len(x)) if j != i]
            edges = []
            for _, j in sorted(distances)[:NEIGHBOURS]:
                edge = torch.cat([xi, x[j] - xi])
                for layer in block.layers:
                    edge = functional.relu(normed(edge, layer))
                edges.append(edge)
            mean = torch.stack(edges).mean(0) if edges else 0
            after.append(functional.relu(normed(xi, block.shortcut) + mean))
        x, where = after, torch.stack(after).detach()
    return network.head(functional.relu(network.of_jets(torch.stack(x).mean(0))))


def double(jets: JetBatch) -> JetBatch:
    return replace(jets, x_TF=jets.x_TF.double())


def test_logits_and_gradients_are_those_of_explicit_edges() -> None:
    """Jets with fewer constituents than neighbours are among them, and one of a single constituent."""
    lengths = [9, 1, NEIGHBOURS, NEIGHBOURS + 1, 14, 2]
    network, jets = made(), double(random_jets(lengths))

    def explicit() -> Tensor:
        parts = zip(jets.x_TF.split(lengths), jets.pid_T.split(lengths), strict=True)
        return torch.stack([one_jet(network, *part) for part in parts])

    ours, our_gradients = logits_and_gradients(network, lambda: network(jets), jets.labels_B)
    theirs, their_gradients = logits_and_gradients(network, explicit, jets.labels_B)
    assert ours.std() > 0.3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("lengths", [[1], [1, 1, 3], [40, 2, 8]])
def test_neighbours_are_the_nearest_of_the_same_jet(lengths: list[int]) -> None:
    where_TC = torch.randn(sum(lengths), 3, generator=torch.Generator().manual_seed(3))
    rows_Tk, there_Tk = nearest(where_TC, torch.tensor(lengths), NEIGHBOURS)
    start = 0
    for length in lengths:
        for i in range(start, start + length):
            others = [j for j in range(start, start + length) if j != i]
            others.sort(key=lambda j: float(((where_TC[i] - where_TC[j]).double() ** 2).sum()))
            assert rows_Tk[i][there_Tk[i]].tolist() == others[:NEIGHBOURS]
            assert set(rows_Tk[i][~there_Tk[i]].tolist()) <= {i}
        start += length


def test_near_constituents_far_from_the_origin_are_told_apart() -> None:
    """By |a|^2 + |b|^2 - 2 ab in float32 all of these distances would be rounding."""
    where_TC = torch.tensor([[1000.0, 0], [1000.001, 0], [1000.003, 0], [1000.007, 0]])
    rows_Tk, _ = nearest(where_TC, torch.tensor([4]), 1)
    assert rows_Tk.flatten().tolist() == [1, 0, 1, 2]


def test_the_first_neighbours_are_those_in_eta_and_phi() -> None:
    for features in (PAPER, PART17, KINEMATICS):
        first = coordinates_in(features.n_features)
        assert [name for name, _ in features.columns][first : first + 2] == ["part_deta", "part_dphi"]


def test_parameters() -> None:
    counts = ParticleNet(12, 10).count_parameters()
    assert counts.blocks == (5 + 14 + 2) * 12**2 + 12
    assert counts.norms == 2 * (4 * 12 + 4 * 24)
    assert counts.class_token == 0


@pytest.mark.parametrize("lengths", [[6, 1, 20], [3, 2]])
def test_flops_are_what_pytorch_counts(lengths: list[int]) -> None:
    network, jets = ParticleNet(12, 10), random_jets(lengths)
    with FlopCounterMode(display=False) as counter:
        logits_BK = network(jets)
        assert counter.get_total_flops() == network.flops(jets.lengths_B, backward=False)
        logits_BK.sum().backward()
        assert counter.get_total_flops() == network.flops(jets.lengths_B)


def test_half_precision_takes_the_same_neighbours() -> None:
    torch.manual_seed(2)
    network, jets = ParticleNet(32, 10), random_jets(random_lengths(8))
    exact = network(jets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(jets)
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().max() < 0.1 * exact.abs().max()
