"""Networks on jets padded to one length: the form that other programs can run.

The packed networks of `jetscale.model` plan their work on the CPU by the lengths of jets, which no exported
graph can do. These modules hold the same weights, take rectangles, and give the same probabilities.

Shapes: B jets, L constituents of the longest jet, F features, D width, K classes.
"""

from __future__ import annotations

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


class PaddedTagger(nn.Module):
    """Probabilities of padded jets; inputs are standardised inside.

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
        if network.arch not in _LOGITS:
            raise UsageError(
                f"model.arch={network.arch}: only {' and '.join(_LOGITS)} can be exported; use the network "
                "from Python (jetscale.load)"
            )
        self.network = network
        self.register_buffer("centre", torch.tensor(features.centre))
        self.register_buffer("scale", 1 / torch.tensor(features.spread))

    def forward(self, x_BLF: Tensor, pid_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Probabilities of the classes.

        Parameters
        ----------
        x_BLF : (B, L, F) float32, the columns of the feature set, not standardised; any finite
            numbers in padding
        pid_BL : (B, L) int64 particle identities, 0 in padding; not looked at by a network without them
        mask_BL : (B, L) bool, True for constituents, False for padding; each jet has at least one constituent

        Returns
        -------
        (B, K) float32.
        """
        x_BLF = (x_BLF - self.get_buffer("centre")) * self.get_buffer("scale")
        logits_BK = _LOGITS[self.network.arch](self.network, x_BLF, pid_BL, mask_BL)
        return logits_BK.softmax(dim=1)


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
    logits_BK: Tensor = network.head(network.norm(x_BLD[:, 0]))
    return logits_BK


def _deepsets(network: Network, x_BLF: Tensor, pid_BL: Tensor, mask_BL: Tensor) -> Tensor:
    assert isinstance(network, DeepSets)
    x_BLD = network.embed(x_BLF)
    if network.pid is not None:
        x_BLD = x_BLD + network.pid(pid_BL)
    x_BLL = network.of_constituents(functional.relu(x_BLD)) * mask_BL[:, :, None]
    logits_BK: Tensor = network.head(network.of_jets(x_BLL.sum(dim=1) / MEAN_CONSTITUENTS))
    return logits_BK


_LOGITS: dict[str, Callable[[Network, Tensor, Tensor, Tensor], Tensor]] = {
    "transformer": _transformer,
    "deepsets": _deepsets,
}
"""By ``model.arch``: logits of padded, standardised jets."""
