"""Deep Sets, known for jets as the Particle Flow Network: a sum over constituents between two perceptrons.

    logits = head(F(1/n_p sum over constituents i of Phi(x_i)))

Source: Komiske, Metodiev, Thaler, "Energy Flow Networks: Deep Sets for Particle Jets", arXiv:1810.05165,
eq. 1.2 and section 3; with particle identities it is their PFN-ID. Their network has the layers
Phi: 100, 100, 256 and F: 100, 100, 100, all with biases and ReLU, and weights drawn after He et al.
(arXiv:1502.01852). Here the width D stands for their 100, and the latent space has 2 D dimensions
(256 / 100, rounded down: assumed).

There are two differences. An identity is one more vector added to the first layer, which equals their one-hot
inputs. And the sum is divided by the constant n_p = 40, a factor that the first matrix of F could take up: so
F starts with inputs of order one, and its learning rates can be compared with the transformer's.

Weights, biases aside: (F + identities) D in the first layer, D^2 + 2 D^2 in the rest of Phi,
2 D^2 + D^2 + D^2 in F, D K in the head. Of the 7 D^2, constituents pass through 3 D^2 and jets through 4 D^2.
So C = 6 N n_p, which counts all N for every constituent, is 2.3 times the operations that are carried out, 3
times at width 8; `DeepSets.flops` counts those.

Shapes: T constituents of the batch, B jets, F features, D width, L = 2 D latent dimensions, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.jets.batch import JetBatch
from jetscale.model.network import Network, init_normal

RELU_GAIN = math.sqrt(2)  # of He et al.: a ReLU halves the mean square of what it is given


class DeepSets(Network):
    """The Particle Flow Network of width D; depth and everything else follow from D.

    Parameters
    ----------
    dim, n_classes, n_features, n_pid : see `Network`
    """

    arch = "deepsets"

    def __init__(self, dim: int, n_classes: int, n_features: int = 8, n_pid: int = 9) -> None:
        super().__init__(dim, n_classes, n_features, n_pid)
        self.embed = nn.Linear(n_features, dim)
        self.pid = nn.Embedding(n_pid, dim) if n_pid else None
        self.of_constituents = _layers(dim, dim, 2 * dim)
        self.of_jets = _layers(2 * dim, dim, dim, dim)
        self.head = nn.Linear(dim, n_classes)
        init_normal(self.embed.weight)
        nn.init.zeros_(self.embed.bias)
        # Small: the first loss is that of the uniform guess, ln K.
        init_normal(self.head.weight, 0.1)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: JetBatch) -> Tensor:
        """Logits (B, K), see `Network.forward`."""
        self.check_inputs(batch)
        x_TD = self.embed(batch.x_TF)
        if self.pid is not None and batch.pid_T is not None:
            x_TD = x_TD + self.pid(batch.pid_T)
        x_TL = self.of_constituents(functional.relu(x_TD))
        x_BL = sum_per_jet(x_TL, batch.lengths_B) / MEAN_CONSTITUENTS
        logits_BK: Tensor = self.head(self.of_jets(x_BL))
        return logits_BK

    def flops(self, lengths_B: Tensor | Sequence[int], backward: bool = True) -> int:
        """Operations of the matrix products, see `Network.flops`.

        The backward pass of a layer is two products, one for its weight and one for its input, twice the
        forward; features need no gradient, so the first layer has one.
        """
        n_jets, n_constituents = len(lengths_B), sum(int(length) for length in lengths_B)
        on_features = 2 * n_constituents * self.dim * self.n_features
        # weights: D^2 + 2 D^2 in Phi, 2 D^2 + D^2 + D^2 in F, D K in the head
        per_constituent = 2 * 3 * self.dim**2
        per_jet = 2 * (4 * self.dim**2 + self.dim * self.n_classes)
        others = n_constituents * per_constituent + n_jets * per_jet
        return 2 * on_features + 3 * others if backward else on_features + others


def _layers(*widths: int) -> nn.Sequential:
    """Linear layers between these widths, each followed by a ReLU, with freshly drawn weights."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        linear = nn.Linear(n_in, n_out)
        init_normal(linear.weight, RELU_GAIN)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers)


def sum_per_jet(x_TL: Tensor, lengths_B: Tensor) -> Tensor:
    """Add up the rows of each jet.

    The sum is in float32 at least, and in the order of the rows: `index_add` adds them one after the other on
    a CPU and, in PyTorch's deterministic mode, sorts them on a GPU. Its gradient only copies rows.

    Parameters
    ----------
    x_TL : (T, L) rows of all constituents, in jet order
    lengths_B : (B,) integer, constituents of each jet, on the CPU

    Returns
    -------
    (B, L), float32 for inputs in half precision, else in the precision of `x_TL`.
    """
    jets_T = torch.repeat_interleave(torch.arange(len(lengths_B)), lengths_B).to(x_TL.device)
    x_TL = x_TL.to(torch.promote_types(x_TL.dtype, torch.float32))
    return x_TL.new_zeros(len(lengths_B), x_TL.shape[1]).index_add(0, jets_T, x_TL)
