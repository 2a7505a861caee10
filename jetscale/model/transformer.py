"""The set transformer: constituents of a jet in, logits of its class out.

Source: arXiv:2606.19781, section "Model", as pinned down in docs: pre-norm blocks without biases, SwiGLU
feed-forward of hidden size 2 D, head dimension 8, no positional encoding, a learnable class token. One block
has 10 D^2 weights: 4 D^2 in attention, 6 D^2 in the feed-forward.

Shapes: T constituents of the batch, B jets, F features, D width, S = T + B tokens (the class token of a jet
before its constituents), H heads, E channels of a head, M = 2 D, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from jetscale.model.kernels.cpu import operations_for
from jetscale.model.operations import Operations
from jetscale.model.packing import PackingPlan

# x_TF, pid_T, and the weights of `operations.tokens`
Embedding = tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor | None, Tensor]
HEAD = "head."  # prefix of the parameters that belong to a task, not to the backbone


class Block(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + SwiGLU(norm(x)); no biases.

    Parameters
    ----------
    dim : width D
    head_dim : channels of a head E, a divisor of D
    depth : number of blocks in the model; the initial output of each branch is scaled by 1 / sqrt(2 depth)
    """

    def __init__(self, dim: int, head_dim: int, depth: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.attention_norm = nn.LayerNorm(dim, bias=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.feedforward_norm = nn.LayerNorm(dim, bias=False)
        self.gate_up = nn.Linear(dim, 4 * dim, bias=False)
        self.down = nn.Linear(2 * dim, dim, bias=False)
        for linear, gain in (
            (self.qkv, 1.0),
            (self.out, (2 * depth) ** -0.5),
            (self.gate_up, 1.0),
            (self.down, (2 * depth) ** -0.5),
        ):
            init_normal(linear.weight, gain)

    def forward(self, x_SD: Tensor, plan: PackingPlan, ops: Operations) -> Tensor:
        """All tokens in, all tokens out, (S, D)."""
        x_SD = ops.attend(
            x_SD, self.attention_norm.weight, self.qkv.weight, self.out.weight, self.head_dim, plan
        )
        return ops.feed_forward(x_SD, self.feedforward_norm.weight, self.gate_up.weight, self.down.weight)

    def embedded_forward(self, embedding: Embedding, plan: PackingPlan, ops: Operations) -> Tensor:
        """Constituents in, all tokens out, (S, D): exactly `forward` on the tokens made of them."""
        x_SD = ops.attend_embedded(
            *embedding,
            self.attention_norm.weight,
            self.qkv.weight,
            self.out.weight,
            self.head_dim,
            plan,
        )
        return ops.feed_forward(x_SD, self.feedforward_norm.weight, self.gate_up.weight, self.down.weight)

    def class_forward(self, x_SD: Tensor, plan: PackingPlan, ops: Operations) -> Tensor:
        """All tokens in, class tokens out, (B, D): exactly the rows of `forward` that the head reads."""
        x_BD = ops.attend_class(
            x_SD, self.attention_norm.weight, self.qkv.weight, self.out.weight, self.head_dim, plan
        )
        return ops.feed_forward(x_BD, self.feedforward_norm.weight, self.gate_up.weight, self.down.weight)


class SetTransformer(nn.Module):
    """Classify jets from their constituents, without padding.

    Parameters
    ----------
    dim : width D, a multiple of `head_dim`; the one dial of the model's size
    n_classes : K
    n_features : F, continuous inputs of a constituent
    n_pid : entries of the particle-identity embedding; 0 for a feature set without an integer identity
    depth : number of blocks
    head_dim : channels of an attention head

    Weights are drawn from PyTorch's global generator: seed it first.

    Raises
    ------
    ValueError
        when `dim` is not a positive multiple of `head_dim`.
    """

    def __init__(
        self, dim: int, n_classes: int, n_features: int = 8, n_pid: int = 9, depth: int = 4, head_dim: int = 8
    ) -> None:
        super().__init__()
        if dim < head_dim or dim % head_dim:
            raise ValueError(f"model.dim={dim} must be a positive multiple of the head dimension {head_dim}")
        self.head_dim = head_dim
        self.embed = nn.Linear(n_features, dim)
        self.pid = nn.Embedding(n_pid, dim) if n_pid else None
        self.class_token = nn.Parameter(torch.empty(dim))
        self.blocks = nn.ModuleList(Block(dim, head_dim, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.head = nn.Linear(dim, n_classes)
        init_normal(self.embed.weight)
        nn.init.zeros_(self.embed.bias)
        # Not zero: a zero token has no direction for LayerNorm to keep, only rounding.
        nn.init.normal_(self.class_token)
        # Small: the first loss is that of the uniform guess, ln K.
        init_normal(self.head.weight, 0.1)
        nn.init.zeros_(self.head.bias)

    def forward(self, x_TF: Tensor, pid_T: Tensor | None, lengths_B: Tensor) -> Tensor:
        """Logits of each jet's class.

        Parameters
        ----------
        x_TF : (T, F) float, constituents of all jets, concatenated in jet order
        pid_T : (T,) int64 particle identities, or None when the model has no identity embedding
        lengths_B : (B,) integer, constituents per jet, on the CPU whatever the device of the rest

        Returns
        -------
        (B, K) logits.

        Raises
        ------
        ValueError
            when lengths do not add up to T, or `pid_T` is given to a model without identities or missing.
        """
        plan = PackingPlan(lengths_B, x_TF.device)
        if len(x_TF) != plan.n_tokens - plan.n_jets:
            raise ValueError(
                f"lengths add up to {plan.n_tokens - plan.n_jets} constituents, x_TF has {len(x_TF)}"
            )
        if (pid_T is None) != (self.pid is None):
            raise ValueError("particle identities are given exactly when the model has an embedding for them")
        ops = operations_for(self.head_dim, x_TF, self.class_token)
        table = None if self.pid is None else self.pid.weight
        embedding = x_TF, pid_T, self.embed.weight, self.embed.bias, table, self.class_token
        first, last = self.blocks[0], self.blocks[-1]
        assert isinstance(first, Block)
        assert isinstance(last, Block)
        x_SD = ops.tokens(*embedding, plan) if first is last else first.embedded_forward(embedding, plan, ops)
        for block in self.blocks[1:-1]:
            x_SD = block(x_SD, plan, ops)
        logits_BK: Tensor = self.head(self.norm(last.class_forward(x_SD, plan, ops)))
        return logits_BK

    def backbone_state(self) -> dict[str, Tensor]:
        """All weights but the head's, detached, sharing memory with the model."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(HEAD)}

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights of another model's `backbone_state` in; the head stays as it is.

        Raises
        ------
        ValueError
            when a weight is missing, unknown or of another shape; nothing is loaded then.
        """
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
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])


def init_normal(weight: Tensor, gain: float = 1.0) -> None:
    """Draw an (out, in) matrix from N(0, gain^2 / in), cut at three standard deviations."""
    sd = gain / math.sqrt(weight.shape[1])
    nn.init.trunc_normal_(weight, std=sd, a=-3 * sd, b=3 * sd)
