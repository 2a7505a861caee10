"""A small ParticleNet: convolutions over the edges between each constituent and its nearest neighbours.

    x_i' = ReLU(shortcut(x_i) + 1/k sum over the k neighbours j of i of Psi(x_i, x_j - x_i))

Source: Qu, Gouskos, "ParticleNet: Jet Tagging via Particle Clouds", arXiv:1902.08570, with the sizes of its
ParticleNet-Lite: k = 7 neighbours and two EdgeConv blocks of widths 32 and 64, each with three layers in Psi.
Here the width D stands for their 32, so the blocks have D and 2 D channels. Neighbours are the nearest ones
of the same jet in the (eta, phi) plane in the first block, and in the space of its features in the second.
Then the constituents of a jet are averaged, and one more layer makes the D numbers that the head reads (they
have 4 D there).

There are four differences. Constituents are embedded linearly first, since an identity is a vector here.
Norms are over the channels of an edge and not over the batch, so that a jet does not depend on the others. A
jet of fewer than k + 1 constituents has fewer neighbours, and averages over these; theirs takes padding for
the missing ones. And there is no dropout, since training sees each jet once.

Weights, norms and biases aside: (F + identities) D in the embedding, 5 D^2 and 14 D^2 in the blocks, 2 D^2 in
the layer after them, D K in the head. Constituents pass through 9 D^2 of these once, through 10 D^2 once for
each neighbour, and jets through 2 D^2. So C = 6 N n_p is 3 to 4 times less than what is carried out;
`ParticleNet.flops` counts that.

Shapes: T constituents of the batch, B jets, L constituents of the longest jet, F features, C coordinates,
I channels before and O channels after a block, D width, k neighbours, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetscale.jets.batch import JetBatch
from jetscale.jets.features import FEATURE_SETS
from jetscale.model.deepsets import RELU_GAIN, sum_per_jet
from jetscale.model.network import Network, init_normal

NEIGHBOURS = 7

Neighbours = tuple[Tensor, Tensor]
"""(T, k) int64, row of each neighbour; (T, k) bool, whether there is one."""


class ParticleNet(Network):
    """ParticleNet-Lite of width D; depth and everything else follow from D.

    Parameters
    ----------
    dim, n_classes, n_features, n_pid : see `Network`
    """

    arch = "particlenet"

    def __init__(self, dim: int, n_classes: int, n_features: int = 8, n_pid: int = 9) -> None:
        super().__init__(dim, n_classes, n_features, n_pid)
        self.embed = nn.Linear(n_features, dim)
        self.pid = nn.Embedding(n_pid, dim) if n_pid else None
        self.blocks = nn.ModuleList([EdgeConv(dim, dim), EdgeConv(dim, 2 * dim)])
        self.of_jets = nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, n_classes)
        init_normal(self.embed.weight)
        init_normal(self.of_jets.weight, RELU_GAIN)
        # Small: the first loss is that of the uniform guess, ln K.
        init_normal(self.head.weight, 0.1)
        for linear in (self.embed, self.of_jets, self.head):
            nn.init.zeros_(linear.bias)

    def forward(self, batch: JetBatch) -> Tensor:
        """Logits (B, K), see `Network.forward`."""
        self.check_inputs(batch)
        x_TD = self.embed(batch.x_TF)
        if self.pid is not None and batch.pid_T is not None:
            x_TD = x_TD + self.pid(batch.pid_T)
        first = coordinates_in(self.n_features)
        where_TC = batch.x_TF[:, first : first + 2]
        for block in self.blocks:
            x_TD = block(x_TD, nearest(where_TC, batch.lengths_B, NEIGHBOURS))
            where_TC = x_TD
        lengths_B = batch.lengths_B.to(x_TD.device)
        mean_BD = sum_per_jet(x_TD, batch.lengths_B) / lengths_B[:, None]
        logits_BK: Tensor = self.head(functional.relu(self.of_jets(mean_BD)))
        return logits_BK

    def flops(self, lengths_B: Tensor | Sequence[int], backward: bool = True) -> int:
        """Operations of the matrix products, see `Network.flops`; distances between constituents left out.

        The backward pass of a layer is two products, one for its weight and one for its input, twice the
        forward; features need no gradient, so the first layer has one.
        """
        n_jets, lengths = len(lengths_B), [int(length) for length in lengths_B]
        # a batch whose longest jet is shorter than k + 1 has no further columns, see `nearest`
        n_neighbours = min(NEIGHBOURS, max(lengths) - 1)
        on_features = 2 * sum(lengths) * self.dim * self.n_features
        per_constituent = 2 * (9 + 10 * n_neighbours) * self.dim**2
        per_jet = 2 * (2 * self.dim**2 + self.dim * self.n_classes)
        others = sum(lengths) * per_constituent + n_jets * per_jet
        return 2 * on_features + 3 * others if backward else on_features + others


class EdgeConv(nn.Module):
    """One block: a perceptron of three layers on each edge, averaged over the edges of a constituent.

    Parameters
    ----------
    n_in, n_out : I, O, channels of a constituent before and after
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(2 * n_in, n_out), _Layer(n_out, n_out), _Layer(n_out, n_out)])
        self.shortcut = _Layer(n_in, n_out)

    def forward(self, x_TI: Tensor, neighbours: Neighbours) -> Tensor:
        """Apply the block.

        Parameters
        ----------
        x_TI : (T, I) constituents
        neighbours : of each of them, from `nearest`

        Returns
        -------
        (T, O) constituents; one without a neighbour keeps its shortcut alone.
        """
        rows_Tk, there_Tk = neighbours
        first, second, third = self._layers()
        # W (x_i, x_j - x_i) = (W_own - W_other) x_i + W_other x_j: products on constituents, not on edges
        own_OI, other_OI = first.linear.weight.chunk(2, dim=1)
        own_TO = functional.linear(x_TI, own_OI - other_OI)
        other_TO = functional.linear(x_TI, other_OI)
        others_TkO = other_TO.index_select(0, rows_Tk.flatten()).view(*rows_Tk.shape, -1)
        edges_TkO = functional.relu(first.norm(own_TO[:, None] + others_TkO))
        edges_TkO = functional.relu(third(functional.relu(second(edges_TkO))))
        count_T1 = there_Tk.sum(dim=1, keepdim=True).clamp_min(1)
        mean_TO = (edges_TkO * there_Tk[:, :, None]).sum(dim=1) / count_T1
        return functional.relu(self.shortcut(x_TI) + mean_TO)

    def _layers(self) -> list[_Layer]:
        return [layer for layer in self.layers if isinstance(layer, _Layer)]


class _Layer(nn.Module):
    """A product and a norm over its channels; no bias, since the norm has one."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=False)
        self.norm = nn.LayerNorm(n_out)
        init_normal(self.linear.weight, RELU_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """The last axis, of any number of rows, through the product and the norm."""
        y: Tensor = self.norm(self.linear(x))
        return y


@torch.no_grad()
def nearest(where_TC: Tensor, lengths_B: Tensor, n_neighbours: int) -> Neighbours:
    """The nearest other constituents of the same jet.

    Parameters
    ----------
    where_TC : (T, C) coordinates of all constituents, in jet order
    lengths_B : (B,) integer, constituents of each jet, on the CPU
    n_neighbours : k; where all jets of the batch have fewer others, that many

    Returns
    -------
    See `Neighbours`: by growing distance; where there is no neighbour, the row is the constituent's own.
    """
    n_jets, longest = len(lengths_B), int(lengths_B.max())
    valid_BL = (torch.arange(longest) < lengths_B[:, None]).to(where_TC.device)
    where_BLC = where_TC.new_zeros(n_jets, longest, where_TC.shape[1], dtype=torch.float32)
    where_BLC[valid_BL] = where_TC.float()
    # not by products: |a|^2 + |b|^2 - 2 ab loses the digits by which near constituents differ
    distance_BLL = torch.cdist(where_BLC, where_BLC, compute_mode="donot_use_mm_for_euclid_dist")
    itself_LL = torch.eye(longest, dtype=torch.bool, device=where_TC.device)
    distance_BLL.masked_fill_(~valid_BL[:, None, :] | itself_LL, torch.inf)
    distance_BLk, places_BLk = distance_BLL.topk(min(n_neighbours, longest - 1), dim=2, largest=False)
    starts_B = (lengths_B.cumsum(0) - lengths_B).to(where_TC.device)
    there_Tk = distance_BLk[valid_BL].isfinite()
    rows_Tk = (starts_B[:, None, None] + places_BLk)[valid_BL]
    own_T1 = torch.arange(len(where_TC), device=where_TC.device)[:, None]
    return torch.where(there_Tk, rows_Tk, own_T1), there_Tk


def coordinates_in(n_features: int) -> int:
    """Column of part_deta in inputs of `n_features` columns; part_dphi is the next one in each feature set.

    Inputs of another number of columns than jetscale's sets must begin with these two.
    """
    return next((one.deta_column for one in FEATURE_SETS.values() if one.n_features == n_features), 0)
