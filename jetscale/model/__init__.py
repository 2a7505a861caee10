"""Networks that turn jets into logits, what they cost, and the list of their names.

`NETWORKS` is here, where importing it needs no torch, so that settings and ``--help`` know the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetscale.common.registry import Registry

if TYPE_CHECKING:
    from jetscale.model.network import Network

DEFAULT = "transformer"
"""The network of arXiv:2606.19781, and of every run made before there was a choice."""

NETWORKS: Registry[type[Network]] = Registry(
    "network",
    {
        DEFAULT: "jetscale.model.transformer:SetTransformer",
        "deepsets": "jetscale.model.deepsets:DeepSets",
        "particlenet": "jetscale.model.particlenet:ParticleNet",
    },
)
"""Networks by the name that ``model.arch`` gives."""
