"""What a network must be so that it can be trained, resumed, fine-tuned, counted, planned and fitted.

A network of your own is a subclass of `Network` in one file, registered under a name:

    @NETWORKS.register("mine")
    class Mine(Network): ...

``python -m jetscale.train --trust my_module model.arch=mine`` trains it. Training, plans and checkpoints know
a network by this class alone.

Shapes: B jets, T constituents of the batch, F features, D width, K classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from jetscale.common.usage import UsageError
from jetscale.jets.batch import JetBatch
from jetscale.model import NETWORKS
from jetscale.model.cost import KINDS, ParameterCounts
from jetscale.model.packing import check_lengths

__all__ = ["HEAD", "NETWORKS", "Network", "build_network", "init_normal"]

HEAD = "head."
"""Prefix of the parameters that belong to a task and not to the backbone."""


class Network(nn.Module, ABC):
    """Classifies jets from their constituents, in batches without padding.

    A subclass draws its weights in ``__init__`` from PyTorch's global generator, which is seeded before, so
    that one seed gives the same weights. Every layer that depends on the number of classes is inside one
    module called ``head``; all else is the backbone, which fine-tuning takes over from pretraining. All
    that a resumed run needs is a parameter or a buffer.

    Parameters
    ----------
    dim : width D, the one dial of the network's size
    n_classes : K
    n_features : F, continuous inputs of a constituent
    n_pid : number of particle identities (identities are 0 to n_pid - 1); 0 where the jets have none

    Attributes
    ----------
    arch : the name that the network is registered under; checkpoints carry it
    options : keys of ``model.*`` besides ``arch`` and ``dim`` that ``__init__`` takes, by keyword
    """

    arch: str = ""
    options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, dim: int, n_classes: int, n_features: int, n_pid: int) -> None:
        super().__init__()
        self.dim = dim
        self.n_classes = n_classes
        self.n_features = n_features
        self.n_pid = n_pid

    @abstractmethod
    def forward(self, batch: JetBatch) -> Tensor:
        """Logits of each jet's class.

        Parameters
        ----------
        batch : B jets; labels and positions are not looked at

        Returns
        -------
        (B, K) float logits; half precision under autocast.

        Raises
        ------
        ValueError
            The batch is not one for this network (`check_inputs`).
        """

    @abstractmethod
    def flops(self, lengths_B: Tensor | Sequence[int], backward: bool = True) -> int:
        """Floating-point operations that the network carries out on these jets: 2 m n k a matrix product.

        Parameters
        ----------
        lengths_B : (B,) constituents of each jet
        backward : count the forward and the backward pass; otherwise the forward pass alone
        """

    def parameter_kind(self, name: str) -> str:
        """Which field of `ParameterCounts` the parameter called `name` is counted in.

        By default ``embed.*`` and ``pid.*`` are the embedding, ``head.*`` is the head, scales and shifts of
        modules called ``norm`` or ``..._norm`` are norms, and all else belongs to the blocks.
        """
        module, _, _ = name.partition(".")
        if name.endswith(("norm.weight", "norm.bias")):
            return "norms"
        return {"embed": "embedding", "pid": "embedding", "head": "head"}.get(module, "blocks")

    def count_parameters(self) -> ParameterCounts:
        """Number of parameters by kind; every parameter is in exactly one.

        Raises
        ------
        ValueError
            `parameter_kind` gives a kind that does not exist.
        """
        counts = dict.fromkeys(KINDS, 0)
        for name, parameter in self.named_parameters():
            kind = self.parameter_kind(name)
            if kind not in counts:
                raise ValueError(f"parameter {name!r} is of kind {kind!r}, must be one of {', '.join(KINDS)}")
            counts[kind] += parameter.numel()
        return ParameterCounts(**counts)

    def backbone_state(self) -> dict[str, Tensor]:
        """All weights but the head's, by name, detached; they share memory with the network."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(HEAD)}

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights of another network's `backbone_state` into this one; the head stays as it is.

        Parameters
        ----------
        state : weights by name, of the same shapes as this network's; entries of a head are passed over

        Raises
        ------
        ValueError
            A weight is missing, unknown or of another shape; nothing is loaded then.
        """
        state = {name: value for name, value in state.items() if not name.startswith(HEAD)}
        own = self.backbone_state()
        problems = [f"missing {name}" for name in own if name not in state]
        problems += [f"unknown {name}" for name in state if name not in own]
        problems += [
            f"{name} has shape {tuple(state[name].shape)}, the model wants {tuple(value.shape)}"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ]
        if problems:
            raise ValueError("this backbone does not fit the model: " + "; ".join(problems))
        for name, value in own.items():
            value.copy_(state[name])  # `own` is detached: no gradient sees the copy

    def check_inputs(self, batch: JetBatch) -> None:
        """Raise where the batch is not one for this network.

        Raises
        ------
        ValueError
            Lengths are not positive integers on the CPU or do not add up to T; constituents have another
            number of features than F; identities are missing or not expected.
        """
        check_lengths(batch.lengths_B)
        total, (constituents, features) = int(batch.lengths_B.sum()), batch.x_TF.shape
        if constituents != total:
            raise ValueError(f"lengths add up to {total} constituents, x_TF has {constituents}")
        if features != self.n_features:
            raise ValueError(f"x_TF has {features} features, the network takes {self.n_features}")
        if (batch.pid_T is None) != (self.n_pid == 0):
            raise ValueError("particle identities are given exactly when the model has an embedding for them")


def build_network(
    arch: str, dim: int, n_classes: int, n_features: int, n_pid: int, options: Mapping[str, int]
) -> Network:
    """Make the network that is registered as `arch`, with fresh weights.

    Parameters
    ----------
    arch : name in `NETWORKS`
    dim, n_classes, n_features, n_pid : see `Network`
    options : values of the other keys of ``model.*``; the network takes those it names in `Network.options`

    Raises
    ------
    UsageError
        No network has this name, or what is registered under it is no network.
    ValueError
        The network cannot be made in this size.
    """
    entry = NETWORKS[arch]
    if not _is_network(entry):
        raise UsageError(f"model.arch={arch}: {entry!r} must be a subclass of jetscale.model.network.Network")
    if missing := sorted(entry.__abstractmethods__):
        raise UsageError(f"model.arch={arch}: {entry.__name__} lacks the methods {', '.join(missing)}")
    network = entry(dim, n_classes, n_features, n_pid, **{key: options[key] for key in entry.options})
    network.arch = arch
    return network


def _is_network(entry: object) -> bool:
    return isinstance(entry, type) and issubclass(entry, Network)


def init_normal(weight: Tensor, gain: float = 1.0) -> None:
    """Draw a weight from N(0, gain^2 / in), cut off at three standard deviations.

    Parameters
    ----------
    weight : (out, in), changed in place
    gain : root of the mean square of the outputs for inputs of mean square 1
    """
    sd = gain / math.sqrt(weight.shape[1])
    nn.init.trunc_normal_(weight, std=sd, a=-3 * sd, b=3 * sd)
