"""Networks on jets padded to one length: the form that other programs can run.

The packed networks of `jetscale.model` plan their work on the CPU by the lengths of jets, which no exported
graph can do. These modules hold the same weights, take rectangles, and give the same numbers.

Shapes: B jets, L constituents of the longest jet, F features, D width, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.common.usage import UsageError
from jetscale.jets.features import FeatureSet
from jetscale.model.deepsets import DeepSets
from jetscale.model.network import Network
from jetscale.model.reference import padded_block
from jetscale.model.transformer import Block, SetTransformer


class Padded(nn.Module):
    """The summary of a padded jet that the head of its network reads; inputs are standardised inside.

    Parameters
    ----------
    network : a trained network, whose weights are shared
    features : its inputs

    Raises
    ------
    UsageError
        Networks of this kind have no padded form.
    """

    def __init__(self, network: Network, features: FeatureSet) -> None:
        super().__init__()
        if network.arch not in _SUMMARIES:
            raise UsageError(
                f"model.arch={network.arch}: only {' and '.join(_SUMMARIES)} can be exported; use the "
                "network from Python (jetscale.load)"
            )
        self.network = network
        self.register_buffer("centre", torch.tensor(features.centre))
        self.register_buffer("scale", 1 / torch.tensor(features.spread))

    def summaries(self, x_BLF: Tensor, pid_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Summaries of the jets, (B, D) float32.

        Parameters
        ----------
        x_BLF : (B, L, F) float32, the columns of the feature set, not standardised; anything in
            padding, NaN too
        pid_BL : (B, L) int64 particle identities, 0 in padding; not looked at by a network without them
        mask_BL : (B, L) bool, True for constituents, False for padding; each jet has at least one constituent
        """
        x_BLF = (x_BLF - self.get_buffer("centre")) * self.get_buffer("scale")
        # what is not finite would spread from the padding: 0 times NaN is NaN
        x_BLF = x_BLF.masked_fill(~mask_BL[:, :, None], 0)
        return _SUMMARIES[self.network.arch](self.network, x_BLF, pid_BL, mask_BL)


class PaddedTagger(Padded):
    """Probabilities of padded jets; parameters as those of `Padded`."""

    def forward(self, x_BLF: Tensor, pid_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Probabilities of the classes, (B, K) float32; parameters as those of `Padded.summaries`."""
        logits_BK: Tensor = self.network.get_submodule("head")(self.summaries(x_BLF, pid_BL, mask_BL))
        return logits_BK.softmax(dim=1)


class PaddedBackbone(Padded):
    """Summaries of padded jets, for a head of somebody else's.

    It has a copy of the weights, the head's left out, and they can be trained on.

    Parameters
    ----------
    network, features : as for `Padded`
    """

    def __init__(self, network: Network, features: FeatureSet) -> None:
        super().__init__(copy.deepcopy(network), features)
        self.network.head = nn.Identity()
        self.requires_grad_(True)

    def forward(self, x_BLF: Tensor, pid_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Summaries of the jets, (B, D) float32; parameters as those of `Padded.summaries`."""
        return self.summaries(x_BLF, pid_BL, mask_BL)


def _transformer(network: Network, x_BLF: Tensor, pid_BL: Tensor, mask_BL: Tensor) -> Tensor:
    assert isinstance(network, SetTransformer)
    x_BLD = network.embed(x_BLF)
    if network.pid is not None:
        x_BLD = x_BLD + network.pid(pid_BL)
    class_B1D = network.class_token.expand(x_BLD.shape[0], 1, -1)
    x_BLD = torch.cat([class_B1D, x_BLD], dim=1)
    mask_B11L = functional.pad(mask_BL, (1, 0), value=True)[:, None, None, :]
    for block in network.blocks:
        assert isinstance(block, Block)
        x_BLD = padded_block(block, x_BLD, mask_B11L)
    summary_BD: Tensor = network.norm(x_BLD[:, 0])
    return summary_BD


def _deepsets(network: Network, x_BLF: Tensor, pid_BL: Tensor, mask_BL: Tensor) -> Tensor:
    assert isinstance(network, DeepSets)
    x_BLD = network.embed(x_BLF)
    if network.pid is not None:
        x_BLD = x_BLD + network.pid(pid_BL)
    x_BLL = network.of_constituents(functional.relu(x_BLD)) * mask_BL[:, :, None]
    summary_BD: Tensor = network.of_jets(x_BLL.sum(dim=1) / MEAN_CONSTITUENTS)
    return summary_BD


_SUMMARIES: dict[str, Callable[[Network, Tensor, Tensor, Tensor], Tensor]] = {
    "transformer": _transformer,
    "deepsets": _deepsets,
}
"""By ``model.arch``: what the head reads of padded, standardised jets."""
